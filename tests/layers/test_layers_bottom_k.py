import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haste.layers.connectivity import StreamingBottomK, bottom_k_mask


def blocks_of(values, size):
    return lambda: iter(values.split(size))


@given(
    # few different values, so that there are ties, over many orders of magnitude
    values=st.lists(
        st.sampled_from([0.0, 1e-40, 1e-7, 0.5, 0.50000006, 1.0, 3.0, 3e38]),
        min_size=1,
        max_size=40,
    ),
    share=st.floats(0, 1),
    size=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_takes_the_lowest_and_of_equal_ones_the_first(values, share, size):
    values = torch.tensor(values)
    count = int(share * len(values))
    cut = StreamingBottomK(blocks_of(values, size), count)
    got = torch.cat([cut.take(block) for block in values.split(size)])
    order = torch.sort(values, stable=True).indices[:count]
    want = torch.zeros(len(values), dtype=torch.bool)
    want[order] = True
    assert torch.equal(got, want)


def test_without_ties_it_takes_what_topk_takes():
    values = torch.rand(2000, 16, generator=torch.Generator().manual_seed(0))
    cut = StreamingBottomK(blocks_of(values, 300), 6400)
    got = torch.cat([cut.take(block) for block in values.split(300)])
    assert torch.equal(got, bottom_k_mask(values, 6400))


def test_shapes_and_strides_of_blocks_do_not_matter():
    values = torch.arange(24.0).view(4, 6).t()
    cut = StreamingBottomK(lambda: [values], 5)
    assert sorted(values[cut.take(values)].tolist()) == [0, 1, 2, 3, 4]


def test_nothing_to_take():
    values = torch.zeros(3)
    assert not StreamingBottomK(blocks_of(values, 2), 0).take(values).any()
    assert StreamingBottomK(blocks_of(values, 2), 3).take(values).all()
