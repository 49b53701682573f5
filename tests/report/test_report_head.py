import pytest
from fake_grid import FakeGrid, load, make

from haste.presets import head_pairs
from haste.report.registry import entries


def test_pairs_differ_in_the_head_alone():
    assert dict(head_pairs()) == {
        **{f"{n}{f}": f"{n}{f}-head" for n in ("fixed-fan-in", "spartex") for f in ("", "-64")},
        **{n: f"{n}-head" for n in ("unstructured", "block-sparse")},
        "group-fan-in": "haste",
    }


def test_each_pattern_that_the_grid_has_with_and_without(tmp_path):
    fake = FakeGrid(
        tmp_path,
        methods=("dense", "spartex", "spartex-head", "haste"),
        hit_rate={"spartex": 0.3, "spartex-head": 0.6},
        documents=60,
        labels=80,
    )
    rows = make(fake.write(), "ablation_head").rows
    # haste has no row without its head here
    assert [(row["method"], row["head"]) for row in rows] == [
        ("Spartex", "without"),
        ("Spartex + head", "with"),
    ]
    without, headed = rows
    assert headed["difference"] == pytest.approx(headed["P@1 mean"] - without["P@1 mean"])
    assert headed["difference low"] > 0
    assert without["difference"] is None
    assert {run.key.method for run in load(fake.grid, "ablation_head")[1].runs} == {
        "spartex",
        "spartex-head",
    }


def test_a_grid_without_a_pair_has_no_such_table(tmp_path):
    assert "ablation_head" not in entries("table", FakeGrid(tmp_path).grid)
