"""Tables and figures of a grid that is under way, see `allow_partial`."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from fake_grid import FakeGrid, draw, make

from haste.errors import DataError
from haste.files import read_yaml, write_yaml
from haste.grid import RunKey


@pytest.fixture
def fake(tmp_path):
    """All is finished but Spartex, the random groups, and a seed of the frequency groups."""
    fake = FakeGrid(
        tmp_path,
        methods=("dense", "spartex", "block-sparse", "haste", "omikuji"),
        ablations=("grouping", "sampling"),
        seeds=(0, 1),
        ablation_seeds=(0, 1),
        documents=40,
        labels=60,
    )
    fake.write()
    fake.write_order("tiny", "semantic")
    for key in fake.grid.runs():
        kept = key.method != "spartex" and key.variant in ("default", "grouping-balanced")
        if not kept and (key.variant, key.seed) != ("grouping-frequency-shuffled", 0):
            shutil.rmtree(fake.run_dir(key).root)
    return fake


def partial(fake):
    return replace(fake.grid, allow_partial=True)


def rows(fake, name):
    return make(partial(fake), name).rows


def test_main_shows_what_is_open(fake):
    runs = {row["method"]: row["runs"] for row in rows(fake, "main")}
    assert (runs["Dense"], runs["Spartex"], runs["HASTE"]) == ("2 seeds", "open", "2 seeds")
    assert runs["TF-IDF + omikuji"] == "1 run"
    fake.run_dir(RunKey("tiny", "omikuji", "default", 0)).metrics.unlink()
    runs = {row["method"]: row["runs"] for row in rows(fake, "main")}
    assert runs["TF-IDF + omikuji"] == "open"


def test_a_run_of_another_configuration_is_not_finished(fake):
    path = fake.run_dir(RunKey("tiny", "dense", "default", 1)).config
    config = read_yaml(path)
    config["training"]["learning_rate"] = 0.123
    write_yaml(path, config)
    assert next(row for row in rows(fake, "main") if row["method"] == "Dense")["runs"] == "1 seed"


def test_a_variant_without_one_of_its_seeds_is_open(fake):
    found = {row["variant"]: row for row in rows(fake, "ablation_grouping")}
    assert {name: row["seeds"] for name, row in found.items()} == {
        "semantic (preset)": 2,
        "balanced": 2,
        "frequency": None,
        "frequency-shuffled": None,
        "random": None,
    }
    assert found["frequency-shuffled"]["difference"] == found["random"]["difference"] == "open"
    assert found["frequency-shuffled"]["P@1 mean"] is None
    assert found["balanced"]["difference low"] <= found["balanced"]["difference high"]


def test_nothing_is_compared_with_a_preset_that_is_open(fake):
    shutil.rmtree(fake.run_dir(RunKey("tiny", "haste", "default", 1)).root)
    found = {row["variant"]: row for row in rows(fake, "ablation_grouping")}
    assert found["semantic (preset)"]["difference"] == "open"
    assert found["balanced"]["seeds"] == 2
    assert found["balanced"]["difference"] is None


def test_bars_are_drawn_of_ablations_with_a_finished_variant(fake, tmp_path):
    paths = draw(partial(fake), "ablations", tmp_path / "bars")
    drawn = pd.read_csv(paths[0])
    assert drawn[["ablation", "variant"]].to_numpy().tolist() == [
        ["grouping", "semantic"],
        ["grouping", "balanced"],
    ]
    shutil.rmtree(fake.run_dir(RunKey("tiny", "haste", "grouping-balanced", 1)).root)
    paths = draw(partial(fake), "ablations", tmp_path / "bars")
    assert pd.read_csv(paths[0])["ablation"].tolist() == ["none"]


def test_a_figure_of_nothing_is_refused(fake, tmp_path):
    for key in fake.grid.main_runs():
        shutil.rmtree(fake.run_dir(key).root, ignore_errors=True)
    with pytest.raises(DataError, match="figure training_curves: no run of the grid that it shows"):
        draw(partial(fake), "training_curves", tmp_path / "f")
