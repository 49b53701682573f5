"""The table of what jobs ask for, from a dry run."""

import subprocess
import sys

from workflow_project import ROOT, Project

SCRIPT = ROOT / "workflow/scripts/job_table.py"


def test_every_job_that_is_submitted_has_a_row(project: Project):
    arguments = ("-n", "--configfile", "workflow/configs/paper.yaml", "--workflow-profile", "slurm")
    said = project.snakemake(*arguments).stdout
    table = subprocess.run(
        [sys.executable, SCRIPT], input=said, capture_output=True, text=True, check=True
    ).stdout
    head, _, *lines = [line.strip("|").split("|") for line in table.splitlines()]
    names = [cell.strip() for cell in head]
    rows = [dict(zip(names, (cell.strip() for cell in line), strict=True)) for line in lines]
    jobs = project.jobs(*arguments[1:])
    local = {"configure", "fetch", "fetch_model", "tables", "figures", "index"}
    assert sum(int(row["Jobs"]) for row in rows) == sum(
        count for rule, count in jobs.items() if rule not in local
    )
    train = [row for row in rows if row["Rule"] == "train"]
    assert sum(int(row["Jobs"]) for row in train) == jobs["train"]
    assert {(row["GPUs"], row["Partition"]) for row in train} == {("1", "gpu")}
    assert {row["Partition"] for row in rows if row["Rule"] != "train"} == {"cpu"}
    assert max(float(row["Time (h)"]) for row in rows) == 24
