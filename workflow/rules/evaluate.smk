"""Tables and figures from finished runs: a rule, and so a target, for each."""

for table in TABLES:

    rule:
        name:
            short_name(table)
        input:
            result_files(needs.table_inputs(GRID, table)),
            published=RESOURCES / "published.csv",
        output:
            f"{LAYOUT.table(table)}.csv",
            f"{LAYOUT.table(table)}.md",
            f"{LAYOUT.table(table)}.tex",
            html=report(
                f"{LAYOUT.table(table)}.html",
                caption=f"../report/{table}.rst",
                category=report_category(table),
                labels={"table": report_label(table)},
            ),
        log:
            LOGS / GRID.name / "tables" / f"{table}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            grid=GRID_FILE,
            table=table,
            settings=table_settings(table),
            out=subpath(output[0], strip_suffix=".csv"),
        shell:
            "logged {log:q} haste table {params.table:q} --grid {params.grid:q}"
            " --published {input.published:q} --out {params.out:q}"


for figure in FIGURES:

    rule:
        name:
            f"figure_{figure}"
        input:
            result_files(needs.figure_inputs(GRID, figure)),
            published=RESOURCES / "published.csv",
        output:
            f"{LAYOUT.figure(figure)}.csv",
            f"{LAYOUT.figure(figure)}.pdf",
            png=report(
                f"{LAYOUT.figure(figure)}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": report_label(figure)},
            ),
        log:
            LOGS / GRID.name / "figures" / f"{figure}.log",
        conda:
            ENVIRONMENT
        resources:
            mem_mb=2000,
            runtime=30,
        params:
            grid=GRID_FILE,
            figure=figure,
            out=subpath(output[0], strip_suffix=".csv"),
        shell:
            "logged {log:q} haste figure {params.figure:q} --grid {params.grid:q}"
            " --published {input.published:q} --out {params.out:q}"
