"""The scale benchmark, on a CPU with a shape of a few thousand labels."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from haste.bench import scale
from haste.bench.documents import PublishedStatistics, draw_labels, draw_tokens, statistics
from haste.bench.scale import PRESETS, ScaleRow, bench, measure, plan, workload_of
from haste.errors import ConfigError, KernelError
from haste.files import read_json, read_yaml
from haste.grid import GridConfig
from haste.training.step import TrainStep

PAPER = Path(__file__).parents[2] / "workflow/configs/paper.yaml"


@pytest.fixture(scope="module")
def grid():
    return GridConfig.from_dict(read_yaml(PAPER))


def tiny(grid, method="haste", preset="speed"):
    workload = workload_of(ScaleRow("Amazon-670K", method, preset), grid)
    config = workload.config
    training = replace(config.training, device="cpu", backend="torch", batch_size=4)
    encoder = replace(config.encoder, max_len=16)
    shape = BertConfig(
        vocab_size=100,
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    return replace(
        workload,
        config=replace(config, training=training, encoder=encoder),
        statistics=PublishedStatistics(1001, 500, 3.0, 10),
        architecture=shape,
        steps=3,
    )


def test_only_some_rows(grid):
    assert [c.name for c in plan(grid, ["Amazon-3M/haste/*"])] == [
        "Amazon-3M/haste/default",
        "Amazon-3M/haste/speed",
    ]
    assert {c.dataset for c in plan(grid, ["sweep"])} == {"sweep"}
    with pytest.raises(ConfigError, match=r"--only slow: no such row\. Use dataset/method/preset"):
        plan(grid, ["haste", "slow"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_presets_differ_in_what_is_computed_again_whatever_the_grid_has(grid, checkpointing):
    its = replace(grid, encoder=grid.encoder | {"gradient_checkpointing": checkpointing})
    found = {
        name: workload_of(ScaleRow("Amazon-670K", "haste", name), its).config.encoder
        for name in ("default", "speed")
    }
    assert found["default"].gradient_checkpointing
    assert found["speed"] == replace(found["default"], gradient_checkpointing=False)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", scale.METHODS)
def test_every_method_is_measured(grid, method, preset):
    found, kernels = measure(tiny(grid, method, preset), torch.device("cpu"))
    parts = [found[f"{part}_seconds"] for part in ("encoder", "layer", "rest")]
    assert sum(parts) == pytest.approx(found["seconds_per_step"])
    assert min(parts) >= 0
    assert found["layer_share"] == pytest.approx(found["layer_seconds"] / found["seconds_per_step"])
    assert found["steps_per_epoch"] == 251  # 1001 documents in batches of 4
    assert found["epoch_minutes"] == pytest.approx(251 * found["seconds_per_step"] / 60)
    assert 4 * 4 <= found["tokens_per_step"] <= 4 * 16
    # packed documents are padded only where graphs are
    assert found["tokens_per_step"] == found["padded_tokens_per_step"]
    assert set(found) < {*scale.COLUMNS, "loss"}
    assert kernels == []


def test_steps_are_those_of_training_and_every_batch_is_seen_thrice(grid, monkeypatch):
    seen = []
    step = TrainStep.__call__

    def look(self, batch, done, begins=None):
        seen.append((done, batch.ids.tolist()))
        return step(self, batch, done, begins)

    monkeypatch.setattr(TrainStep, "__call__", look)
    workload = tiny(grid)
    measure(workload, torch.device("cpu"))
    last = workload.config.rewire.interval - 1
    assert [done for done, _ in seen] == [*range(9), last, last]
    assert seen[0][1] == seen[3][1] == seen[6][1]
    assert seen[0][1] != seen[1][1]


class FakeGpu:
    """Enough of a GPU for `bench` to write its files."""

    def __init__(self, monkeypatch, results):
        self.measured = []
        self.results = results
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200")
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
        monkeypatch.setattr(scale.gc, "collect", lambda: None)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        self.commit = "abc"
        monkeypatch.setattr(scale, "machine", lambda: {"torch": "2", "commit": self.commit})
        monkeypatch.setattr(scale, "_total", lambda _: 140 * scale.GIB)
        monkeypatch.setattr(scale, "measure", self.measure)

    def measure(self, workload, _device):
        self.measured.append((workload.config.dataset, workload.statistics.labels))
        found = self.results(workload)
        if isinstance(found, Exception):
            raise found
        numbers = {name: 1.0 for name in scale.COLUMNS if name.endswith(("_seconds", "_gib"))}
        row = {"kernel": "gemm", "calls_per_step": 2.0, "milliseconds_per_step": 0.5}
        return {"seconds_per_step": 0.0221234, "loss": 2.0, **numbers}, [row]


def read(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_files_of_a_device(grid, tmp_path, monkeypatch):
    FakeGpu(monkeypatch, lambda _: None)
    rows = plan(grid, ["Amazon-3M/haste/*"])
    path = bench(tmp_path, grid, rows)
    assert path == tmp_path / "nvidia-h200/scale.csv"
    rows = read(path)
    assert tuple(rows[0]) == scale.COLUMNS
    assert [(r["dataset"], r["method"], r["preset"]) for r in rows] == [
        ("Amazon-3M", "haste", "default"),
        ("Amazon-3M", "haste", "speed"),
    ]
    assert rows[0]["seconds_per_step"] == "0.022123"
    assert rows[0]["labels"] == "2812281"
    assert read_json(path.with_name("scale.json"))["commit"] == "abc"
    profile = read(path.with_name("scale_profile.csv"))
    assert [(r["preset"], r["kernel"]) for r in profile] == [(preset, "gemm") for preset in PRESETS]


def test_rows_of_the_same_machine_and_code_stay(grid, tmp_path, monkeypatch):
    gpu = FakeGpu(monkeypatch, lambda _: None)

    def measured(only, commit):
        gpu.commit = commit
        rows = read(bench(tmp_path, grid, plan(grid, only)))
        return [(r["dataset"], r["preset"], r["labels"]) for r in rows if r["method"] == "haste"]

    first = measured(["sweep/haste/default"], "abc")
    again = measured(["Amazon-3M/haste/*"], "abc")
    assert again[: len(first)] == first
    assert [row[:2] for row in again[len(first) :]] == [
        ("Amazon-3M", "default"),
        ("Amazon-3M", "speed"),
    ]
    # a row that is measured once more stands there once
    assert sorted(measured(["Amazon-3M/haste/speed"], "abc")) == sorted(again)
    profile = read(tmp_path / "nvidia-h200/scale_profile.csv")
    assert sum(r["dataset"] == "Amazon-3M" for r in profile) == 2
    assert len(measured(["Amazon-3M/haste/*"], "def")) == 2
    # what was edited since a commit may have been edited again
    measured(["Amazon-3M/haste/speed"], "def+changes")
    assert len(measured(["Amazon-3M/haste/default"], "def+changes")) == 1


def test_a_row_that_does_not_fit_says_so_and_ends_its_sweep(grid, tmp_path, monkeypatch):
    def result(workload):
        large = workload.statistics.labels > 50_000_000 or workload.config.method == "elmo-bf16"
        return torch.OutOfMemoryError("CUDA out of memory") if large else None

    gpu = FakeGpu(monkeypatch, result)
    rows = read(bench(tmp_path, grid, plan(grid, ["sweep/haste/*", "sweep/elmo-bf16/*"])))
    assert [r["labels"] for r in rows if r["note"]] == ["100000000", "131073"]
    assert {r["note"] for r in rows if r["note"]} == {"out of memory (140 GiB)"}
    assert max(labels for _, labels in gpu.measured) == 100_000_000
    assert len(gpu.measured) == 8


def test_an_error_of_one_row_leaves_the_others(grid, tmp_path, monkeypatch, caplog):
    def result(workload):
        return (
            RuntimeError("no such kernel\nat line 5") if workload.config.method == "haste" else None
        )

    FakeGpu(monkeypatch, result)
    rows = read(bench(tmp_path, grid, plan(grid, ["Amazon-3M/*/speed"])))
    assert [r["note"] for r in rows] == ["no such kernel", "", "", "", ""]
    assert "Amazon-3M/haste/speed: does not run" in caplog.text


def test_a_gpu_that_failed_ends_the_benchmark_and_keeps_what_was_measured(
    grid, tmp_path, monkeypatch
):
    def result(workload):
        bad = workload.config.dataset == "Amazon-3M"
        return RuntimeError("illegal memory access") if bad else None

    def failed():
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    gpu = FakeGpu(monkeypatch, result)
    monkeypatch.setattr(torch.cuda, "synchronize", failed)
    text = (
        r"Amazon-3M/haste/speed: the GPU failed \(CUDA error: an illegal memory access\)\. The rows"
    )
    with pytest.raises(KernelError, match=text):
        bench(tmp_path, grid, plan(grid, ["*/haste/speed"]))
    assert len(gpu.measured) == 3
    assert len(read(tmp_path / "nvidia-h200/scale.csv")) == 2


def test_no_row_begins_when_time_is_over(grid, tmp_path, monkeypatch, caplog):
    now = [0.0]

    def ten_seconds(_):
        now[0] += 10

    gpu = FakeGpu(monkeypatch, ten_seconds)
    with monkeypatch.context() as patch:
        patch.setattr(scale.time, "perf_counter", lambda: now[0])
        bench(tmp_path, grid, plan(grid, ["*/haste/speed"]), seconds=15)
    assert len(gpu.measured) == 2
    left = "Amazon-3M/haste/speed, LF-Paper2Keywords-8.6M/haste/speed"
    assert f"15 s are over; not measured: {left}" in caplog.text


def test_without_a_gpu_nothing_is_written(grid, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(KernelError, match="the scale benchmark needs a CUDA GPU"):
        bench(tmp_path, grid, plan(grid))
    assert not any(tmp_path.iterdir())


def test_an_encoder_or_data_set_nobody_knows():
    with pytest.raises(ConfigError, match=r"encoder\.model: gpt has no shape"):
        scale.architecture("gpt")
    with pytest.raises(ConfigError, match=r"Amazon-4M: .* Did you mean 'amazon-3m'"):
        statistics("Amazon-4M")


def test_drawn_documents_have_the_averages():
    random = np.random.default_rng(0)
    about = PublishedStatistics(0, 100_000, 9.0, 20)
    tokens = draw_tokens(about, 5000, 1000, 5000, random)
    assert tokens.lengths().mean() == pytest.approx(2 + 1.3 * 20, rel=0.02)
    assert draw_tokens(about, 500, 24, 5000, random).lengths().max() == 24
    assert 1000 <= tokens.values.min() < tokens.values.max() < 5000
    labels = draw_labels(about, 5000, 1000, random)
    assert labels.nnz / 5000 == pytest.approx(9.0, rel=0.02)
    # Zipf, flat for the first 100: log(1 + 1000 / 100) / log(1 + 1000) of the mass is in the first 1000
    assert (labels.indices < 1000).mean() == pytest.approx(np.log(11) / np.log(1001), rel=0.02)


def test_labels_of_the_tail_are_scattered_and_all_there():
    about = PublishedStatistics(0, 60, 50.0, 20)
    labels = draw_labels(about, 500, 10, np.random.default_rng(0))
    assert set(labels.indices) == set(range(60))
    counts = np.bincount(labels.indices, minlength=60)
    assert (np.diff(counts[:10]) < 0).all()
    # most frequent of the tail is not its first row but one
    assert counts[10:].argmax() != 1
