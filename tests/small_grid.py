"""A small grid whose inputs are there, and finished runs of it without any training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from haste.files import write_json, write_npz, write_yaml
from haste.grid import GridConfig, RunKey
from haste.labels.order import LabelOrder
from haste.metrics.metrics import METRICS
from haste.metrics.names import HISTORY
from haste.paths import RunDir
from haste.runs import IDENTITY, corpus_digest, identity, input_digest, is_trained, run_dir

SETTINGS = {
    "name": "small",
    "datasets": ["words"],
    "methods": [
        "bottleneck",
        "spartex",
        "fixed-fan-in",
        "dense",
        "renee",
        "haste",
        "popularity",
    ],
    "ablations": ["rewiring", "grouping"],
    "seeds": [0, 1],
    "ablation_seeds": [0],
    "training": {"epochs": 2, "device": "cpu"},
}


@pytest.fixture
def grid(tmp_path, monkeypatch) -> GridConfig:
    """The grid in a folder of the test's own, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    write_yaml("grid.yaml", SETTINGS)
    return GridConfig.from_dict(SETTINGS)


@pytest.fixture
def tiny_grid(tiny, tmp_path, monkeypatch) -> GridConfig:
    """A grid of two runs that can be trained, in the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "name": "small",
        "datasets": ["tiny"],
        "methods": ["dense"],
        "seeds": [0, 1],
        "encoder": {"model": "model", "learning_rate": 1e-3, "max_len": 12},
        "training": {"epochs": 1, "batch_size": 16, "device": "cpu"},
    }
    write_yaml("grid.yaml", settings)
    grid = GridConfig.from_dict(settings)
    here = grid.resolve(grid.runs()[0]).inputs
    for name in ("corpus", "tokens", "model"):
        path = Path(getattr(here, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(getattr(tiny, name))
    return grid


@pytest.fixture
def make_inputs() -> Callable[[GridConfig], None]:
    return write_inputs


@pytest.fixture
def finish() -> Callable[..., RunDir]:
    return write_run


CORPUS = {
    "filtered": False,
    "documents": {"validation": 2, "test": 3},
    "n_labels": 90,
    "n_extra": 10,
}
"""what is read of corpus.json; documents are those of the runs' predictions"""
ORDER = LabelOrder(np.arange(90, dtype=np.int32), head=0, group_size=16)
"""of the labels of CORPUS"""


def write_inputs(grid: GridConfig) -> None:
    """A few bytes in the place of each input of each trained run."""
    for key in grid.runs():
        if key.method == "popularity":
            continue
        inputs = grid.resolve(key).inputs
        corpus, tokens, model = map(Path, (inputs.corpus, inputs.tokens, inputs.model))
        files = [corpus / "corpus.json", corpus / "test.parquet", tokens / "tokens.json"]
        files += [model / "config.json", model / "model.safetensors", model / "SOURCE.json"]
        for path in map(Path, filter(None, (inputs.order, inputs.clusters))):
            path.parent.mkdir(parents=True, exist_ok=True)
            ORDER.save(path)
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.name}\n")
        write_json(corpus / "corpus.json", CORPUS)
        write_json(tokens / "tokens.json", {"max_len": 12})


def write_run(grid: GridConfig, key: RunKey, precision: float = 50.0) -> RunDir:
    """All files that training leaves, or a linear method."""
    run, settings = run_dir(grid, key), grid.run_settings(key)
    run.root.mkdir(parents=True, exist_ok=True)
    write_yaml(run.config, settings)
    recorded = {"config": settings, "inputs": corpus_digest(grid.layout.corpus(key.dataset))}
    if is_trained(key):
        config = grid.resolve(key)
        recorded = identity(config, input_digest(config.inputs))
        epochs = range(config.training.epochs)
        rows = [",".join(HISTORY), *(f"{e},{e},1.0,0.1,1.0,,,,0" for e in epochs)]
        run.history.write_text("\n".join(rows) + "\n")
        run.model.write_text("weights")
    ids = np.tile(np.arange(100, dtype=np.int32), (3, 1))
    write_npz(run.predictions, ids=ids, scores=-ids.astype(np.float32))
    write_json(
        run.resources,
        {
            "device": "CPU",
            "seconds": {},
            "peak_bytes": {},
            "completed": True,
            IDENTITY: recorded,
        },
    )
    metrics = dict.fromkeys(METRICS, precision)
    write_json(
        run.metrics,
        {"metrics": metrics, "without_reciprocal_pairs": None, "deciles": [], "backend": "numpy"},
    )
    return run
