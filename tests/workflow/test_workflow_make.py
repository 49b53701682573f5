"""What make hands to Snakemake, whatever files and folders are called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_project import GRID, ROOT


@pytest.fixture
def folder(tmp_path) -> Path:
    """The Makefile, and beside it an environment whose `snakemake` writes down what it is asked."""
    folder = tmp_path / "it's a $(touch executed) ü"
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    shutil.copy2(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    write = "import json, sys; print(json.dumps(sys.argv[1:]), file=open('asked', 'a'))"
    for name, command in (("python", '"$@"'), ("snakemake", f'-c "{write}" "$@"')):
        program = programs / name
        program.write_text(f"#!/bin/sh\nexec '{sys.executable}' {command}\n")
        program.chmod(0o755)
    (folder / ".venv/.installed").touch()
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def asked(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "asked").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "results"),
    [("mine # my grid", "my results"), ("'mine'", "it's; touch executed"), ('"mine"', "-r")],
)
def test_the_report_lies_beside_the_grids_tables(folder, name, results):
    settings = {**GRID, "results_dir": results}
    del settings["name"]
    (folder / "my grid.yaml").write_text(
        "".join([f"name: {name}\n", *(f"{k}: {json.dumps(v)}\n" for k, v in settings.items())])
    )
    for target in ("all", "report"):
        made = make(folder, target, "CONFIG=my grid.yaml", "CORES=2")
        assert made.returncode == 0, made.stderr
    call = ["--cores", "2", "--configfile", "my grid.yaml"]
    assert asked(folder) == [call, [*call, f"--report={results}/mine/report.html"]]
    assert not list(folder.rglob("executed"))


def test_a_wrong_configuration_ends_in_one_message(folder):
    (folder / "config.yaml").write_text("name: a/b\ndatasets: [x]\nmethods: [dense]\n")
    made = make(folder, "report")
    assert made.returncode != 0
    assert "make: config.yaml: config.name: 'a/b' is not a plain name" in made.stderr
    assert "Traceback" not in made.stderr
    assert not (folder / "asked").exists()


def test_locks_of_a_killed_run_are_removed(folder):
    assert make(folder, "unlock").returncode == 0
    assert asked(folder)[0][-1] == "--unlock"
