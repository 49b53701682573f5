"""Targets by short names."""


localrules:
    tables,
    figures,
    plan,


rule tables:
    input:
        expand(
            f"{LAYOUT.table('{table}')}.{{suffix}}",
            table=TABLES,
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
        "haste plan --grid {params.grid} --registry {params.registry} 2> {log}"
