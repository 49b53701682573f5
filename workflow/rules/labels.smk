"""Label embeddings, and orders of the labels: head, then the groups of the tail."""


rule embed:
    input:
        unpack(encoder_inputs),
        corpus=lambda wildcards: corpus_files(wildcards.dataset),
    output:
        LAYOUT.embeddings("{dataset}", "{encoder}"),
    log:
        DATA_LOG / "embed-{encoder}.log",
    benchmark:
        DATA_LOG / "embed-{encoder}.tsv"
    priority: BEFORE_RUNS
    group:
        data_group
    conda:
        ENVIRONMENT
    threads: lambda wildcards: embed_request(wildcards).threads
    resources:
        **asks(embed_request),
    params:
        corpus=corpus_of,
        tokens=lambda wildcards, input: Path(input.tokens[0]).parent,
        model=lambda wildcards: MODEL_FOLDERS[ENCODERS[wildcards.encoder].model_name],
        encoder=lambda wildcards: ENCODERS[wildcards.encoder],
    shell:
        "logged {log:q} haste embed --corpus {params.corpus:q} --tokens {params.tokens:q}"
        " --model {params.model:q} --encoder {params.encoder.kind:q}"
        " --pooling {params.encoder.pooling:q}"
        " --out {output:q}"


rule group:
    input:
        unpack(order_inputs),
    output:
        LAYOUT.order("{dataset}", "{order}"),
    log:
        DATA_LOG / "group-{order}.log",
    benchmark:
        DATA_LOG / "group-{order}.tsv"
    priority: BEFORE_RUNS
    group:
        data_group
    conda:
        ENVIRONMENT
    # grouping keeps to one core: its result must not depend on how many there are
    threads: 1
    resources:
        **asks(group_request),
    params:
        corpus=corpus_of,
    shell:
        "logged {log:q} haste group --corpus {params.corpus:q} --order {wildcards.order:q}"
        " --embeddings {input.embeddings:q} --out {output:q}"
