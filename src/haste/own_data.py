"""A folder of the user's own as a data set that settings can be searched on: its corpus, and what reads it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from haste.checksums import file_sums
from haste.data.arrays import TRIAL_VALIDATION
from haste.data.build import build_corpus, source_files
from haste.data.corpus import load_corpus
from haste.data.linked import Tick
from haste.data.readers import detect
from haste.data.readers.dense import PecosEmbeddings
from haste.data.registry import Dataset
from haste.errors import ConfigError
from haste.files import is_occupied
from haste.paths import CorpusDir, GridLayout
from haste.prepare import own_encoder
from haste.presets import trained_method

DATASET = "own"
GRID = "tuned"
HIDDEN = 1024
"""features H of documents that no pretrained model reads"""


def grid_of_folder(
    data: Path,
    out: Path,
    method: str,
    *,
    seed: int = 0,
    model: Path | None = None,
    tick: Tick | None = None,
) -> dict[str, Any]:
    """The settings of a grid of one run on the data set in the folder `data`, with its files in `out`.

    One training document in ten is held out for validation, at most 10,000. Texts are read by the pretrained
    `model`, a folder, or as a bag of their own words. What is in `out` from the same files is used again.
    Raises ConfigError for an `out` with other files and a method that is not trained, DataError for a folder that
    is no data set.
    """
    trained_method(method)
    data, out = data.expanduser().resolve(), out.expanduser().resolve()
    layout = GridLayout(out / "data", out, GRID)
    folder = layout.data_dir / DATASET
    if is_occupied(out) and not folder.exists():
        raise ConfigError(f"--out: {out} is a file, or has other files in it; give a new folder.")
    described: dict[str, Any] = {"path": str(data), "validation": TRIAL_VALIDATION}
    dataset = Dataset(name=DATASET, **described)
    corpus = layout.corpus(DATASET)
    if not _is_made_of(dataset, corpus):
        shutil.rmtree(folder, ignore_errors=True)
        build_corpus(dataset, data, corpus.root, tick)
    made = load_corpus(corpus)
    encoder = own_encoder(
        {}
        if model is None
        else {"model": str(model.expanduser().resolve()), "max_len": made.info.max_len},
        made.texts("train") if made.info.has_text else None,
        folder / "words",
        dense=isinstance(detect(data), PecosEmbeddings),
        size=HIDDEN,
        seed=seed,
    )
    return {
        "name": layout.grid,
        "datasets": {DATASET: described},
        "methods": [method],
        "seeds": [seed],
        "data_dir": str(layout.data_dir),
        "results_dir": str(layout.results_dir),
        "encoder": encoder,
    }


def _is_made_of(dataset: Dataset, corpus: CorpusDir) -> bool:
    """Whether the corpus there is of the data set's files as they are now."""
    if not corpus.info.is_file():
        return False
    source = load_corpus(corpus).info.source
    files = file_sums(source_files(dataset, dataset.path), dataset.path)
    return source == {"path": dataset.path, "files": files}
