"""Targets by short names."""


localrules:
    tables,
    figures,
    plan,


rule tables:
    input:
        expand(
            f"{LAYOUT.table('{table}')}.{{suffix}}",
            table=TABLES_OF_ALL,
            suffix=["csv", "md", "tex"],
        ),


if GRID.tuning:

    localrules:
        tuning,

    rule tuning:
        input:
            # the trials too: a table that was made by hand, of fewer, is newer than they are
            result_files(needs.table_inputs(GRID, needs.TUNING)),
            expand(
                f"{LAYOUT.table(needs.TUNING)}.{{suffix}}",
                suffix=["csv", "md", "tex"],
            ),


rule figures:
    input:
        expand(
            f"{LAYOUT.figure('{figure}')}.{{suffix}}",
            figure=FIGURES,
            suffix=["csv", "pdf", "png"],
        ),


rule plan:
    log:
        LOGS / GRID.name / "plan.log",
    conda:
        ENVIRONMENT
    params:
        grid=GRID_FILE,
        registry=RESOURCES / "datasets.yaml",
    shell:
        "haste plan --grid {params.grid:q} --registry {params.registry:q} 2>> {log:q}"
