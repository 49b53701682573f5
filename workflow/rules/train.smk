"""Runs: the resolved configuration of each, then training and evaluation in one process.

Only finished files are outputs of `train`. Snakemake deletes the outputs of a job that fails or
starts, never the folder around them, so the checkpoint in it survives and the run resumes from it.
"""


localrules:
    configure,


rule configure:
    output:
        RUN.config,
    log:
        f"{RUN_LOG}.configure.log",
    priority: BEFORE_RUNS
    conda:
        ENVIRONMENT
    # what the run depends on, value by value: a change of one makes it again, and -n names it
    params:
        **{name: partial(run_setting, name=name) for name in RUN_SETTINGS},
        grid=GRID_FILE,
    shell:
        "logged {log:q} haste configure --grid {params.grid:q} --dataset {wildcards.dataset:q}"
        " --method {wildcards.method:q} --variant {wildcards.variant:q} --seed {wildcards.seed:q}"
        " --out {output:q}"


rule train:
    input:
        train_inputs,
        config=RUN.config,
    output:
        RUN.metrics,
        RUN.resources,
        RUN.predictions,
        RUN.history,
        RUN.model,
    log:
        f"{RUN_LOG}.log",
    benchmark:
        f"{RUN_LOG}.tsv"
    wildcard_constraints:
        method=one_of(key.method for key in TRAINED),
    priority: lambda wildcards: PRIORITY[run_key(wildcards)]
    retries: TRAIN_RETRIES
    group:
        run_group
    # Snakemake sets OMP_NUM_THREADS, MKL_NUM_THREADS and the like to {threads}
    conda:
        ENVIRONMENT
    threads: lambda wildcards: TRAINED[run_key(wildcards)].training.threads
    resources:
        **asks(lambda wildcards: REQUESTS[run_key(wildcards)]),
        gpu=lambda wildcards: ON_GPU[run_key(wildcards)],
        slurm_partition=lambda wildcards: partition(ON_GPU[run_key(wildcards)]),
        runs_per_gpu=1,
    params:
        slot=gpu_slot,
    shell:
        "logged {log:q} {params.slot:q} haste train -- {input.config:q}"


rule baseline:
    input:
        corpus=lambda wildcards: corpus_files(wildcards.dataset),
        config=RUN.config,
    output:
        RUN.metrics,
        RUN.resources,
        RUN.predictions,
    log:
        f"{RUN_LOG}.log",
    benchmark:
        f"{RUN_LOG}.tsv"
    wildcard_constraints:
        method=one_of(key.method for key in LINEAR),
    group:
        lambda wildcards: together("baselines", [linear_request(size_of(wildcards))])
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        **asks(lambda wildcards: linear_request(size_of(wildcards))),
    params:
        corpus=corpus_of,
        out=subpath(input.config, parent=True),
    shell:
        "logged {log:q} haste baseline {wildcards.method:q} --corpus {params.corpus:q}"
        " --seed {wildcards.seed:q} --threads {threads} --out {params.out:q}"
