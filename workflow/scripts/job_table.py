"""What each job asks for, in Markdown, from what a dry run says.

snakemake -n --workflow-profile slurm --configfile workflow/configs/paper.yaml | python workflow/scripts/job_table.py
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

RULES = ("synth", "corpus", "tokenize", "embed", "group", "train", "baseline")
"""in this order; tables and figures are one row, and what runs where Snakemake does asks for nothing"""
RESULTS = ("table", "figure", "ablation")


class Job(NamedTuple):
    """What is the same of the jobs that share a row."""

    rule: str
    dataset: str
    methods: str
    threads: int
    memory: int
    """MiB"""
    minutes: int
    gpus: int
    partition: str


def read_jobs(lines: Iterable[str]) -> list[Job]:
    """All jobs of a dry run's output that ask for memory and time."""
    jobs = []
    for text in "".join(lines).split("\n\n"):
        # local rules are called localrule; jobs of a group are set in
        rule = re.search(r"^ *rule (\w+):", text, flags=re.M)
        if not rule:
            continue
        name = rule[1] if rule[1] in RULES else rule[1].split("_")[0]
        if name not in (*RULES, *RESULTS):
            continue
        resources = dict(re.findall(r"(\w+)=([^,\s]+)", _line(text, "resources")))
        wildcards = dict(re.findall(r"(\w+)=([^,\s]+)", _line(text, "wildcards")))
        jobs.append(
            Job(
                "tables and figures" if name in RESULTS else name,
                wildcards.get("dataset", ""),
                wildcards.get("method", ""),
                int(_line(text, "threads") or 1),
                int(resources.get("mem_mb", 0)),
                int(resources.get("runtime", 0)),
                int(resources.get("gpu", 0)),
                resources.get("slurm_partition", ""),
            )
        )
    return jobs


def job_table(jobs: Iterable[Job]) -> str:
    """A row for all jobs of a rule and data set that ask for the same; their methods beside them."""
    counts: Counter[Job] = Counter()
    methods: dict[Job, set[str]] = {}
    for job in jobs:
        row = job._replace(methods="")
        counts[row] += 1
        methods.setdefault(row, set()).add(job.methods)
    order = [*RULES, "tables and figures"]
    lines = [
        "| Rule | Data set | Methods | Jobs | Threads | Memory (GiB) | Time (h) | GPUs | Partition |",
        "|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in sorted(counts, key=lambda row: (order.index(row.rule), row)):
        listed = ", ".join(sorted(methods[row] - {""}))
        lines.append(
            f"| {row.rule} | {row.dataset} | {listed} | {counts[row]} | {row.threads} "
            f"| {row.memory / 1024:.1f} | {row.minutes / 60:.1f} | {row.gpus} | {row.partition} |"
        )
    return "\n".join(lines) + "\n"


def _line(text: str, key: str) -> str:
    """What follows a key of a job; empty where it has none."""
    match = re.search(rf"^ +{key}: (.*)$", text, flags=re.M)
    return match[1] if match else ""


if __name__ == "__main__":
    sys.stdout.write(job_table(read_jobs(sys.stdin)))
