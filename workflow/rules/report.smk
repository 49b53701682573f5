"""Targets by short names."""


localrules:
    tables,
    figures,
    plan,


rule tables:
    input:
        written(tables=[name for name, entry in TABLES.items() if not entry.on_request]),


# such as `tuning`: its runs are made only when it is asked for
for table, entry in TABLES.items():
    if entry.on_request:

        rule:
            name:
                table
            input:
                # the runs too: a table that was made by hand, of fewer, is newer than they are
                result_files(entry),
                written(tables=[table]),
            localrule: True


rule figures:
    input:
        written(figures=FIGURES),


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
