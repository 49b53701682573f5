"""Every table and figure of a grid of runs. The stages lie in workflow/rules, the names in common.smk."""

from snakemake.utils import min_version

min_version("9.27")


# A grid's configuration stands alone: config.yaml is not merged into one given by --configfile.
if not workflow.configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
        # made of what lies in the results' folder here, which is nothing where no disk is shared
        [] if STORED else rules.index.output,
