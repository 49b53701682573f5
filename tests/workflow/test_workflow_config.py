"""The schema against the models, the configurations against both, and what a mistake says."""

import copy

import jsonschema
import pytest
import yaml
from workflow_project import GRID, ROOT, Project

from haste.data.registry import load_registry
from haste.errors import ConfigError
from haste.grid import GridConfig
from haste.paths import REGISTRY
from haste.presets import method

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("layer", {"fan_in": 33}),
        ("layer", {"fanin": 32}),
        ("layer", {"dropout": 1.5}),
        ("training", {"epochs": 0}),
        ("training", {"learning_rate": "fast"}),
        ("rewire", {"growth": "often"}),
    ],
)
def test_schema_and_models_refuse_the_same(section, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GRID, section: value}, SCHEMA)
    with pytest.raises(ConfigError):
        GridConfig.from_dict({**GRID, section: value})


def test_data_sets_are_names_or_settings():
    mine = {"wordnet-mini": None, "mine": {"path": "/data/mine", "validation": "1e-2"}}
    jsonschema.validate({**GRID, "datasets": mine}, SCHEMA)
    for wrong in ([], {}, {"mine": {"pth": "/data/mine"}}, {"mine": 3}, "mine"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**GRID, "datasets": wrong}, SCHEMA)


def test_faults_of_tuning_are_refused_by_the_schema():
    tuning = {
        "epochs": 3,
        "seeds": [1],
        "trials": {"a": {"training": {"learning_rate": "1e-3"}}, "b": {}},
        "base": {"dense": {"training": {"momentum": 0.0}}},
        "scale": {"dense": {"training.learning_rate": "1e1"}},
    }
    jsonschema.validate({**GRID, "tuning": tuning}, SCHEMA)
    wrong = (
        {"trials": {}},
        {"trials": {"a": {"training": {"rate": 1}}}},
        {"base": {"dense": {"trainig": {}}}},
        {"scale": {"dense": {"training.learning_rate": "ten"}}},
        {"seeds": [-1]},
        {"epoch": 3},
    )
    for change in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**GRID, "tuning": {**tuning, **change}}, SCHEMA)


@pytest.mark.parametrize("text", ["1e-3", "5E4", "-2e+1"])
def test_numbers_that_yaml_reads_as_text_pass(text):
    assert yaml.safe_load(text) == text
    jsonschema.validate({**GRID, "training": {"learning_rate": text}}, SCHEMA)


def test_other_text_for_a_number_does_not():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GRID, "training": {"learning_rate": "fast"}}, SCHEMA)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_are_valid_and_their_data_known(path):
    value = yaml.safe_load(path.read_text())
    jsonschema.validate(value, SCHEMA)
    grid = GridConfig.from_dict(value)
    registry = load_registry(ROOT / REGISTRY).with_datasets(grid.dataset_settings)
    assert set(grid.datasets) <= set(registry.datasets)
    for key in grid.all_runs():
        if method(key.method).kind == "trained":
            assert grid.resolve(key).encoder.model in registry.models
    for key in grid.all_runs():
        assert grid.run_settings(key)["method"] == key.method


def test_config_yaml_is_the_grid_that_git_ignores():
    names = [yaml.safe_load(path.read_text())["name"] for path in CONFIGS]
    assert names[0] == "mini"
    assert len(set(names)) == len(names)
    assert "/results/mini/*" in (ROOT / ".gitignore").read_text().splitlines()


MISTAKES = {
    "key": (
        {"epochs": 3},
        "config: unknown key 'epochs'. Known:",
    ),
    "key of a section": (
        {"layer": {"fanin": 32}},
        "layer: unknown key 'fanin'. Did you mean 'fan_in'?",
    ),
    "key of an override": (
        {"overrides": {"haste": {"layers": {"fan_in": 32}}}},
        "overrides.haste: unknown key 'layers'. Did you mean 'layer'?",
    ),
    "method": (
        {"methods": ["hast"]},
        "methods: there is no method 'hast'. Did you mean 'haste'?",
    ),
    "data set": (
        {"datasets": ["wordnet-minni"]},
        "there is no data set 'wordnet-minni'. Did you mean 'wordnet-mini'?",
    ),
    "group size": (
        {"layer": {"group_size": 24}},
        "layer.group_size: 24 is not allowed",
    ),
    "seed": (
        {"seeds": ["zero"]},
        "config.yaml: seeds[0]: 'zero' is not allowed.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_message(project: Project, mistake):
    change, message = MISTAKES[mistake]
    project.configure({**copy.deepcopy(GRID), **change})
    result = project.snakemake("-n")
    assert result.returncode != 0
    assert message in result.stdout
    assert "Traceback" not in result.stdout
    assert not (project.root / "results").exists()


def test_a_repeated_key_is_refused_before_snakemake_loses_the_first(project: Project):
    path = project.root / "config.yaml"
    path.write_text(path.read_text() + "training: {epochs: 5}\ntraining: {batch_size: 16}\n")
    result = project.snakemake("-n")
    assert result.returncode != 0
    assert "the key 'training' is there twice" in result.stdout
