"""The benchmarks: tables and figures of committed results, and the runs that make results."""


localrules:
    kernels,
    scale,


rule kernels:
    input:
        written(of_benchmark(TABLES, "kernels"), of_benchmark(FIGURES, "kernels")),


rule scale:
    input:
        written(of_benchmark(TABLES, "scale"), of_benchmark(FIGURES, "scale")),


# Runs, only when asked for by name. They have no output: results bear the name of the GPU they were
# taken on, and without a GPU those that are committed stay as they are.
rule bench_kernels:
    log:
        LOGS / "bench_kernels.log",
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        gpu=1,
        slurm_partition=lambda wildcards: partition(True),
        mem_mb=16000,
        runtime=30,
        runs_per_gpu=1,
    params:
        slot=gpu_slot,
        out=LAYOUT.benchmarks,
    shell:
        "logged {log:q} {params.slot:q} haste bench kernels --out {params.out:q}"


rule bench_scale:
    log:
        LOGS / "bench_scale.log",
    conda:
        ENVIRONMENT
    threads: 4
    resources:
        gpu=1,
        slurm_partition=lambda wildcards: partition(True),
        mem_mb=24000,
        runtime=30,
        runs_per_gpu=1,
    params:
        slot=gpu_slot,
        out=LAYOUT.benchmarks,
        grid=CONFIGURATIONS / "paper.yaml",
    shell:
        "logged {log:q} {params.slot:q} haste bench scale --out {params.out:q} --grid {params.grid:q}"
