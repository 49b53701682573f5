import pytest
import torch

from haste.errors import KernelError
from haste.kernels.topk import topk


@pytest.mark.parametrize("tile", [1, 7, 40, 1000])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_equals_topk_of_all(tile, k):
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(k))
    seen = []

    def part(rows):
        seen.append(rows.stop - rows.start)
        return logits[:, rows]

    scores, rows = topk(part, 40, k, tile)
    want = logits.topk(k)
    assert torch.equal(scores, want.values)
    assert torch.equal(rows, want.indices)
    assert max(seen) <= max(tile, k)


def test_fewer_labels_than_asked_for():
    logits = torch.tensor([[1.0, 3.0]])
    scores, rows = topk(lambda at: logits[:, at], 2, 4, 10)
    assert rows.tolist() == [[1, 0, -1, -1]]
    assert scores[0, 2:].tolist() == [-torch.inf, -torch.inf]


def test_refuses_no_labels():
    with pytest.raises(KernelError, match="k: 0 is not allowed"):
        topk(lambda at: torch.zeros(1, 2)[:, at], 2, 0, 10)
