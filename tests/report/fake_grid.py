"""A grid of made-up but coherent files: a corpus, orders, and runs whose metrics follow from their predictions."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import yaml

from haste.files import read_csr, write_json, write_npz, write_yaml
from haste.grid import GridConfig, RunKey
from haste.labels.frequency import count_labels
from haste.labels.order import LabelOrder
from haste.labels.spec import OrderSpec
from haste.metrics.deciles import decile_rows
from haste.metrics.metrics import METRICS, per_document
from haste.metrics.propensity import inverse_propensity
from haste.paths import CorpusDir, RunDir
from haste.presets import method
from haste.report.load import Sources, build
from haste.report.published import Published, load_published
from haste.report.registry import Entry, entry, order_path
from haste.report.render import Table
from haste.report.style import write_figure
from small_corpus import write_small_corpus

GIB = 2**30
PUBLISHED = load_published(Path(__file__).parents[2] / "src/haste/report/published.csv")


def load(
    grid: GridConfig,
    name: str,
    kind: str = "table",
    published: Published = PUBLISHED,
) -> tuple[Entry, Sources]:
    """A table or figure and what it is made from."""
    chosen = entry(kind, name, grid)
    return chosen, Sources.load(grid, chosen.inputs_of(grid), published)


def make(grid: GridConfig, name: str) -> Table:
    """A table of the grid."""
    chosen, sources = load(grid, name)
    return build(chosen, sources)


def draw(grid: GridConfig, name: str, prefix: Path) -> list[Path]:
    """Draw a figure of the grid; returns the paths of csv, pdf and png."""
    return write_figure(prefix, lambda: build(*load(grid, name, "figure")))


@dataclass
class FakeGrid:
    """What the files say; `write` makes them below `root`."""

    root: Path
    methods: tuple[str, ...] = ("dense", "spartex", "block-sparse", "haste", "omikuji")
    ablations: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    ablation_seeds: tuple[int, ...] = (0,)
    datasets: tuple[str, ...] = ("tiny",)
    epochs: int = 20
    hit_rate: Mapping[str, float] = field(default_factory=dict)
    """by "method" or "method/variant": how likely each of the first predictions is right"""
    rising: tuple[str, ...] = ()
    """methods whose precision on validation still rises at the end"""
    device: str = "CPU (test)"
    resources: Mapping[str, Mapping] = field(default_factory=dict)
    """by method: what differs in resources.json"""
    documents: int = 300
    labels: int = 320
    tuning: Mapping | None = None
    overrides: Mapping = field(default_factory=dict)

    @property
    def config(self) -> dict:
        return {
            "name": "fake",
            "datasets": list(self.datasets),
            "methods": list(self.methods),
            "ablations": list(self.ablations),
            "seeds": list(self.seeds),
            "ablation_seeds": list(self.ablation_seeds),
            "data_dir": str(self.root / "data"),
            "results_dir": str(self.root / "results"),
            "training": {"epochs": self.epochs},
            "overrides": dict(self.overrides),
            **({"tuning": dict(self.tuning)} if self.tuning else {}),
        }

    @property
    def file(self) -> Path:
        return self.root / "config.yaml"

    @property
    def grid(self) -> GridConfig:
        return GridConfig.from_dict(self.config)

    def write(self) -> GridConfig:
        self.root.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(self.config))
        for dataset in self.datasets:
            self.write_corpus(dataset)
        for key in self.grid.all_runs():
            self.write_run(key)
        return self.grid

    def write_corpus(self, dataset: str) -> None:
        rng = np.random.default_rng(zlib.crc32(dataset.encode()))
        weights = 1.0 / np.arange(1, self.labels + 1)
        weights /= weights.sum()
        sizes = {"train": 2 * self.documents, "validation": 20, "test": self.documents}
        positives = {}
        for split, rows in sizes.items():
            matrix = np.zeros((rows, self.labels + 5), np.float32)
            for row in matrix:
                row[rng.choice(self.labels, 4, replace=False, p=weights)] = 1
            if split == "train":
                # every label occurs
                matrix[np.arange(self.labels) % rows, np.arange(self.labels)] = 1
            else:
                matrix[::7, self.labels] = 1
            positives[split] = sp.csr_matrix(matrix)
        reciprocal = {
            s: sp.csr_matrix(positives[s].multiply(rng.random(positives[s].shape) < 0.4))
            for s in ("validation", "test")
        }
        for matrix in reciprocal.values():
            matrix.eliminate_zeros()
        write_small_corpus(
            self.grid.layout.corpus(dataset).root,
            positives,
            reciprocal=reciprocal,
            names=[f"l{i}" for i in range(self.labels + 5)],
            dataset=dataset,
            max_len=32,
            licence="a licence",
        )

    def write_order(self, dataset: str, grouping: str, cohesion: np.ndarray | None = None) -> Path:
        path = order_path(self.grid, dataset, grouping)
        spec = OrderSpec.parse(path.parent.name)
        head = 32
        groups = -(-(self.labels - head) // spec.group_size)
        if cohesion is None:
            rng = np.random.default_rng(len(grouping))
            cohesion = np.clip(rng.normal(0.4 + 0.03 * len(grouping), 0.08, groups), 0, 1)
        order = LabelOrder(
            np.arange(self.labels, dtype=np.int32),
            head,
            spec.group_size,
            np.asarray(cohesion, np.float32),
        )
        order.save(path)
        return path

    def run_dir(self, key: RunKey) -> RunDir:
        return self.grid.layout.run(key.dataset, key.method, key.variant, key.seed)

    def write_run(self, key: RunKey) -> RunDir:
        files = self.run_dir(key)
        files.root.mkdir(parents=True, exist_ok=True)
        trained = method(key.method).kind == "trained"
        epochs = self.tuning["epochs"] if key.is_trial else self.epochs
        config = self.grid.resolve(key).as_dict()
        if not trained:
            # as `haste configure` writes one of a linear method
            names = {"dataset": key.dataset, "method": key.method, "variant": key.variant}
            config = {**names, "seed": key.seed, "inputs": {"corpus": "x"}}
        write_yaml(files.config, config)

        corpus = self.grid.layout.corpus(key.dataset)
        ids, metrics = self.predict(key, corpus, "validation" if key.is_trial else "test")
        write_npz(
            files.predictions,
            ids=ids,
            scores=np.tile(-np.arange(ids.shape[1], dtype=np.float32), (len(ids), 1)),
        )
        write_json(files.metrics, metrics)
        resources = {
            "device": self.device,
            "machine": {},
            "threads": 1,
            "parameters": 1000 * (1 + len(key.method)),
            "layer_bytes": 2**20 * len(key.method),
            "state_bytes": 2**21 * len(key.method) if trained else 0,
            "peak_bytes": {"train": GIB, "evaluate": GIB // 2},
            "seconds": {"setup": 1.0, "train": 40.0, "evaluate": 2.0, "epoch": 2.0 + key.seed},
            "steps": 100,
            "completed": True,
        }
        write_json(files.resources, resources | dict(self.resources.get(key.method, {})))
        if trained:
            self.write_history(files, key, epochs)
        return files

    def write_history(self, files: RunDir, key: RunKey, epochs: int) -> None:
        lines = ["epoch,step,loss,learning_rate,seconds,P@1,P@5,PSP@5,rewired"]
        late = 1.0 if key.method in self.rising else 0.0
        for i in range(epochs):
            loss = 10.0 + key.seed + 90.0 * 0.3**i
            precision = 50 * (1 - 0.5**i) + late * i + len(key.method) + key.seed
            lines.append(f"{i + 1},{10 * (i + 1)},{loss!r},0.01,{2 * i},{precision},20,10,0")
        files.history.write_text("\n".join(lines) + "\n")

    def predict(
        self, key: RunKey, corpus: CorpusDir, split: str = "test"
    ) -> tuple[np.ndarray, dict]:
        truth = read_csr(corpus.positives(split))
        counts = count_labels(read_csr(corpus.positives("train")))
        rate = self.hit_rate.get(f"{key.method}/{key.variant}", self.hit_rate.get(key.method, 0.5))
        rng = np.random.default_rng(zlib.crc32(f"{key.method} {key.seed}".encode()))
        ids = np.full((truth.shape[0], 100), -1, np.int32)
        for i in range(truth.shape[0]):
            right = set(truth.indices[truth.indptr[i] : truth.indptr[i + 1]].tolist())
            right = [j for j in sorted(right) if j < self.labels]
            wrong = [int(j) for j in rng.permutation(self.labels) if j not in set(right)]
            chosen: list[int] = []
            for draw in rng.random(min(100, len(right) + len(wrong))):
                take_right = right and ((draw < rate and len(chosen) < 8) or not wrong)
                chosen.append(right.pop(0) if take_right else wrong.pop())
            ids[i, : len(chosen)] = chosen
        weights = inverse_propensity(counts, 2 * self.documents, 0.55, 1.5)
        values = {name: float(per_document(name, ids, truth, weights).mean()) for name in METRICS}
        metrics = {
            "metrics": values,
            "without_reciprocal_pairs": {f"P@{k}": values[f"P@{k}"] / 2 for k in (1, 3, 5)},
            "deciles": decile_rows(ids, truth, counts, (1, 3, 5)),
            "backend": "by hand 1.0",
            "documents": len(ids),
            "k": 100,
        }
        return ids, metrics
