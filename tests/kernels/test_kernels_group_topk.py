"""The best labels of a group-shared layer are those of its logits."""

import pytest
import torch
import triton.language as tl
from kernel_problems import DEVICE, cast, problem

from haste.kernels import reference
from haste.kernels.triton import group_topk


@pytest.mark.parametrize(
    ("batch", "n_labels", "fan_in", "group_size", "k"),
    [
        (1, 1, 16, 16, 1),
        (5, 700, 16, 16, 7),
        (9, 530, 32, 32, 100),
        (3, 1000, 16, 128, 300),
        (35, 129, 16, 64, 129),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_topk_of_all_logits(batch, n_labels, fan_in, group_size, k, dtype, monkeypatch):
    # a batch in several launches, too
    monkeypatch.setattr(group_topk, "MAX_BATCH", 32)
    p = cast(problem(batch, 40, n_labels, fan_in, group_size), dtype)
    state = (p["features"], p["weight"], p["index"], p["bias"])
    scores, rows = group_topk.topk(*state, k, group_size=group_size)
    wide = [v.double() if v.is_floating_point() else v for v in state]
    logits = reference.linear(*wide, group_size=group_size)
    want = logits.topk(k).values
    assert torch.allclose(scores.double(), want, atol=1e-5, rtol=1e-5)
    assert torch.allclose(logits.gather(1, rows), want, atol=1e-5, rtol=1e-5)
    assert all(len(set(found)) == k for found in rows.tolist())


def test_of_blocks_of_features():
    random = torch.Generator().manual_seed(0)
    features, weight = torch.randn(4, 64, generator=random), torch.randn(90, 16, generator=random)
    blocks = torch.tensor([[0, 5], [3, 7], [1, 2], [4, 6], [0, 7], [2, 3]], dtype=torch.int32)
    columns = (blocks[:, :, None] * 8 + torch.arange(8)).flatten(1).int()
    x, weight, columns, blocks, bias = (
        value.to(DEVICE) for value in (features, weight, columns, blocks, torch.zeros(90))
    )
    whole = group_topk.topk(x, weight, columns, bias, 9, group_size=16)
    got = group_topk.topk(x, weight, blocks, bias, 9, group_size=16, block_size=8)
    for a, b in zip(got, whole, strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(DEVICE == "cuda", reason="memory that nobody touches is free on the host alone")
def test_maxima_of_a_billion_labels_lie_beyond_32_bits():
    width, size, groups = 2**31 - 16, 16, 3
    # of a byte each; of the columns of features only the first is there and read
    maxima = torch.empty((groups - 1) * width + size, dtype=torch.int8)
    maxima[-size:] = 0
    features, weight = torch.ones(1, size), torch.zeros(groups * size, size)
    index, bias = torch.zeros(groups, size, dtype=torch.int32), torch.arange(groups * size).float()
    group_topk._block_maxima[(1,)](
        features, weight, index, bias, maxima, len(bias), width, groups, groups, G=size, F=size,
        BLOCK_SIZE=1, BLOCK_B=size, NUM_TILES=1, GROUPS=1, DOT_DTYPE=tl.float32, PRECISION="ieee",
    )  # fmt: skip
    assert (maxima[-size:] == groups * size - 1).all()
