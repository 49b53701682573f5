"""The schema against the dataclasses, the configurations against both, and what a mistake says."""

import copy
import dataclasses
from typing import get_type_hints

import jsonschema
import pytest
import yaml
from workflow_project import GRID, ROOT, Project

from haste.config import SECTIONS, GridConfig, Tuning, build_section, method
from haste.data.registry import KINDS, TEXTS, Dataset, load_registry
from haste.errors import ConfigError
from haste.paths import REGISTRY

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))]
FIELDS = [
    (section, field, hint)
    for section, cls in SECTIONS.items()
    for field, hint in get_type_hints(cls).items()
]


def property_schema(section: str, field: str) -> dict:
    found = SCHEMA["$defs"][section]["properties"][field]
    return SCHEMA["$defs"]["number"] if found.get("$ref") == "#/$defs/number" else found


def test_schema_has_the_keys_of_the_grid():
    keys = {field.name for field in dataclasses.fields(GridConfig)}
    keys -= {"sections", "dataset_settings"}
    assert set(SCHEMA["properties"]) == keys | set(SECTIONS)
    assert SCHEMA["additionalProperties"] is False


def test_schema_has_the_keys_of_a_data_set():
    schema = SCHEMA["$defs"]["dataset"]
    assert set(schema["properties"]) == {f.name for f in dataclasses.fields(Dataset)} - {"name"}
    assert schema["properties"]["kind"]["enum"] == list(KINDS)
    assert schema["properties"]["text"]["enum"] == list(TEXTS)
    assert schema["additionalProperties"] is False


def test_data_sets_are_names_or_settings():
    mine = {"wordnet-mini": None, "mine": {"path": "/data/mine", "validation": "1e-2"}}
    jsonschema.validate({**GRID, "datasets": mine}, SCHEMA)
    for wrong in ([], {}, {"mine": {"pth": "/data/mine"}}, {"mine": 3}, "mine"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**GRID, "datasets": wrong}, SCHEMA)


def test_settings_of_a_data_set_are_sections_and_overrides():
    sections = SCHEMA["properties"]["per_dataset"]["additionalProperties"]
    assert set(sections["properties"]) == {*SECTIONS, "overrides"}
    assert sections["additionalProperties"] is False


def test_schema_has_the_keys_of_tuning():
    schema = SCHEMA["properties"]["tuning"]
    fields = dataclasses.fields(Tuning)
    assert set(schema["properties"]) == {field.name for field in fields}
    assert schema["required"] == [f.name for f in fields if f.default is f.default_factory]
    assert schema["additionalProperties"] is False
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
        {"trials": {"a/b": {}}},
        {"trials": {"a": {"training": {"rate": 1}}}},
        {"base": {"dense": {"trainig": {}}}},
        {"scale": {"dense": {"training.learning_rate": "ten"}}},
        {"seeds": [-1]},
        {"epoch": 3},
    )
    for change in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**GRID, "tuning": {**tuning, **change}}, SCHEMA)


@pytest.mark.parametrize("section", SECTIONS)
def test_schema_has_the_keys_of_a_section(section):
    schema = SCHEMA["$defs"][section]
    keys = {field.name for field in dataclasses.fields(SECTIONS[section])}
    assert set(schema["properties"]) == keys
    assert schema["additionalProperties"] is False
    for keys in (SCHEMA, SCHEMA["properties"]["per_dataset"]["additionalProperties"]):
        assert keys["properties"][section] == {"$ref": f"#/$defs/{section}"}
    assert SCHEMA["$defs"]["sections"]["properties"][section] == {"$ref": f"#/$defs/{section}"}


@pytest.mark.parametrize(("section", "field", "hint"), FIELDS)
def test_schema_has_the_type_and_values_of_a_key(section, field, hint):
    schema = property_schema(section, field)
    if "enum" in schema:
        other = 17 if hint is int else "no such value"
        choices = refusal(section, field, other).partition("choose one of ")[2]
        assert choices.rstrip(".").split(", ") == [str(value) for value in schema["enum"]]
        return
    names = {int: "integer", float: ["number", "string"], bool: "boolean", str: "string"}
    assert schema["type"] == names[hint]
    if hint is str:
        assert refusal(section, field, "no such value") == "", "a list of values the schema lacks"


def refusal(section: str, field: str, value: object) -> str:
    """Why the dataclass does not take the value; empty where it does."""
    try:
        build_section(section, {field: value})
    except ConfigError as error:
        return str(error)
    return ""


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
        "layer.group_size: 24 is not allowed; choose one of 16, 32, 64, 128.",
    ),
    "type that only the schema checks": (
        {"seeds": ["zero"]},
        "'zero' is not of type 'integer'",
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
