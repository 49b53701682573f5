"""plan.csv."""

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from haste.cli import app
from haste.files import write_yaml
from haste.fleet.plan import COLUMNS, write_plan
from haste.fleet.worklist import worklist
from haste.grid import RunKey
from haste.runs import fingerprint

KEY = RunKey("words", "dense", "default", 1)


def rows(grid) -> list[dict[str, str]]:
    write_plan(grid, Path("results/plan.csv"))
    with Path("results/plan.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_lines_are_the_work_list(grid, make_inputs, finish):
    make_inputs(grid)
    finish(grid, KEY)
    found = rows(grid)
    assert tuple(found[0]) == COLUMNS
    assert [int(row["order"]) for row in found] == list(range(1, len(found) + 1))
    keys = [RunKey(r["dataset"], r["method"], r["variant"], int(r["seed"])) for r in found]
    assert keys == [task.key for task in worklist(grid)]
    for key, row in zip(keys, found, strict=True):
        assert row["state"] == ("done" if key == KEY else "open")
        assert row["config"] == fingerprint(grid.resolve(key))
        assert len(row["inputs"]) == 64


def test_inputs_not_made_are_empty(grid, make_inputs):
    assert {row["inputs"] for row in rows(grid)} == {""}
    make_inputs(grid)
    order = Path(grid.resolve(RunKey("words", "haste", "grouping-random", 0)).inputs.order)
    order.unlink()
    assert [row["variant"] for row in rows(grid) if not row["inputs"]] == ["grouping-random"]


@pytest.mark.parametrize("broken", ["metrics", "resources", "config"])
def test_a_run_is_open_until_all_of_it_is_there(grid, finish, broken):
    run = finish(grid, KEY)
    path = getattr(run, broken)
    if broken == "metrics":
        path.unlink()
    elif broken == "resources":
        path.write_text('{"completed": false}')
    else:
        path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    assert {row["state"] for row in rows(grid)} == {"open"}


@pytest.mark.usefixtures("grid")
def test_the_command_writes_it():
    registry = {"sources": {}, "models": {}, "datasets": {"words": {"path": "nowhere"}}}
    write_yaml("registry.yaml", registry)
    words = ["plan", "--grid", "grid.yaml", "--registry", "registry.yaml"]
    said = CliRunner().invoke(app, [*words, "--write", "results/small/plan.csv"])
    assert said.exit_code == 0, said.output
    written = Path("results/small/plan.csv").read_text()
    assert written.splitlines()[1].startswith('1,"main: dense, HASTE, fixed fan-in",words,dense,')
