"""Tables and figures from finished runs: a rule, and so a target, for each."""


localrules:
    grid,


rule grid:
    output:
        GRID_FILE,
    log:
        LOGS / GRID.name / "grid.log",
    params:
        settings=config,
    run:
        write_yaml(output[0], params.settings)


for table in TABLES:

    rule:
        name:
            short_name(table)
        input:
            result_files(needs.table_inputs(GRID, table)),
            published=RESOURCES / "published.csv",
            # a change elsewhere in the grid is no reason to make this table again
            grid=ancient(GRID_FILE),
        output:
            f"{LAYOUT.table(table)}.csv",
            f"{LAYOUT.table(table)}.md",
            f"{LAYOUT.table(table)}.tex",
            html=report(
                f"{LAYOUT.table(table)}.html",
                caption=f"../report/{table}.rst",
                category="Tables",
                labels={"table": table.replace("_", " ")},
            ),
        log:
            LOGS / GRID.name / "tables" / f"{table}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            table=table,
            settings=table_settings(table),
            out=subpath(output[0], strip_suffix=".csv"),
        shell:
            "haste table {params.table} --grid {input.grid}"
            " --published {input.published} --out {params.out} > {log} 2>&1"


for figure in FIGURES:

    rule:
        name:
            f"figure_{figure}"
        input:
            result_files(needs.figure_inputs(GRID, figure)),
            published=RESOURCES / "published.csv",
            grid=ancient(GRID_FILE),
        output:
            f"{LAYOUT.figure(figure)}.csv",
            f"{LAYOUT.figure(figure)}.pdf",
            png=report(
                f"{LAYOUT.figure(figure)}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure.replace("_", " ")},
            ),
        log:
            LOGS / GRID.name / "figures" / f"{figure}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            figure=figure,
            out=subpath(output[0], strip_suffix=".csv"),
        shell:
            "haste figure {params.figure} --grid {input.grid}"
            " --published {input.published} --out {params.out} > {log} 2>&1"
