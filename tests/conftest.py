"""A corpus of a few dozen made-up documents, with tokens and a small pretrained model."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

# workers of pytest-xdist, as many as cores, have a thread each, and so has what they start
if "PYTEST_XDIST_WORKER" in os.environ:
    for _library in ("OMP", "OPENBLAS", "MKL", "RAYON"):
        os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import torch

# without a GPU the kernels run in Triton's interpreter, which is chosen before triton is imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import settings
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from haste.config import InputsConfig, RunConfig, build_section
from haste.data.corpus import load_corpus
from haste.data.tokens import tokenize
from haste.files import write_yaml
from haste.labels.order import LabelOrder
from haste.paths import RunDir
from small_corpus import write_small_corpus
from small_grid import finish, grid, make_inputs, tiny_grid  # noqa: F401

# a busy machine is no failure
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

WORDS = [f"w{i:02d}" for i in range(60)]
N_LABELS, N_EXTRA, HIDDEN = 40, 3, 32
SPLIT_SIZES = {"train": 150, "validation": 20, "test": 30}


@pytest.fixture
def describe_anew():
    """Changes values of a description (corpus.json, tokens.json), which is left without digests, as those
    of before there were any."""

    def change(path: Path, **values) -> None:
        described = json.loads(path.read_text())
        kept = {k: v for k, v in described.items() if k not in ("digests", "crc32")} | values
        path.write_text(json.dumps({k: v for k, v in kept.items() if v is not None}))

    return change


@dataclass(frozen=True)
class Tiny:
    """Where the made-up data set lies, and runs on it."""

    root: Path
    corpus: Path
    tokens: Path
    model: Path

    def order(self, head: int = 8, group_size: int = 16) -> Path:
        path = self.root / f"order-h{head}-g{group_size}.npz"
        if not path.exists():
            labels = np.random.default_rng(3).permutation(N_LABELS).astype(np.int32)
            LabelOrder(labels, head, group_size).save(path)
        return path

    def config(self, *, head: int = 0, seed: int = 0, **sections) -> RunConfig:
        training = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "device": "cpu"}
        sections = {
            "encoder": {"learning_rate": 1e-3, "max_len": 12},
            "layer": {"fan_in": 16},
            **sections,
        }
        sections["encoder"] = {"max_len": 12, **sections["encoder"]}
        sections["training"] = {**training, **sections.get("training", {})}
        layer = build_section("layer", sections["layer"])
        order = str(self.order(head)) if layer.grouped or head else None
        clusters = str(self.order(0)) if sections.get("auxiliary") else None
        return RunConfig(
            dataset="tiny",
            method="haste",
            variant="default",
            seed=seed,
            inputs=InputsConfig(
                str(self.corpus), str(self.tokens), str(self.model), order, clusters
            ),
            **{name: build_section(name, value) for name, value in sections.items()},
        )

    def run_dir(self, name: str, config: RunConfig) -> RunDir:
        run = RunDir(self.root / "runs" / name)
        run.root.mkdir(parents=True, exist_ok=True)
        write_yaml(run.config, config.as_dict())
        return run


@pytest.fixture(scope="session")
def tiny_session(tmp_path_factory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    _write_model(root / "model")
    _write_corpus(root / "corpus")
    tokenize(load_corpus(root / "corpus"), root / "model", 12, root / "tokens")
    return Tiny(root, root / "corpus", root / "tokens", root / "model")


@pytest.fixture
def tiny(tiny_session, tmp_path) -> Tiny:
    """The shared data with a folder of the test's own for orders and runs."""
    return replace(tiny_session, root=tmp_path)


def _write_model(folder: Path) -> None:
    folder.mkdir()
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    random = np.random.default_rng(0)
    weights = random.normal(size=(len(vocabulary), HIDDEN)).astype(np.float32)
    save_file({"embeddings.word_embeddings.weight": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"hidden_size": HIDDEN}))


def _write_corpus(folder: Path) -> None:
    """A document's labels follow from its first words, so there is something to learn."""
    random = np.random.default_rng(1)
    documents, positives = {}, {}
    for split, size in SPLIT_SIZES.items():
        words = random.integers(len(WORDS), size=(size, 4))
        documents[split] = [" ".join(WORDS[i] for i in row) for row in words]
        columns = words[:, :3] % N_LABELS
        dense = np.zeros((size, N_LABELS + N_EXTRA), np.float32)
        np.put_along_axis(dense, columns, 1, axis=1)
        if split != "train":
            dense[::5, N_LABELS] = 1
        positives[split] = sp.csr_matrix(dense)
    # every trainable label needs a training document
    first = positives["train"].toarray()
    first[np.arange(N_LABELS), np.arange(N_LABELS)] = 1
    positives["train"] = sp.csr_matrix(first)
    write_small_corpus(folder, positives, texts=documents, opaque_labels=False)
