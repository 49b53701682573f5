"""The kernel benchmark: tables and figures of committed results, and the run that makes results."""


localrules:
    kernels,


rule kernels:
    input:
        expand(
            f"{LAYOUT.table('{table}')}.{{suffix}}",
            table=KERNEL_TABLES,
            suffix=["csv", "md", "tex"],
        ),
        expand(
            f"{LAYOUT.figure('{figure}')}.{{suffix}}",
            figure=needs.KERNEL_FIGURES,
            suffix=["csv", "pdf", "png"],
        ),


# Only when asked for by name. It has no output: results bear the name of the GPU they were taken on,
# and without a GPU those that are committed stay as they are.
rule bench_kernels:
    log:
        LOGS / "bench_kernels.log",
    conda:
        "../../envs/gpu.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=30,
    params:
        out=LAYOUT.benchmarks,
    shell:
        "haste bench kernels --out {params.out} > {log} 2>&1"
