"""Folders of any name: nothing in a name is run by a shell, and none breaks a rule."""

import re
from pathlib import Path

import pytest
from workflow_project import ROOT, copy_workflow, write_documents

GRID = {
    "name": "odd",
    "datasets": {
        "wordnet-smoke": None,
        "mine": {"path": "it's $(touch executed)"},
        "made": {"synth": {"like": "eurlex-4k", "scale": 0.01}},
    },
    "methods": ["haste", "popularity"],
    "ablations": ["grouping"],
    "ablation_datasets": ["mine"],
    "seeds": [0],
    "data_dir": 'd\'a "t" a;touch executed;é',
    "results_dir": "-r & $(touch executed) `touch executed` *'",
    "training": {"epochs": 1, "device": "cpu"},
}


def commands() -> list[tuple[str, str]]:
    """(file, shell command) of every rule as written."""
    found = []
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        text = path.read_text(encoding="utf-8")
        for block in re.findall(r"^( +)shell:\n((?:\1 +\".*\n)+)", text, re.M):
            found.append((path.name, "".join(re.findall(r'"(.*)"', block[1]))))
    return found


def test_every_command_is_looked_at():
    rules = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    assert len(commands()) == sum(text.count("shell:\n") for text in rules) > 12
    assert not any(
        re.search(r"^ +(run|script|notebook|wrapper):|\bshell\(", text, re.M) for text in rules
    )


@pytest.mark.parametrize(("file", "command"), commands())
def test_every_placeholder_is_quoted(file, command):
    loose = [name for name in re.findall(r"\{([^}]+)\}", command) if not name.endswith(":q")]
    assert set(loose) <= {"threads"}, file


@pytest.mark.parametrize(("file", "command"), commands())
def test_every_command_is_logged_and_no_log_erased(file, command):
    assert command.startswith("logged {log:q} ") or "2>> {log:q}" in command, file
    assert not re.search(r"(?<!>)> ", command), file


def test_names_are_names(tmp_path):
    project = copy_workflow(tmp_path / "it's a $(touch executed) ü")
    write_documents(project.root / GRID["datasets"]["mine"]["path"])
    project.configure(GRID)
    made = project.snakemake("--cores", "2", "all", "plan", "bench_kernels", "bench_scale")
    assert made.returncode == 0, made.stdout[-3000:]
    assert {call[0] for call in project.calls()} == {
        *("fetch", "synth", "corpus", "tokenize", "embed", "group", "configure", "train"),
        *("baseline", "table", "figure", "index", "plan", "bench"),
    }
    assert (project.root / GRID["results_dir"] / "odd/tables/main.md").exists()
    assert not [path for path in Path(tmp_path).rglob("executed*") if path.is_file()]
    assert project.jobs() == {}


@pytest.mark.parametrize("setting", ["results_dir", "path"])
def test_braces_are_refused(project, setting):
    write_documents(project.root / "r{seed}")
    changes = {"path": {"datasets": {"mine": {"path": "r{seed}"}}}}
    project.configure({**GRID, **changes.get(setting, {setting: "r{seed}"})})
    result = project.snakemake("-n")
    assert result.returncode != 0
    assert "'r{seed}': Snakemake reads braces as wildcards" in result.stdout
