"""Targets by short names."""


localrules:
    tables,
    figures,
    index,
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


rule index:
    input:
        rules.tables.input,
        rules.figures.input,
    output:
        report(
            LAYOUT.results / "index.html",
            caption="../report/result.rst",
            category="Page",
        ),
    log:
        LOGS / GRID.name / "index.log",
    conda:
        ENVIRONMENT
    params:
        grid=GRID_FILE,
        caption="All of it on a page, beside the folders of its figures and tables.",
        command=f"snakemake TARGET --configfile {' '.join(CONFIG_FILES)}",
    shell:
        "logged {log:q} haste index --grid {params.grid:q} --command {params.command:q}"


rule plan:
    log:
        LOGS / GRID.name / "plan.log",
    conda:
        ENVIRONMENT
    params:
        grid=GRID_FILE,
        registry=REGISTRY_FILE,
        device="cuda" if HAS_GPU else "cpu",
    shell:
        "haste plan --grid {params.grid:q} --registry {params.registry:q}"
        " --device {params.device:q} 2>> {log:q}"
