"""Runs in several processes, as torchrun starts them, end where runs in one do."""

import csv
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

import ranks
from haste.files import read_json
from haste.metrics.runs import read_predictions
from haste.training.run import train_and_evaluate


def train(run, size, tmp_path):
    return ranks.run("haste.cli:main", ["train", str(run.config)], size, tmp_path / f"logs{size}")


def with_bert(config, folder):
    """The run with a transformer without dropout, which is drawn for each process's documents."""
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    torch.manual_seed(0)
    bert = BertConfig(vocab_size=64, hidden_size=32, **shape, **dropout)
    BertModel(bert).save_pretrained(folder)
    return replace(config, inputs=replace(config.inputs, model=str(folder)))


def check_same(one, several, atol=1e-4):
    weights, others = load_file(one.model), load_file(several.model)
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        if value.is_floating_point():
            assert torch.allclose(others[name], value, rtol=1e-3, atol=atol), name
        else:
            assert torch.equal(others[name], value), name
    histories = []
    for run in (one, several):
        with run.history.open() as stream:
            histories.append(list(csv.DictReader(stream)))
    for a, b in zip(*histories, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-4)
        assert a["rewired"] == b["rewired"]
    ids, scores = read_predictions(several)
    assert np.allclose(scores[:, :20], read_predictions(one)[1][:, :20], atol=10 * atol)
    metrics = read_json(one.metrics)["metrics"]
    assert read_json(several.metrics)["metrics"] == pytest.approx(metrics, abs=4)
    assert ids.shape == (30, 100)
    assert not several.checkpoint.exists()


HEADED = {"fan_in": 16, "head_ratio": 0.2, "features": "private", "dropout": 0.2}
REWIRE = {"interval": 4, "until": 0.8}


@pytest.mark.parametrize(
    ("size", "sections"),
    [
        # sparse features of a bag, a last batch of 6 documents, groups of which the last is short
        (2, {"head": 8, "layer": HEADED, "training": {"tune_tail_bias": True}}),
        (3, {"layer": {"fan_in": 16, "bias_init": "log_prior"}}),
        (
            2,
            {
                "layer": {"pattern": "fixed_fan_in", "fan_in": 16},
                "encoder": {"kind": "transformer"},
            },
        ),
    ],
    ids=["head-tail", "three", "transformer"],
)
def test_the_result_does_not_depend_on_the_number_of_processes(tiny, tmp_path, size, sections):
    config = tiny.config(rewire=REWIRE, **sections)
    if config.encoder.kind == "transformer":
        config = with_bert(config, tmp_path / "bert")
    one, several = (tiny.run_dir(name, config) for name in ("one", "several"))
    train_and_evaluate(config, one)
    assert train(several, size, tmp_path) == [0] * size
    check_same(one, several)
    resources = read_json(several.resources)
    assert resources["ranks"] == size
    assert resources["layer_bytes"] == read_json(one.resources)["layer_bytes"]


@pytest.mark.parametrize("size", [1, 3])
def test_after_a_kill_any_number_of_processes_resumes(tiny, tmp_path, size):
    training = {"checkpoint_minutes": 0.0, "epochs": 6}
    config = tiny.config(layer={"fan_in": 16}, rewire=REWIRE, training=training)
    one, several = (tiny.run_dir(name, config) for name in ("one", "several"))
    train_and_evaluate(config, one)
    processes = ranks.start(
        "haste.cli:main", ["train", str(several.config)], 2, tmp_path / "killed"
    )
    state = several.checkpoint / "state.safetensors"
    while not state.exists():
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    processes[1].kill()
    assert all(ranks.finish(processes, tmp_path / "killed"))
    assert state.exists()
    assert not several.metrics.exists()
    assert train(several, size, tmp_path) == [0] * size
    check_same(one, several)
    log = (tmp_path / f"logs{size}/rank0.txt").read_text()
    assert "resuming from step" in log


def test_one_process_says_what_is_wrong_and_all_end(tiny, tmp_path):
    config = tiny.config(layer={"pattern": "unstructured", "fan_in": 16})
    run = tiny.run_dir("run", config)
    assert train(run, 2, tmp_path) == [2, 2]
    logs = [(tmp_path / f"logs2/rank{rank}.txt").read_text() for rank in range(2)]
    assert ["unstructured" in log for log in logs] == [True, False]
    assert not run.metrics.exists()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
@pytest.mark.parametrize("graphs", [True, False])
def test_two_gpus_train_as_one(tiny, tmp_path, graphs):
    config = with_bert(
        tiny.config(
            head=8,
            layer=HEADED,
            rewire={"interval": 9},
            encoder={"kind": "transformer", "learning_rate": 1e-4},
            training={"device": "cuda", "graphs": graphs, "epochs": 4},
        ),
        tmp_path / "bert",
    )
    one, several = (tiny.run_dir(name, config) for name in ("one", "several"))
    assert train(one, 1, tmp_path) == [0]
    assert train(several, 2, tmp_path) == [0, 0]
    # Adam steps by the sign of a small gradient
    check_same(one, several, atol=2e-3)
