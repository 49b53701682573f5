"""Measures time and memory of ordering labels by their number, on generated embeddings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from haste.files import atomic, mapped_array
from haste.labels.embed import load_embeddings
from haste.labels.grouping import order_labels
from haste.labels.spec import OrderSpec
from haste.resources import Meter, machine

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 8_600_000)
"""up to that of LF-Paper2Keywords"""
BLOCK = 65_536
"""labels generated at once"""
LABELS_PER_TOPIC, LABELS_PER_THEME = 100, 2000
SPREAD = 0.8
"""length of the noise added to a centre of length 1, before scaling"""
HEAD_RATIO = 0.05


@dataclass(frozen=True)
class Measured:
    """A row of grouping.csv."""

    grouping: str
    labels: int
    group_size: int
    hidden: int
    """H: dimensions of an embedding"""
    seconds: float
    """of reading and checking the embeddings, splitting off the head, grouping and writing the order"""
    cpu_seconds: float
    """of all threads; not changed by other jobs on the machine"""
    peak_bytes: int
    """resident, including pages of the embeddings' file that are in memory"""
    cohesion: float
    cpu: str


def measure_grouping(
    groupings: Sequence[str], labels: Sequence[int], group_size: int, hidden: int, folder: Path
) -> pd.DataFrame:
    """A row for each number of labels and each grouping, see `Measured`.

    The embeddings take 2 L H bytes of `folder` while they are needed. Raises ConfigError for an
    unknown grouping or group size.
    """
    specs = [
        OrderSpec(name, HEAD_RATIO, group_size, "train", "none", 0)  # type: ignore[arg-type]  # it checks them
        for name in groupings
    ]
    rows = []
    for n_labels in labels:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            embeddings = Path(scratch) / "embeddings.npy"
            write_embeddings(embeddings, n_labels, hidden)
            rows += [_measure(spec, embeddings, n_labels, hidden) for spec in specs]
    return pd.DataFrame(rows)


def slopes(measured: pd.DataFrame) -> dict[str, float]:
    """By grouping: the exponent a of CPU seconds ~ L^a, by least squares over logarithms."""
    return {
        name: float(np.polyfit(np.log(rows["labels"]), np.log(rows["cpu_seconds"]), 1)[0])
        for name, rows in measured.groupby("grouping")
        if rows["labels"].nunique() > 1
    }


def write_embeddings(path: Path, n_labels: int, hidden: int, seed: int = 0) -> None:
    """Write float16 [L, H]: unit vectors near topics of Zipf-like sizes, which are near themes."""
    rng = np.random.default_rng(seed)
    themes = _unit(rng.standard_normal((max(8, n_labels // LABELS_PER_THEME), hidden), np.float32))
    n_topics = max(32, n_labels // LABELS_PER_TOPIC)
    topics = np.empty((n_topics, hidden), np.float16)
    for begin, end in _blocks(n_topics):
        topics[begin:end] = _around(rng, themes[rng.integers(len(themes), size=end - begin)])
    with atomic(path) as temporary:
        shape = (n_labels, hidden)
        out = mapped_array(temporary, np.float16, shape)
        for begin, end in _blocks(n_labels):
            # the square makes some topics large and most small
            chosen = (n_topics * rng.random(end - begin) ** 2).astype(np.int64)
            out[begin:end] = _around(rng, topics[chosen].astype(np.float32))
        out.flush()


def _measure(spec: OrderSpec, path: Path, n_labels: int, hidden: int) -> Measured:
    frequencies = np.random.default_rng(1).zipf(1.5, n_labels)
    meter = Meter("cpu")
    begin = time.process_time()
    with meter.phase("group"):
        order = order_labels(spec, load_embeddings(path, n_labels), frequencies)
        order.save(path.with_name("order.npz"))
    return Measured(
        grouping=spec.grouping,
        labels=n_labels,
        group_size=spec.group_size,
        hidden=hidden,
        seconds=round(meter.seconds["group"], 3),
        cpu_seconds=round(time.process_time() - begin, 3),
        peak_bytes=meter.peak_bytes["group"],
        cohesion=round(float(order.cohesion.mean()), 4),
        cpu=machine()["cpu"],
    )


def _around(rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
    noise = _unit(rng.standard_normal(centres.shape, np.float32))
    return _unit(centres + np.float32(SPREAD) * noise)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, n, BLOCK):
        yield begin, min(begin + BLOCK, n)
