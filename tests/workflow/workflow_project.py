"""A copy of the workflow in which every command of `haste` is a stub."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

import forked

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
STUB = Path(__file__).with_name("stub_haste.py")
GRID = {
    "name": "small",
    "datasets": ["wordnet-smoke"],
    "methods": ["dense", "spartex", "renee", "haste", "omikuji"],
    "ablations": ["grouping", "fan_in"],
    "seeds": [0, 1],
    "ablation_seeds": [0],
    "training": {"epochs": 2, "device": "cpu"},
}


@dataclass(frozen=True)
class Project:
    """A folder with the workflow in it."""

    root: Path

    def snakemake(self, *args: str, **environment: str) -> forked.Done:
        """Run it as a person would, plain; stdout and stderr together."""
        environment = self.environment(**environment)
        return forked.run("snakemake.cli:main", args, environment=environment, cwd=self.root)

    def environment(self, **more: str) -> dict[str, str]:
        """`haste` is the stub, before any other."""
        path = os.pathsep.join([str(self.root / "bin"), os.environ["PATH"]])
        return {**os.environ, "PATH": path, "STUB_LOG": str(self.root / "stub.log"), **more}

    def jobs(self, *args: str) -> dict[str, int]:
        """Jobs by rule of a dry run; empty when there is nothing to do."""
        result = self.snakemake("-n", *args)
        assert result.returncode == 0, result.stdout[-3000:]
        return job_counts(result.stdout)

    def configure(self, grid: dict) -> None:
        """Make `grid` the default configuration."""
        (self.root / "config.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))

    def calls(self) -> list[list[str]]:
        """The commands that the stub was asked for, in order."""
        log = self.root / "stub.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def job_counts(output: str) -> dict[str, int]:
    """The table of jobs that Snakemake prints, without the target and the total."""
    stats = output.rsplit("Job stats:", 1)
    if len(stats) == 1:
        assert "Nothing to be done" in output, output[-3000:]
        return {}
    rows = re.findall(r"^(\w+) +(\d+)$", stats[1].split("\n\n")[0], flags=re.M)
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}


def copy_workflow(root: Path) -> Project:
    """The workflow's own files in an empty folder, with the stub beside them."""
    root.mkdir(exist_ok=True)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy2(ROOT / name, root / name)
    shutil.copytree(ROOT / "workflow", root / "workflow")
    shutil.copytree(ROOT / "envs", root / "envs")
    (root / "profiles").symlink_to("workflow/profiles")
    stub = root / "bin" / "haste"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    stub.chmod(0o755)
    return Project(root)


def write_documents(folder: Path, number: int = 9) -> None:
    """A data set of one's own, JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("trn.json", "tst.json"):
        rows = ({"title": f"t{i}", "target_ind": [i % 3]} for i in range(number))
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
