"""Tables and figures from finished runs: a rule, and so a target, for each."""

# as a command names it
PUBLISHED_ARGUMENT = PUBLISHED_FILE if STORED else "{input.published:q}"

for table, entry in TABLES.items():

    rule:
        name:
            entry.target
        input:
            result_files(entry),
            published=of_repository(PUBLISHED_FILE),
        output:
            f"{LAYOUT.table(table)}.csv",
            f"{LAYOUT.table(table)}.tex",
            md=report(
                f"{LAYOUT.table(table)}.md",
                caption="../report/result.rst",
                category=entry.category,
                labels={"table": entry.label},
            ),
        log:
            LOGS / GRID.name / "tables" / f"{table}.log",
        group:
            together("results", [])
        conda:
            ENVIRONMENT
        resources:
            **asks(results_request),
        params:
            grid=GRID_FILE,
            table=table,
            caption=entry.caption,
            methods=GRID.methods if entry.all_methods else (),
            out=subpath(output[0], strip_suffix=".csv"),
        shell:
            "logged {log:q} haste table {params.table:q} --grid {params.grid:q}"
            f" --published {PUBLISHED_ARGUMENT} --out {{params.out:q}}"


for figure, entry in FIGURES.items():

    rule:
        name:
            entry.target
        input:
            result_files(entry),
            published=of_repository(PUBLISHED_FILE),
        output:
            f"{LAYOUT.figure(figure)}.csv",
            f"{LAYOUT.figure(figure)}.pdf",
            png=report(
                f"{LAYOUT.figure(figure)}.png",
                caption="../report/result.rst",
                category=entry.category,
                labels={"figure": entry.label},
            ),
        log:
            LOGS / GRID.name / "figures" / f"{figure}.log",
        group:
            together("results", [])
        conda:
            ENVIRONMENT
        resources:
            **asks(results_request),
        params:
            grid=GRID_FILE,
            figure=figure,
            caption=entry.caption,
            out=subpath(output[0], strip_suffix=".csv"),
        shell:
            "logged {log:q} haste figure {params.figure:q} --grid {params.grid:q}"
            f" --published {PUBLISHED_ARGUMENT} --out {{params.out:q}}"
