"""Runs: the resolved configuration of each, then training and evaluation in one process.

Only finished files are outputs of `train`. Snakemake deletes the outputs of a job that fails or
starts, never the folder around them, so the checkpoint in it survives and the run goes on from it.
"""

SETTINGS_TEMPLATE = Path(workflow.basedir, "workflow", "templates", "settings.yaml")


def settings(wildcards):
    """What a run's config.yaml says; a change of anything in it makes the run again."""
    key = run_key(wildcards)
    if key in TRAINED:
        return TRAINED[key].as_dict()
    return {
        "dataset": key.dataset,
        "method": key.method,
        "variant": key.variant,
        "seed": key.seed,
        "inputs": {"corpus": str(LAYOUT.corpus(key.dataset).root)},
    }


def train_inputs(wildcards):
    """Every file that the run's configuration names."""
    run = TRAINED[run_key(wildcards)]
    encoder = run.encoder
    orders = [path for path in (run.inputs.order, run.inputs.clusters) if path]
    return [
        *corpus_files(run.dataset),
        *token_files(run.dataset, encoder.model_name, encoder.max_len),
        model_file(encoder.model_name),
        *orders,
    ]


# Rendered within Snakemake's own process: a `run:` block would start another one for each run.
rule configure:
    input:
        template=ancient(SETTINGS_TEMPLATE),
    output:
        RUN.config,
    params:
        settings=settings,
    template_engine: "yte"


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
    threads: lambda wildcards: TRAINED[run_key(wildcards)].training.threads
    resources:
        mem_mb=4000,
        runtime=240,
        gpu=lambda wildcards: int(TRAINED[run_key(wildcards)].training.device == "cuda"),
    # Snakemake sets OMP_NUM_THREADS, MKL_NUM_THREADS and the like to {threads}
    shell:
        "haste train {input.config} > {log} 2>&1"


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
    params:
        corpus=str(LAYOUT.corpus("{dataset}").root),
        out=subpath(input.config, parent=True),
    wildcard_constraints:
        method=one_of(key.method for key in LINEAR),
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
    shell:
        "haste baseline {wildcards.method} --corpus {params.corpus} --seed {wildcards.seed}"
        " --threads {threads} --out {params.out} > {log} 2>&1"
