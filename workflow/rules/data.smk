"""From sources to documents, label matrices and tokens."""


rule fetch:
    output:
        LAYOUT.raw("{source}") / "SOURCE.json",
    log:
        LOGS / "data" / "{source}" / "fetch.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        # gigabytes over a slow line
        runtime=720,
    params:
        registry=RESOURCES / "datasets.yaml",
        lock=LAYOUT.lock,
        out=subpath(output[0], parent=True),
        # fetched again when its entry changes, not when another one does
        entry=lambda wildcards: str(REGISTRY.source(wildcards.source)),
    shell:
        "haste fetch {wildcards.source} --registry {params.registry} --lock {params.lock}"
        " --out {params.out} > {log} 2>&1"


rule fetch_model:
    output:
        model_file("{model}"),
    log:
        LOGS / "data" / "models" / "{model}.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        # gigabytes over a slow line
        runtime=720,
    params:
        registry=RESOURCES / "datasets.yaml",
        lock=LAYOUT.lock,
        out=subpath(output[0], parent=True),
        entry=lambda wildcards: str(REGISTRY.source(wildcards.model)),
    shell:
        "haste fetch {wildcards.model} --registry {params.registry} --lock {params.lock}"
        " --out {params.out} > {log} 2>&1"


rule synth:
    output:
        directory(LAYOUT.raw("{generated}")),
    log:
        LOGS / "data" / "{generated}" / "synth.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        options=lambda wildcards: [
            f"--{option.replace('_', '-')}={value}"
            for option, value in DATASETS[wildcards.generated].synth.items()
        ],
    shell:
        "haste synth {output} {params.options:q} > {log} 2>&1"


rule corpus:
    input:
        lambda wildcards: raw_files(wildcards.dataset),
    output:
        corpus_files("{dataset}"),
    log:
        DATA_LOG / "corpus.log",
    benchmark:
        DATA_LOG / "corpus.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards: corpus_memory(
            expected_size(REGISTRY, wildcards.dataset)
        ),
        runtime=240,
    params:
        registry=RESOURCES / "datasets.yaml",
        raw=lambda wildcards: raw_folder(wildcards.dataset),
        # only where it describes the data set: another grid is no reason to make the corpus again
        grid=lambda wildcards: (
            f"--grid {GRID_FILE}" if wildcards.dataset in GRID.dataset_settings else ""
        ),
        out=subpath(output[0], parent=True),
        entry=lambda wildcards: corpus_entry(wildcards.dataset),
    shell:
        "haste corpus {wildcards.dataset} --registry {params.registry} {params.grid}"
        " --raw {params.raw:q} --out {params.out} > {log} 2>&1"


rule tokenize:
    input:
        corpus=corpus_files("{dataset}"),
        model=model_file("{model}"),
    output:
        token_files("{dataset}", "{model}", "{max_len}"),
    log:
        DATA_LOG / "tokenize-{model}-{max_len}.log",
    benchmark:
        DATA_LOG / "tokenize-{model}-{max_len}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        corpus=corpus_of,
        model=subpath(input.model, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "haste tokenize --corpus {params.corpus} --model {params.model}"
        " --max-len {wildcards.max_len} --out {params.out} > {log} 2>&1"
