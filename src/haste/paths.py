"""The name of every file between stages, once. Commands take folders; these say what lies in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "validation", "test")

REGISTRY = Path("workflow/resources/datasets.yaml")
"""sources, models and data sets; see haste.data.registry"""
LOCK = "datasets.lock.yaml"
"""in the data folder: digests of what was fetched; see haste.data.lock"""


@dataclass(frozen=True)
class CorpusDir:
    """`data/<dataset>/corpus`: documents, labels and which belongs to which."""

    root: Path

    def documents(self, split: str) -> Path:
        """Parquet: uid, text; one row a document, in the order of the label matrix."""
        return self.root / f"{split}.parquet"

    def positives(self, split: str) -> Path:
        """CSR [N, L + E] of ones; columns L.. are labels without a training document (test truth only)."""
        return self.root / f"{split}.labels.npz"

    def reciprocal(self, split: str) -> Path:
        """CSR [N, L + E]: the positives (i, j) of a split whose reverse (j, i) is a training positive, or
        the pairs that the data set's publishers list as reciprocal."""
        return self.root / f"{split}.reciprocal.npz"

    def features(self, split: str) -> Path:
        """float32 CSR [N, D]: sparse features; only in a corpus that has them."""
        return self.root / f"{split}.features.npz"

    @property
    def labels(self) -> Path:
        """Parquet: uid, name (for display), text (null where labels are opaque), trainable (bool)."""
        return self.root / "labels.parquet"

    @property
    def info(self) -> Path:
        """JSON: see haste.data.corpus.CorpusInfo."""
        return self.root / "corpus.json"


@dataclass(frozen=True)
class TokenDir:
    """`data/<dataset>/tokens/<tokenizer>-<max_len>`: ragged token ids, memory-mapped."""

    root: Path

    def ids(self, split: str) -> Path:
        """int32 .npy [T]: the tokens of all documents, one after the other, special tokens included."""
        return self.root / f"{split}.ids.npy"

    def weights(self, split: str) -> Path:
        """float32 .npy [T]: what each token counts; only where tokens are sparse features."""
        return self.root / f"{split}.weights.npy"

    def offsets(self, split: str) -> Path:
        """int64 .npy [N + 1]: document i is ids[offsets[i]:offsets[i + 1]]."""
        return self.root / f"{split}.offsets.npy"

    @property
    def vocabulary(self) -> Path:
        """int32 .npy: sorted ids of the non-special tokens that occur in training documents."""
        return self.root / "vocabulary.npy"

    @property
    def info(self) -> Path:
        """JSON: see haste.data.tokens.TokenInfo."""
        return self.root / "tokens.json"


@dataclass(frozen=True)
class RunDir:
    """`results/<grid>/runs/<dataset>/<method>/<variant>/seed<k>`: one run."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved RunConfig as YAML."""
        return self.root / "config.yaml"

    @property
    def history(self) -> Path:
        """CSV, one row an epoch: epoch, step, loss (mean a document), learning_rate, seconds (since the
        start), P@1, P@5, PSP@5 (validation, %, empty where not looked at), rewired (slots)."""
        return self.root / "history.csv"

    @property
    def metrics(self) -> Path:
        """JSON: see haste.metrics.metrics.evaluate."""
        return self.root / "metrics.json"

    @property
    def resources(self) -> Path:
        """JSON: see haste.resources.Meter.resources."""
        return self.root / "resources.json"

    @property
    def predictions(self) -> Path:
        """NPZ: ids int32 [N, k], scores float32 [N, k], best first; -1 where there are fewer than k."""
        return self.root / "predictions.npz"

    @property
    def model(self) -> Path:
        """Encoder and output layer, safetensors."""
        return self.root / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Folder with what is needed to go on; removed when the run ends."""
        return self.root / "checkpoint"


@dataclass(frozen=True)
class Layout:
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
