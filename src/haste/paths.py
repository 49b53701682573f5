"""The name of every file between stages, once. Commands take folders; these say what lies in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SPLITS = ("train", "validation", "test")

PACKAGE = Path(__file__).parent
REGISTRY = PACKAGE / "data" / "datasets.yaml"
"""sources, models and data sets; see haste.data.registry"""
PUBLISHED = PACKAGE / "report" / "published.csv"
"""the papers' results; see haste.report.published"""
LOCK = "datasets.lock.yaml"
"""in the data folder: digests of what was fetched; see haste.data.lock"""


class File:
    """A file of a Folder by its name: as an attribute of one, its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Folder, owner: type) -> Path:
        return folder.root / self.name


class SplitFile:
    """A file of each split, for which {} stands in its name: a function from the split to its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Folder, owner: type) -> Callable[[str], Path]:
        return lambda split: folder.root / self.name.format(split)


@dataclass(frozen=True)
class Folder:
    """A folder with files of certain names."""

    root: Path

    @classmethod
    def of(cls, folder: Path | str | Self) -> Self:
        """A folder by its path, or as it is."""
        if isinstance(folder, cls):
            return folder
        return cls(Path(folder))  # type: ignore[arg-type]  # no Self: mypy does not narrow by cls


class CorpusDir(Folder):
    """`data/<dataset>/corpus`: documents, labels and which belongs to which."""

    documents = SplitFile("{}.parquet")
    """Parquet: uid, text; one row a document, in the order of the label matrix"""
    positives = SplitFile("{}.labels.npz")
    """CSR [N, L + E] of ones; columns L.. are labels without a training document (test truth only)"""
    reciprocal = SplitFile("{}.reciprocal.npz")
    """CSR [N, L + E]: the positives (i, j) of a split whose reverse (j, i) is a training positive, or the
    pairs that the data set's publishers list as reciprocal"""
    features = SplitFile("{}.features.npz")
    """float32 CSR [N, D]: sparse features; only in a corpus that has them"""
    labels = File("labels.parquet")
    """Parquet: uid, name (for display), text (null where labels are opaque), trainable (bool)"""
    info = File("corpus.json")
    """see haste.data.corpus.CorpusInfo"""


class TokenDir(Folder):
    """`data/<dataset>/tokens/<tokenizer>-<max_len>`: ragged token ids, memory-mapped."""

    ids = SplitFile("{}.ids.npy")
    """int32 [T]: the tokens of all documents, one after the other, special tokens included"""
    weights = SplitFile("{}.weights.npy")
    """float32 [T]: what each token counts; only where tokens are sparse features"""
    offsets = SplitFile("{}.offsets.npy")
    """int64 [N + 1]: document i is ids[offsets[i]:offsets[i + 1]]"""
    vocabulary = File("vocabulary.npy")
    """int32: sorted ids of the non-special tokens that occur in training documents"""
    info = File("tokens.json")
    """see haste.data.tokens.TokenInfo"""


class RunDir(Folder):
    """`results/<grid>/runs/<dataset>/<method>/<variant>/seed<k>`: one run."""

    config = File("config.yaml")
    """the resolved RunConfig"""
    history = File("history.csv")
    """one row an epoch: epoch, step, loss (mean a document), learning_rate, seconds (since the start),
    P@1, P@5, PSP@5 (validation, %, empty where not evaluated), rewired (indices)"""
    metrics = File("metrics.json")
    """see haste.metrics.metrics.evaluate"""
    resources = File("resources.json")
    """see haste.resources.Meter.resources"""
    predictions = File("predictions.npz")
    """ids int32 [N, k], scores float32 [N, k], best first; -1 where there are fewer than k"""
    model = File("model.safetensors")
    """encoder and output layer"""
    checkpoint = File("checkpoint")
    """folder with what is needed to resume; removed when the run ends"""


@dataclass(frozen=True)
class GridLayout:
    """Where everything of one grid lies, below `data_dir` and `results_dir`."""

    data_dir: Path
    results_dir: Path
    grid: str

    def raw(self, source: str) -> Path:
        """What was fetched, as fetched, with SOURCE.json."""
        return self.data_dir / source / "raw"

    @property
    def lock(self) -> Path:
        """Digests of what was fetched."""
        return self.data_dir / LOCK

    def model(self, name: str) -> Path:
        """A pretrained encoder: config, tokenizer, safetensors."""
        return self.data_dir / "models" / name

    def corpus(self, dataset: str) -> CorpusDir:
        """Documents and label matrices of a data set."""
        return CorpusDir(self.data_dir / dataset / "corpus")

    def tokens(self, dataset: str, tokenizer: str, max_len: int) -> TokenDir:
        """Tokens of a data set for one tokenizer and maximal length."""
        return TokenDir(self.data_dir / dataset / "tokens" / f"{tokenizer}-{max_len}")

    def embeddings(self, dataset: str, encoder: str) -> Path:
        """float32 .npy [L, H]: label embeddings, rows of unit length; beside it its digest, .sum.json."""
        return self.data_dir / dataset / "labels" / f"embeddings-{encoder}.npy"

    def order(self, dataset: str, variant: str) -> Path:
        """NPZ: head and groups of labels, see haste.labels.order.LabelOrder."""
        return self.data_dir / dataset / "labels" / variant / "order.npz"

    @property
    def results(self) -> Path:
        """The folder of the grid."""
        return self.results_dir / self.grid

    def run(self, dataset: str, method: str, variant: str, seed: int | str) -> RunDir:
        """The folder of one run."""
        return RunDir(self.results / "runs" / dataset / method / variant / f"seed{seed}")

    def table(self, name: str) -> Path:
        """A table's path without its suffix (.csv, .md, .tex)."""
        return self.results / "tables" / name

    def figure(self, name: str) -> Path:
        """A figure's path without its suffix (.csv, .pdf, .png)."""
        return self.results / "figures" / name

    @property
    def benchmarks(self) -> Path:
        """Kernel and scale benchmarks, one folder a device."""
        return self.results_dir / "benchmarks"
