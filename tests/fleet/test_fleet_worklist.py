"""What is trained first, and what --only picks."""

import pytest

from haste.errors import ConfigError
from haste.files import read_yaml
from haste.fleet.worklist import select, worklist
from haste.grid import GridConfig

MAIN, OTHERS = "main: dense, HASTE, fixed fan-in", "main: other methods"


def test_order_is_that_of_what_is_decided(grid):
    found = [(t.why, t.key.method, t.key.variant, t.key.seed) for t in worklist(grid)]
    assert found == [
        *((MAIN, name, "default", 0) for name in ("dense", "haste", "fixed-fan-in")),
        *((MAIN, name, "default", 1) for name in ("dense", "haste", "fixed-fan-in")),
        *(("C7: grouping", "haste", f"grouping-{value}", 0) for value in ("frequency", "random")),
        ("C4, C5: Spartex, block sparse", "spartex", "default", 0),
        ("C4, C5: Spartex, block sparse", "spartex", "default", 1),
        (OTHERS, "bottleneck", "default", 0),
        (OTHERS, "bottleneck", "default", 1),
        *(
            ("ablation: rewiring", "haste", f"rewiring-{value}", 0)
            for value in ("none", "gradient", "group-scope")
        ),
        # no claim is about it
        ("ablation: grouping", "haste", "grouping-balanced", 0),
    ]


def test_every_trained_run_is_there_once(grid):
    keys = [task.key for task in worklist(grid)]
    assert len(keys) == len(set(keys))
    assert set(keys) == {key for key in grid.runs() if key.method != "popularity"}


def test_only_takes_patterns_and_names(grid):
    tasks = worklist(grid)
    assert [t.name for t in select(tasks, ["words/dense/*/seed1", "spartex"])] == [
        "words/dense/default/seed1",
        "words/spartex/default/seed0",
        "words/spartex/default/seed1",
    ]
    assert {t.key.seed for t in select(tasks, ["seed1"])} == {1}
    assert len(select(tasks, ["grouping-*"])) == 3
    assert select(tasks, []) == tasks


def test_a_pattern_that_no_run_matches_is_refused(grid):
    with pytest.raises(ConfigError, match=r"--only spartx: no such run\. Use dataset/.*spartex"):
        select(worklist(grid), ["dense", "spartx"])


def test_trials_come_last_and_only_when_asked_for(grid):
    tuned = GridConfig.from_dict(
        {
            **read_yaml("grid.yaml"),
            "tuning": {"epochs": 1, "seeds": [7], "trials": {"slow": {}, "fast": {}}},
        }
    )
    tasks = worklist(tuned)
    assert {task.key for task in tasks} == {
        key for key in tuned.all_runs() if key.method != "popularity"
    }
    usual = worklist(grid)
    assert tasks[: len(usual)] == usual
    trials = tasks[len(usual) :]
    assert trials[0].name == "words/bottleneck/trial-slow/seed7"
    assert select(tasks, []) == select(tasks, ["*"]) == usual
    assert select(tasks, ["trial-*"]) == trials
    assert [t.name for t in select(tasks, ["words/dense/trial-fast/*"])] == [
        "words/dense/trial-fast/seed7"
    ]
    assert {t.key.variant for t in select(tasks, ["dense"])} == {"default"}
