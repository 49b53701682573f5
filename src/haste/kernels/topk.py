"""The k best labels of each document over tiles of labels, without a tensor of size B x L."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from haste.kernels.checks import check_count
from haste.kernels.state import tiles


def topk(
    logits: Callable[[slice], Tensor], n_labels: int, k: int, labels_per_chunk: int
) -> tuple[Tensor, Tensor]:
    """Scores fp32 [B, k] and rows int64 [B, k] of the k largest logits, best first.

    `logits(rows)` returns [B, n] for a slice of n label rows. With fewer than k labels, the missing rows
    are -1 with score -inf. Raises KernelError for counts below 1.
    """
    k = check_count("k", k)
    labels_per_chunk = check_count("labels_per_chunk", labels_per_chunk)
    n_labels = check_count("n_labels", n_labels)
    best: tuple[Tensor, Tensor] | None = None
    for rows in tiles(n_labels, max(labels_per_chunk, k)):
        scores, label_rows = logits(rows).float().topk(min(k, rows.stop - rows.start), dim=1)
        label_rows = label_rows + rows.start
        if best is not None:
            scores = torch.cat([best[0], scores], dim=1)
            label_rows = torch.cat([best[1], label_rows], dim=1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            label_rows = label_rows.gather(1, order)
        best = scores, label_rows
    assert best is not None, "n_labels is at least 1"
    best_scores, best_rows = best
    missing = k - best_scores.shape[1]
    if missing:
        best_scores = torch.nn.functional.pad(best_scores, (0, missing), value=-torch.inf)
        best_rows = torch.nn.functional.pad(best_rows, (0, missing), value=-1)
    return best_scores, best_rows
