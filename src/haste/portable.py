"""A trained run as one folder that needs nothing else: exported, read again, described by a model card."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from haste.checksums import read_description
from haste.config import RunConfig
from haste.data.corpus import MADE_BY, load_corpus
from haste.errors import ConfigError, DataError
from haste.files import is_occupied, read_json, write_json, write_npz, write_yaml
from haste.metrics.names import HEADLINE
from haste.paths import CorpusDir, RunDir
from haste.predict import Predictor
from haste.resources import machine
from haste.runs import made_by

MODEL_TYPE = "haste"
ENCODER = "encoder"
"""folder of the encoder's configuration and tokenizer"""
ORDER = "order.npz"
COUNTS = "label_counts.npz"
ENCODER_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
)


def save_pretrained(predictor: Predictor, out: Path, *, numbered: bool = False) -> None:
    """Write a trained run to a new folder, which is a run's folder itself: `Predictor`, `haste predict` and
    `HasteClassifier.from_pretrained` read it wherever it lies.

    `numbered`: labels are numbers and not names. Raises ConfigError where `out` is a file or has files in
    it, DataError where the run is not finished.
    """
    if is_occupied(out):
        raise ConfigError(f"{out}: is a file, or has files in it; give a new folder.")
    run, config, corpus = predictor.run, predictor.config, predictor.corpus
    if not run.metrics.is_file():
        raise DataError(f"{run.metrics}: no such file. To make it: {made_by(run)}")
    out.mkdir(parents=True, exist_ok=True)
    encoder = out / ENCODER
    encoder.mkdir()
    for name in ENCODER_FILES:
        if (predictor.model_folder / name).is_file():
            shutil.copyfile(predictor.model_folder / name, encoder / name)
    shutil.copyfile(run.model, RunDir(out).model)
    for path in (corpus.info, corpus.labels):
        shutil.copyfile(path, out / path.name)
    write_npz(out / COUNTS, counts=train_frequencies(corpus))
    if predictor.order:
        shutil.copyfile(predictor.order, out / ORDER)
    for path in (run.metrics, run.resources):
        shutil.copyfile(path, out / path.name)
    write_yaml(
        RunDir(out).config, _own_paths(config, has_order=predictor.order is not None).as_dict()
    )
    described = read_description(corpus.info, MADE_BY)
    write_json(
        out / "config.json",
        {
            "model_type": MODEL_TYPE,
            "dataset": config.dataset,
            "method": config.method,
            "encoder": config.encoder.kind,
            "numbered_labels": numbered,
            "n_labels": described["n_labels"],
            "n_features": predictor.model.layer.n_features,
            "versions": machine(),
        },
    )
    card = _model_card(config, described, read_json(run.metrics), read_json(run.resources))
    (out / "README.md").write_text(card, encoding="utf-8")


def train_frequencies(corpus: CorpusDir) -> np.ndarray:
    """int64 [L + E]: training documents of each label, of a corpus or of an exported run."""
    counts = corpus.root / COUNTS
    if counts.is_file():
        with np.load(counts, allow_pickle=False) as stored:
            return stored["counts"]
    return load_corpus(corpus).label_frequencies()


def _own_paths(config: RunConfig, *, has_order: bool) -> RunConfig:
    """The configuration with paths that are relative to the run's own folder."""
    encoder = config.encoder
    if encoder.model_folder is not None:
        encoder = dataclasses.replace(encoder, model=f"./{ENCODER}")
    inputs = dataclasses.replace(
        config.inputs, corpus=".", tokens=".", model=ENCODER,
        order=ORDER if has_order else None, clusters=None,
    )  # fmt: skip
    return dataclasses.replace(config, encoder=encoder, inputs=inputs)


def _model_card(
    config: RunConfig, corpus: dict[str, Any], metrics: dict[str, Any], resources: dict[str, Any]
) -> str:
    """README.md in Hugging Face's form."""
    values = metrics["metrics"]
    shown = [name for name in HEADLINE if name in values]
    rows = "\n".join(f"| {name} | {values[name]:.2f} |" for name in shown)
    layer, training = config.layer, config.training
    head = f", a dense head of {layer.head_ratio:.0%} of the labels" if layer.head_ratio else ""
    sparse = f", fan-in {layer.fan_in}" if layer.sparse else ""
    grouped = f", groups of {layer.group_size} ({layer.grouping})" if layer.grouped else ""
    versions = resources.get("machine", {})
    return f"""---
library_name: haste
pipeline_tag: text-classification
tags: [extreme-multi-label-classification, haste]
---

# {config.method} on {config.dataset}

{corpus["n_labels"]:,} labels, {corpus["documents"]["train"]:,} training documents. Encoder: {config.encoder.kind}, \
{config.encoder.model if config.encoder.kind != "none" else "features as they are"}. Output layer: {layer.pattern}\
{sparse}{grouped}{head}. Seed {config.seed}, {resources["steps"]:,} steps of {training.batch_size} documents on \
{resources["device"]}.

| Metric ({training.evaluate}) | % |
|---|---:|
{rows}

Data: {corpus["licence"]}.

```python
from haste import HasteClassifier

model = HasteClassifier.from_pretrained("{config.method}")  # this folder
labels, probabilities = model.predict(["a text"], k=5)
```

```sh
haste predict --run . --input texts.txt --k 5
```

Made with haste {versions.get("haste", "")}, torch {versions.get("torch", "")}. All settings: `config.yaml`.
"""
