import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from haste.data.batches import WINDOW, EpochBatches, batch_positives, collate
from haste.data.ragged import Ragged
from haste.errors import ConfigError, DataError


def ragged(rows, dtype=np.int32):
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Ragged(np.array([x for row in rows for x in row], dtype=dtype), offsets)


def csr(rows, n_labels):
    """A CSR that keeps duplicates, as a careless reader might write it."""
    lists = ragged(rows)
    data = np.ones(len(lists.values), dtype=np.float32)
    return sp.csr_matrix((data, lists.values, lists.offsets), shape=(len(rows), n_labels))


@st.composite
def problems(draw):
    n_labels = draw(st.integers(1, 12))
    label_rows = draw(
        st.lists(st.lists(st.integers(0, n_labels - 1), max_size=5), min_size=1, max_size=9)
    )
    rows = draw(st.lists(st.integers(0, len(label_rows) - 1), max_size=7))
    row_of_label = draw(st.none() | st.permutations(range(n_labels)))
    return n_labels, label_rows, rows, row_of_label


@given(problems())
def test_positives_equal_a_naive_loop(problem):
    n_labels, label_rows, rows, row_of_label = problem
    expected = sorted(
        {
            (label if row_of_label is None else row_of_label[label], place)
            for place, row in enumerate(rows)
            for label in label_rows[row]
        }
    )
    positives = batch_positives(
        csr(label_rows, n_labels),
        np.array(rows, dtype=np.int64),
        None if row_of_label is None else np.array(row_of_label, dtype=np.int32),
    )
    assert list(zip(positives.label_row.tolist(), positives.doc.tolist(), strict=True)) == expected
    assert positives.label_row.dtype == positives.doc.dtype == np.int32


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=8),
    st.data(),
)
def test_take_equals_a_naive_loop(rows, data):
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    taken = ragged(rows).take(np.array(wanted, dtype=np.int64))
    assert [taken[i].tolist() for i in range(len(taken))] == [rows[i] for i in wanted]
    assert taken.offsets.dtype == np.int64


def test_batch_by_hand():
    tokens = ragged([[1, 5, 2], [1, 2], [1, 7, 8, 2]])
    labels = csr([[3, 0], [1, 1], [0, 2]], 4)
    row_of_label = np.array([2, 0, 3, 1], dtype=np.int32)
    batch = collate(tokens, labels, np.array([2, 0]), row_of_label)
    assert batch.size == 2
    assert batch.ids.tolist() == [1, 7, 8, 2, 1, 5, 2]
    assert batch.offsets.tolist() == [0, 4, 7]
    assert batch.positives.label_row.tolist() == [1, 2, 2, 3]
    assert batch.positives.doc.tolist() == [1, 0, 1, 0]


def test_weights_go_with_their_tokens():
    weights = np.arange(9, dtype=np.float32)
    rows = ragged([[1, 5, 2], [1, 2], [1, 7, 8, 2]])
    tokens = Ragged(rows.values, rows.offsets, weights)
    batch = collate(tokens, None, np.array([2, 0]))
    assert batch.weights.tolist() == [5, 6, 7, 8, 0, 1, 2]
    assert collate(rows, None, np.array([2, 0])).weights is None


def test_duplicated_label_counts_once():
    assert len(batch_positives(csr([[1, 1, 1]], 2), np.array([0]))) == 1


def test_to_torch_keeps_values_and_dtypes():
    torch = pytest.importorskip("torch")
    tokens, labels = ragged([[1, 2]]), csr([[1]], 2)
    batch = collate(tokens, labels, np.array([0])).to_torch()
    assert batch.ids.dtype == torch.int32
    assert batch.offsets.dtype == torch.int64
    assert batch.positives.label_row.tolist() == [1]
    assert batch.size == 1
    without = collate(tokens, None, np.array([0])).to_torch()
    assert without.positives is None
    with pytest.raises(DataError, match="positives"):
        _ = without.targets
    assert batch.weights is None
    weighted = Ragged(tokens.values, tokens.offsets, np.array([0.5, 2], np.float32))
    assert collate(weighted, labels, np.array([0])).to_torch().weights.tolist() == [0.5, 2]


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_every_document_once_an_epoch(n, batch_size, seed, epoch):
    batches = EpochBatches(n, batch_size, seed)
    steps = list(batches.rows(epoch))
    assert len(steps) == len(batches)
    assert sorted(np.concatenate(steps).tolist()) == list(range(n))
    assert all(len(step) == batch_size for step in steps[:-1])


def test_order_depends_on_seed_and_epoch_only():
    batches = EpochBatches(100, 8, seed=3)
    np.testing.assert_array_equal(batches.order(4), EpochBatches(100, 32, seed=3).order(4))
    assert (batches.order(4) != batches.order(5)).any()
    assert (batches.order(4) != EpochBatches(100, 8, seed=4).order(4)).any()
    # seed and epoch are not simply added
    assert (batches.order(4) != EpochBatches(100, 8, seed=4).order(3)).any()


def test_resuming_gives_the_same_steps():
    batches = EpochBatches(20, 6, seed=0)
    whole, rest = list(batches.rows(2)), list(batches.rows(2, start=2))
    np.testing.assert_array_equal(np.concatenate(whole[2:]), np.concatenate(rest))


@pytest.mark.parametrize(
    ("n", "batch_size", "text"), [(0, 4, "0 documents"), (4, 0, "batch_size is 0")]
)
def test_impossible_batches_are_refused(n, batch_size, text):
    with pytest.raises(ConfigError, match=text):
        EpochBatches(n, batch_size, seed=0)


def test_batches_by_length_waste_little_and_are_the_same_documents():
    random = np.random.default_rng(0)
    lengths = random.integers(4, 129, 1000)
    plain, sorted_ = EpochBatches(1000, 16, 7), EpochBatches(1000, 16, 7, lengths)
    for epoch in (0, 1):
        rows = list(sorted_.rows(epoch))
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(1000))
        assert [len(each) for each in rows] == [16] * 62 + [8]
        # the last, smaller one is that of the permutation
        np.testing.assert_array_equal(rows[-1], plain.order(epoch)[-8:])
        computed = sum(len(each) * lengths[each].max() for each in rows)
        without = sum(len(each) * lengths[each].max() for each in plain.rows(epoch))
        assert computed < 1.06 * lengths.sum()
        assert without > 1.7 * lengths.sum()
        # long and short ones come in any order
        means = np.array([lengths[each].mean() for each in rows[:-1]])
        assert abs(np.corrcoef(means, np.arange(62))[0, 1]) < 0.5
    assert not np.array_equal(sorted_.order(0), sorted_.order(1))
    np.testing.assert_array_equal(next(sorted_.rows(0, 5)), list(sorted_.rows(0))[5])


def test_a_window_of_the_permutation_is_sorted_not_all_of_it():
    n = 3 * WINDOW * 4
    lengths = np.arange(n)
    plain, sorted_ = EpochBatches(n, 4, 0), EpochBatches(n, 4, 0, lengths)
    for window in range(3):
        part = slice(window * WINDOW * 4, (window + 1) * WINDOW * 4)
        np.testing.assert_array_equal(
            np.sort(sorted_.order(0)[part]), np.sort(plain.order(0)[part])
        )


def test_the_longest_document_of_a_batch_is_known():
    tokens = Ragged.of([np.zeros(n, np.int32) for n in (3, 9, 5)])
    assert collate(tokens, None, np.array([0, 2])).longest == 5
    assert collate(tokens, None, np.array([0, 2])).to_torch().to(torch.device("cpu")).longest == 5
