"""From sources to documents, label matrices and tokens."""


# compute nodes of most clusters reach no other machine
localrules:
    fetch,
    fetch_model,


rule fetch:
    output:
        # all of it is not named here, so it stays here, and so does the job that reads it
        local(str(LAYOUT.raw("{source}") / "SOURCE.json")),
    log:
        LOGS / "data" / "{source}" / "fetch.log",
    priority: BEFORE_RUNS
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
    params:
        registry=REGISTRY_FILE,
        lock=LAYOUT.lock,
        out=subpath(output[0], parent=True),
        # fetched again when its entry changes, not when another one does
        entry=lambda wildcards: str(REGISTRY.source(wildcards.source)),
    shell:
        "logged {log:q} haste fetch {wildcards.source:q} --registry {params.registry:q}"
        " --lock {params.lock:q} --out {params.out:q}"


rule fetch_model:
    output:
        fetched_model("{model}"),
    log:
        LOGS / "data" / "models" / "{model}.log",
    priority: BEFORE_RUNS
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
    params:
        registry=REGISTRY_FILE,
        lock=LAYOUT.lock,
        out=lambda wildcards, output: (
            output[0] if STORED else str(Path(output[0]).parent)
        ),
        entry=lambda wildcards: str(REGISTRY.source(wildcards.model)),
    shell:
        "logged {log:q} haste fetch {wildcards.model:q} --registry {params.registry:q}"
        " --lock {params.lock:q} --out {params.out:q}"


rule synth:
    output:
        local(directory(str(LAYOUT.raw("{generated}")))),
    log:
        LOGS / "data" / "{generated}" / "synth.log",
    priority: BEFORE_RUNS
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
        "logged {log:q} haste synth {params.options:q} -- {output:q}"


rule corpus:
    input:
        lambda wildcards: [local(str(path)) for path in raw_files(wildcards.dataset)],
    output:
        corpus_files("{dataset}"),
    log:
        DATA_LOG / "corpus.log",
    benchmark:
        DATA_LOG / "corpus.tsv"
    priority: BEFORE_RUNS
    group:
        data_group
    conda:
        ENVIRONMENT
    resources:
        **asks(lambda wildcards: corpus_request(size_of(wildcards))),
    params:
        registry=REGISTRY_FILE,
        raw=lambda wildcards: raw_folder(wildcards.dataset),
        # only where it describes the data set: another grid is no reason to make the corpus again
        grid=lambda wildcards: (
            ["--grid", GRID_FILE] if wildcards.dataset in GRID.dataset_settings else []
        ),
        out=subpath(output[0], parent=True),
        entry=lambda wildcards: corpus_entry(wildcards.dataset),
    shell:
        "logged {log:q} haste corpus {wildcards.dataset:q} --registry {params.registry:q}"
        " {params.grid:q} --raw {params.raw:q} --out {params.out:q}"


rule tokenize:
    input:
        corpus=lambda wildcards: corpus_files(wildcards.dataset),
        model=lambda wildcards: (
            MODEL_FILES[wildcards.model]
            if (wildcards.dataset, wildcards.model) in READS_MODEL
            else []
        ),
    output:
        token_files("{dataset}", "{model}", "{max_len}"),
    log:
        DATA_LOG / "tokenize-{model}-{max_len}.log",
    benchmark:
        DATA_LOG / "tokenize-{model}-{max_len}.tsv"
    priority: BEFORE_RUNS
    group:
        data_group
    conda:
        ENVIRONMENT
    resources:
        **asks(lambda wildcards: tokens_request(size_of(wildcards))),
    params:
        corpus=corpus_of,
        model=lambda wildcards: MODEL_FOLDERS[wildcards.model],
        encoder=lambda wildcards: (
            "transformer"
            if (wildcards.model, wildcards.max_len) in TRANSFORMER_READS
            else "bag"
        ),
        out=subpath(output[0], parent=True),
    shell:
        "logged {log:q} haste tokenize --corpus {params.corpus:q} --model {params.model:q}"
        " --max-len {wildcards.max_len:q} --encoder {params.encoder:q} --out {params.out:q}"
