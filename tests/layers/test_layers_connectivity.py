import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from haste.errors import KernelError
from haste.layers import connectivity as c


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def repeats(index):
    ordered = index.sort(dim=1).values
    return int((ordered[:, 1:] == ordered[:, :-1]).sum())


def check_sets(index, n):
    assert 0 <= int(index.min()) <= int(index.max()) < n
    assert repeats(index) == 0


@given(groups=st.integers(1, 30), count=st.integers(1, 24), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_drawn_rows_are_sorted_sets(groups, count, seed):
    index = c.sample_indices(groups, count, 24, seeded(seed))
    assert index.shape == (groups, count)
    assert index.dtype == torch.int32
    assert (index[:, 1:] > index[:, :-1]).all()
    check_sets(index, 24)


def test_every_feature_is_drawn_about_as_often():
    counts = torch.bincount(c.sample_indices(3000, 8, 32, seeded()).flatten(), minlength=32)
    assert counts.min() > 0.85 * 750
    assert counts.max() < 1.15 * 750


def test_with_replacement_repeats_as_often_as_chance():
    # the released code's pattern: F=64 of 384, 8% of indices are repeats
    index = c.sample_indices(2000, 64, 384, seeded(), with_replacement=True)
    assert repeats(index) / index.numel() == pytest.approx(0.08, abs=0.01)


def test_too_many_slots_are_refused():
    with pytest.raises(
        KernelError, match="fan-in: 65 indices do not fit in 64 choices; lower fan_in"
    ):
        c.sample_indices(3, 65, 64, seeded())


def test_weakest_by_hand():
    score = torch.tensor([[5.0, 1.0, 4.0, 9.0], [0.5, 0.1, 7.0, 8.0]])
    assert c.prune_mask(score, 0.4, "global").tolist() == [
        [False, True, False, False],
        [True, True, False, False],
    ]
    assert c.prune_mask(score, 0.5, "group").tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]


@given(
    groups=st.integers(1, 12),
    count=st.integers(1, 16),
    extra=st.integers(0, 16),
    share=st.floats(0, 1),
    by_preference=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_regrowth_keeps_sets_and_moves_only_pruned_slots(
    groups, count, extra, share, by_preference, seed
):
    random = seeded(seed)
    n = count + extra
    index = c.sample_indices(groups, count, n, random)
    before = index.clone()
    pruned = torch.rand(groups, count, generator=random) < share
    preference = torch.rand(groups, n, generator=random) if by_preference else None
    c.regrow_(index, pruned, n, random, preference=preference)
    check_sets(index, n)
    assert torch.equal(index[~pruned], before[~pruned])
    # a pruned feature comes back only where too few others are left
    for row in range(groups):
        lost = int(pruned[row].sum())
        back = set(index[row][pruned[row]].tolist()) & set(before[row].tolist())
        assert len(back) == max(0, lost - extra)


def test_preference_picks_the_largest():
    index = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    pruned = torch.tensor([[True, False, True]])
    preference = torch.tensor([[9.0, 9.0, 9.0, 0.1, 0.4, 0.3]])
    c.regrow_(index, pruned, 6, seeded(), preference=preference)
    assert index[0, 1] == 1
    assert set(index[0, [0, 2]].tolist()) == {4, 5}


def test_random_regrowth_is_uniform():
    index = torch.arange(2, dtype=torch.int32).repeat(4000, 1)
    pruned = torch.tensor([[True, False]]).repeat(4000, 1)
    c.regrow_(index, pruned, 10, seeded())
    counts = torch.bincount(index[:, 0], minlength=10)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2:].min() > 400
    assert counts[2:].max() < 600


def test_blocks_do_not_change_the_invariants(monkeypatch):
    monkeypatch.setattr(c, "_BLOCK_ELEMENTS", 40)
    index = c.sample_indices(23, 5, 20, seeded())
    check_sets(index, 20)
    pruned = torch.ones_like(index, dtype=torch.bool)
    before = index.clone()
    c.regrow_(index, pruned, 20, seeded(1))
    check_sets(index, 20)
    assert not torch.equal(index, before)
