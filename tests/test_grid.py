from pathlib import Path

import pytest
import torch
import yaml
from snakemake.utils import update_config

from haste.errors import ConfigError
from haste.files import read_yaml
from haste.grid import read_grid
from haste.runs import run_dir
from haste.training.loop import Trainer
from haste.training.run import train_and_evaluate

WORKFLOW = Path(__file__).parents[1] / "workflow"


def write(path, text):
    path.write_text(text)
    return path


def test_later_files_lie_over_earlier_ones(tmp_path):
    base = write(
        tmp_path / "base.yaml",
        "{name: base, datasets: [d], methods: [dense, haste], training: {epochs: 9, batch_size: 64}}",
    )
    over = write(
        tmp_path / "over.yaml",
        "{name: over, methods: [haste], training: {epochs: 3}, tuning: null}",
    )
    grid = read_grid([base, over])
    assert (grid.name, grid.methods, grid.datasets) == ("over", ("haste",), ("d",))
    assert grid.sections["training"] == {"epochs": 3, "batch_size": 64}
    assert read_grid([base]).sections["training"]["epochs"] == 9


def test_the_first_file_names_a_grid_without_a_name(tmp_path):
    bare = write(tmp_path / "mine.yaml", "{datasets: [d], methods: [dense]}")
    over = write(tmp_path / "over.yaml", "{seeds: [0]}")
    assert read_grid([bare]).name == read_grid([bare, over]).name == "mine"
    named = write(tmp_path / "named.yaml", "{name: other}")
    assert read_grid([bare, named]).name == "other"
    odd = write(tmp_path / "my grid.yaml", bare.read_text())
    with pytest.raises(ConfigError, match="my grid' is not a plain name"):
        read_grid([odd])


def test_a_file_without_settings_is_named(tmp_path):
    empty = write(tmp_path / "empty.yaml", "")
    with pytest.raises(ConfigError, match=r"empty\.yaml: no configuration in it"):
        read_grid([empty])


@pytest.mark.parametrize("overlay", sorted((WORKFLOW / "overlays").glob("*.yaml")))
def test_overlays_fit_as_snakemake_lays_them(overlay, tmp_path):
    base = WORKFLOW / "configs/wordnet.yaml"
    merged = read_yaml(base)
    update_config(merged, read_yaml(overlay))
    together = write(tmp_path / "together.yaml", yaml.safe_dump(merged))
    assert read_grid([base, overlay]) == read_grid([together])


def test_a_repeatable_run_is_the_same_run(tiny_grid, monkeypatch):
    overlay = WORKFLOW / "overlays/repeatable.yaml"
    repeatable = read_grid([Path("grid.yaml"), overlay])
    key = repeatable.runs()[0]
    found, deterministic = [], []
    trained = Trainer.run

    def seen(self):
        deterministic.append(torch.are_deterministic_algorithms_enabled())
        return trained(self)

    monkeypatch.setattr(Trainer, "run", seen)
    for grid in (tiny_grid, repeatable):
        run = run_dir(grid, key)
        train_and_evaluate(grid.resolve(key), run)
        found.append(run.metrics.read_bytes())
    assert deterministic == [False, True]
    assert found[0] == found[1]
