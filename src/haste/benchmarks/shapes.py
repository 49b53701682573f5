"""The problems that kernels are timed on: the output layers of the paper's data sets, and sweeps."""

from __future__ import annotations

from dataclasses import dataclass, replace

GATE_LABELS = 4096
"""labels, about, of the problem on which a kernel is judged before it is timed"""
GATE_HEAD = 512


@dataclass(frozen=True)
class Shape:
    """One output layer: a sparse tail and the dense head beside it."""

    name: str
    batch: int
    features: int
    """H: that the tail's labels choose from"""
    labels: int
    """L: of the tail"""
    fan_in: int
    group_size: int
    head: int = 0
    """labels of the head"""
    positives: int = 5
    """a document"""
    momentum: float = 0.0
    """with which the data set is trained"""
    encoder: int = 768
    """features of the encoder: what a dense layer reads; 768 for the size of BERT"""

    @property
    def total(self) -> int:
        """Labels of head and tail."""
        return self.head + self.labels

    def small(self) -> Shape:
        """The problem to judge a kernel by: few labels, all else alike.

        Triton compiles by whether 16 divides a number of labels or groups, so that is kept: what is
        judged is the binary that is timed.
        """
        even = self.labels % (16 * self.group_size) == 0
        labels = GATE_LABELS if even else GATE_LABELS + 32 + self.labels % 16
        return replace(
            self,
            labels=min(self.labels, labels),
            head=min(self.head, GATE_HEAD + self.head % 16),
        )


_AMAZON_3M = Shape("amazon3m", 128, 768, 2_756_032, 128, 64, 56_249, 36, 0.9)

SHAPES = (
    Shape("amazon670k", 64, 384, 603_072, 64, 16, 67_019, 5, 0.9),
    Shape("amazontitles670k", 256, 384, 603_072, 128, 16, 67_019),
    _AMAZON_3M,
    replace(_AMAZON_3M, name="amazon3m-g32", group_size=32),
    Shape("lfpaper2keywords", 128, 384, 8_192_640, 64, 32, 431_207, 9),
)
"""the tails of the paper's data sets with the released hyper-parameters; Amazon-3M with G=32 too, the
largest group that the released kernels run there"""

SWEEP = Shape("sweep", 128, 768, 524_288, 64, 32)
"""the problem around which fan-in, group size and batch are varied"""
SWEEP_BATCHES = (16, 32, 64, 256, 512)
SWEEP_FAN_INS = (16, 32, 128, 256)
SWEEP_GROUP_SIZES = (16, 64, 128)


def sweep_shapes() -> list[Shape]:
    """`SWEEP`, and all that differ from it in one number."""
    return [
        SWEEP,
        *(replace(SWEEP, name=f"sweep-fan-in-{n}", fan_in=n) for n in SWEEP_FAN_INS),
        *(replace(SWEEP, name=f"sweep-batch-{n}", batch=n) for n in SWEEP_BATCHES),
        *(replace(SWEEP, name=f"sweep-group-size-{n}", group_size=n) for n in SWEEP_GROUP_SIZES),
    ]
