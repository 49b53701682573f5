"""Label embeddings, and orders of the labels: head, then the groups of the tail."""


def order_inputs(wildcards):
    """The corpus, and label embeddings where the grouping looks at them."""
    spec = OrderSpec.parse(wildcards.order)
    files = {"corpus": corpus_files(wildcards.dataset)}
    if spec.uses_embeddings:
        files["embeddings"] = LAYOUT.embeddings(wildcards.dataset, spec.encoder)
    return files


rule embed:
    input:
        corpus=corpus_files("{dataset}"),
        tokens=lambda wildcards: token_files(
            wildcards.dataset,
            ENCODERS[wildcards.encoder].model_name,
            ENCODERS[wildcards.encoder].max_len,
        ),
        model=lambda wildcards: model_file(ENCODERS[wildcards.encoder].model_name),
    output:
        LAYOUT.embeddings("{dataset}", "{encoder}"),
    log:
        DATA_LOG / "embed-{encoder}.log",
    benchmark:
        DATA_LOG / "embed-{encoder}.tsv"
    params:
        corpus=str(LAYOUT.corpus("{dataset}").root),
        tokens=lambda wildcards, input: Path(input.tokens[0]).parent,
        model=subpath(input.model, parent=True),
        kind=lambda wildcards: ENCODERS[wildcards.encoder].kind,
    threads: 2
    resources:
        mem_mb=4000,
        runtime=120,
    shell:
        "haste embed --corpus {params.corpus} --tokens {params.tokens} --model {params.model}"
        " --encoder {params.kind} --out {output} > {log} 2>&1"


rule group:
    input:
        unpack(order_inputs),
    output:
        LAYOUT.order("{dataset}", "{order}"),
    log:
        DATA_LOG / "group-{order}.log",
    benchmark:
        DATA_LOG / "group-{order}.tsv"
    params:
        corpus=str(LAYOUT.corpus("{dataset}").root),
        embeddings=lambda wildcards, input: (
            f"--embeddings {input.embeddings}" if "embeddings" in input.keys() else ""
        ),
    threads: 2
    resources:
        mem_mb=3000,
        runtime=120,
    shell:
        "haste group --corpus {params.corpus} --order {wildcards.order} {params.embeddings}"
        " --out {output} > {log} 2>&1"
