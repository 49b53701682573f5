"""What runs are expected to take."""

import dataclasses
import re

import pytest
from typer.testing import CliRunner

from haste.cli import app
from haste.config import build_section
from haste.data.registry import Origin, Source, load_registry
from haste.errors import ConfigError
from haste.estimates import (
    MIB,
    RATE,
    START_SECONDS,
    STEP_SECONDS,
    Size,
    dataset_size,
    encoder_size,
    expected_size,
)
from haste.files import read_yaml, write_json, write_yaml
from haste.grid import GridConfig, RunKey
from haste.paths import RunDir
from haste.planning import plan_data, plan_runs
from haste.runs import run_dir

REGISTRY = """
sources:
  words:
    licence: none
    terms: none
    origins:
      - {via: pip, package: words, version: "1", file: words.tar.gz, size: 1, sha256: SHA,
         members: {words.xml: words/words.xml}, unpacked: 1}
models:
  all-MiniLM-L6-v2:
    licence: none
    terms: none
    origins:
      - {via: https, url: "https://example.org/model.zip", unpacked: 1}
datasets:
  words:
    kind: wordnet
    source: words
    propensity_a: 0.55
    propensity_b: 1.5
    opaque_labels: true
    max_len: 32
    expected: {train: 1000, validation: 50, test: 300, labels: 2000}
""".replace("SHA", "a" * 64)


@pytest.fixture
def registry_file(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_text(REGISTRY)
    return path


@pytest.fixture
def registry(registry_file):
    return load_registry(registry_file)


@pytest.fixture
def settings(tmp_path):
    return {
        "name": "grid",
        "datasets": ["words"],
        "methods": ["dense", "popularity"],
        "seeds": [0, 1],
        "ablation_seeds": [0],
        "data_dir": str(tmp_path / "data"),
        "results_dir": str(tmp_path / "results"),
        "training": {"epochs": 10, "batch_size": 100, "device": "cpu", "threads": 1},
    }


def finish(run: RunDir, config: dict, *, epoch: float, peak: int) -> None:
    write_yaml(run.config, config)
    resources = {
        "completed": True,
        "seconds": {"setup": 2.0, "train": 10 * epoch, "evaluate": 3.0, "epoch": epoch},
        "peak_bytes": {"train": peak, "evaluate": peak // 2},
    }
    write_json(run.resources, resources)
    # by which a run counts as finished
    write_json(run.metrics, {})


def test_the_cost_model_by_hand(settings, registry):
    grid = GridConfig.from_dict(settings)
    plan = next(p for p in plan_runs(grid, registry, gpu=False) if p.key.method == "dense")
    # 6 operations a document, label and feature; 10 steps an epoch; evaluation a third
    document = 6 * 2000 * 384 / RATE["cpu"]
    epochs = 10 * (1000 * document + 10 * STEP_SECONDS["cpu"])
    assert plan.seconds == pytest.approx(START_SECONDS + epochs + 300 * document / 3)
    assert plan.source == "model"
    assert not plan.done
    # weights and biases in float32, 100 labels and scores for each test document
    assert plan.disk == 4 * 2000 * 385 + 300 * 100 * 8


@pytest.mark.parametrize(
    ("method", "elements"),
    [
        ("dense", 2000 * 385),
        ("fixed-fan-in", 2000 * (32 + 1 + 32)),
        # a tenth of the labels, 13 groups of 16, are a dense head; the tail has 112 groups
        ("haste", 208 * 385 + 1792 * (32 + 1) + 112 * 32),
        ("fixed-fan-in-head", 208 * 385 + 1792 * (32 + 1 + 32)),
    ],
)
def test_the_disk_of_a_run_is_that_of_its_layer(settings, registry, method, elements):
    grid = GridConfig.from_dict({**settings, "methods": [method], "layer": {"fan_in": 32}})
    assert plan_runs(grid, registry, gpu=False)[0].disk == 4 * elements + 300 * 100 * 8


def test_a_finished_run_replaces_the_model_for_other_seeds(settings, registry):
    grid = GridConfig.from_dict(settings)
    first, second = (RunKey("words", "dense", "default", seed) for seed in (0, 1))
    finish(run_dir(grid, first), grid.run_settings(first), epoch=7.0, peak=900 * MIB)
    plans = {plan.key: plan for plan in plan_runs(grid, registry, gpu=False)}
    assert plans[first].done
    assert not plans[second].done
    assert plans[second].source == "measured"
    assert plans[second].seconds == pytest.approx(START_SECONDS + 2 + 3 + 10 * 7)
    assert plans[second].memory == 900 * MIB


def test_more_epochs_scale_and_are_not_done(settings, registry):
    grid = GridConfig.from_dict(settings)
    key = RunKey("words", "dense", "default", 0)
    finish(run_dir(grid, key), grid.run_settings(key), epoch=7.0, peak=1)
    longer = GridConfig.from_dict({**settings, "training": {"epochs": 20, "batch_size": 100}})
    plan = next(p for p in plan_runs(longer, registry, gpu=False) if p.key == key)
    assert not plan.done, "finished, but with other settings"
    assert plan.seconds == pytest.approx(START_SECONDS + 2 + 3 + 20 * 7)


def test_the_corpus_is_believed_before_the_registry(settings, registry):
    grid = GridConfig.from_dict(settings)
    assert dataset_size(grid, registry, "words").labels == 2000
    info = {"documents": {"train": 5, "validation": 1, "test": 2}, "n_labels": 4}
    write_json(grid.layout.corpus("words").info, info)
    size = dataset_size(grid, registry, "words")
    assert (size.train, size.test, size.labels) == (5, 2, 4)


def test_a_published_split_loses_its_validation_documents(tmp_path):
    path = tmp_path / "published.yaml"
    path.write_text(
        "datasets: {big: {path: /data/big, validation: 0.1, expected: {train_all: 1000, test: 5, labels: 7}},"
        " unknown: {path: /data/unknown, expected: {labels: 9}}}"
    )
    registry = load_registry(path)
    assert expected_size(registry, "big") == Size(train=900, test=5, labels=7, validation=100)
    assert expected_size(registry, "unknown") == Size(train=0, test=0, labels=9)


GPU = {"epochs": 10, "batch_size": 100, "device": "cuda", "validate_every": 5}


def test_a_gpu_run_is_planned_by_the_benchmark_or_not_at_all(settings, registry):
    grid = GridConfig.from_dict({**settings, "methods": ["dense", "haste"], "training": GPU})
    assert {(p.source, p.seconds, p.memory) for p in plan_runs(grid, registry, gpu=False)} == {
        ("not measured", None, None)
    }
    # with the column's former name: a file of an earlier version
    for device, seconds in (("b", 9.0), ("a", 2.0)):
        path = grid.layout.benchmarks / device / "scale.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"dataset,method,seconds_a_step,more\nwords,dense,{seconds},x\n")
    plans = {plan.key.method: plan for plan in plan_runs(grid, registry, gpu=False)}
    assert plans["haste"].source == "not measured"
    # ten steps an epoch; two looks at 50 documents and one at 300, a third of a step a hundred
    steps = 10 * 10 + (2 * 0.5 + 3) / 3
    assert plans["dense"].source == "benchmark a"
    assert plans["dense"].seconds == pytest.approx(START_SECONDS + 2.0 * steps)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_device_is_that_of_the_machine_where_the_grid_says_none(settings, registry, gpu):
    runs = [
        plan_runs(
            GridConfig.from_dict(
                {**settings, "methods": ["dense"], "training": {"device": device}}
            ),
            registry,
            gpu=gpu,
        )
        for device in ("auto", "cuda" if gpu else "cpu")
    ]
    assert runs[0] == runs[1]
    assert runs[0][0].on_gpu == gpu


def test_a_data_set_that_is_to_be_generated_has_the_size_of_its_plan(registry):
    described = {
        "small": {"synth": {"documents": 1000, "labels": 50}, "validation": 0.1},
        "like": {"synth": {"like": "eurlex-4k", "scale": 0.1, "test_documents": 7}},
        "none": {"synth": {"labels": 50}},
        "words": {"synth": {"documents": "many", "labels": 50}},
        "scale": {"synth": {"like": "eurlex-4k", "scale": "0.1"}},
        "liked": {"synth": {"like": ["eurlex-4k"]}},
    }
    registry = dataclasses.replace(registry, datasets={}).with_datasets(described)
    assert expected_size(registry, "small") == Size(900, 250, 50, validation=100)
    assert expected_size(registry, "like") == Size(1514, 7, 396, validation=31)
    for name, key in (
        ("none", "--documents"),
        ("words", "documents"),
        ("scale", "--scale"),
        ("liked", "--like"),
    ):
        with pytest.raises(ConfigError, match=f"datasets.{name}: .*{key}"):
            expected_size(registry, name)


def test_the_size_of_an_encoder_that_is_not_there_yet(settings, registry, tmp_path):
    origin = Origin(via="https", url="https://example.org/big.zip", unpacked=1)
    model = Source("big", "free", "none", (origin,), hidden_size=768, parameters=1000)
    registry = dataclasses.replace(registry, models={"big": model})
    encoder = build_section("encoder", {"kind": "transformer", "model": "big"})
    assert encoder_size(encoder, tmp_path, registry) == (768, 1000)
    write_json(tmp_path / "config.json", {"hidden_size": 99})
    assert encoder_size(encoder, tmp_path, registry) == (99, 1000)
    grid = GridConfig.from_dict({**settings, "encoder": {"kind": "transformer", "model": "big"}})
    plan = next(p for p in plan_runs(grid, registry, gpu=False) if p.key.method == "dense")
    assert plan.disk == 4 * (1000 + 2000 * 769) + 300 * 100 * 8


def test_the_disk_that_data_takes(settings, registry):
    grid = GridConfig.from_dict({**settings, "methods": ["dense", "haste"]})
    (plan,) = plan_data(grid, registry)
    documents = 1000 + 50 + 300
    texts, tokens = 2 * 6 * 32 * documents, 4 * 32 * documents
    embeddings, orders = 4 * 2000 * 384, 2 * 4 * 2000
    assert plan.disk == texts + tokens + embeddings + orders
    assert not plan.made


@pytest.mark.parametrize("option", ["--grid", "--configfile"])
def test_haste_plan_lists_the_data_and_the_runs(settings, registry_file, tmp_path, option):
    write_yaml(tmp_path / "grid.yaml", settings)
    arguments = [option, str(tmp_path / "grid.yaml"), "--registry", str(registry_file)]
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["│", "words", "│", "to", "make", "│", "1,000", "│"] in [line[:8] for line in lines]
    assert ["│", "words", "│", "dense", "│", "default", "│", "2", "│", "2", "│", "model"] in [
        line[:12] for line in lines
    ]
    words = " ".join(result.output.split())
    # what there is none of is not said
    assert re.search(r"3 of 3 runs to do, one after the other \d+\.\d min on a CPU\. ", words)


def test_haste_configure_writes_one_run(settings, tmp_path):
    write_yaml(tmp_path / "grid.yaml", settings)
    out = tmp_path / "run/config.yaml"
    arguments = ["--grid", str(tmp_path / "grid.yaml"), "--dataset", "words", "--method", "dense"]
    result = CliRunner().invoke(app, ["configure", *arguments, "--seed", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    grid = GridConfig.from_dict(settings)
    assert read_yaml(out) == grid.run_settings(RunKey("words", "dense", "default", 1))
