"""Batches of few fixed shapes."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from haste.data.batches import Batch, collate
from haste.data.ragged import Ragged
from haste.encoders.base import SPARE
from haste.training.padding import ALIGNED, BatchShape, PaddedBatch, Padding

L = 9


def batch_of(lengths, positives):
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    tokens = Ragged(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets)
    dense = np.zeros((len(lengths), L), np.float32)
    for row, label in positives:
        dense[row % len(lengths), label] = 1
    return collate(tokens, sp.csr_matrix(dense), np.arange(len(lengths)))


@given(
    st.lists(st.integers(1, 12), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, L - 1)), max_size=8),
)
def test_what_is_packed_comes_back_and_the_rest_is_padding(lengths, positives):
    batch = batch_of(lengths, positives)
    shape = Padding(4, 40, 8, 12, L).shape_of(batch)
    got = shape.view(torch.from_numpy(shape.pack(batch, L)))
    assert got.longest == shape.length >= max(lengths)
    assert got.longest in (8, 12)
    assert got.offsets.tolist() == batch.offsets.tolist()
    assert got.ids[: len(batch.ids)].tolist() == batch.ids.tolist()
    pairs = len(batch.positives)
    assert got.positives.label_row[:pairs].tolist() == batch.positives.label_row.tolist()
    assert got.positives.doc[:pairs].tolist() == batch.positives.doc.tolist()
    assert set(got.positives.label_row[pairs:].tolist()) <= {L}


def test_parts_begin_at_even_addresses_and_do_not_overlap():
    shape = BatchShape(documents=33, length=7, pairs=50, tokens=231, of=33)
    parts = shape.parts()
    assert [part.start % ALIGNED for part in parts] == [0, 0, 0, 0]
    assert all(a.stop <= b.start for a, b in itertools.pairwise(parts))
    assert shape.size >= parts[-1].stop


def test_which_batches_have_no_shape():
    padding = Padding(4, 2, 8, 12, L)
    assert padding.shape_of(batch_of([3, 3, 3, 3], [(0, 1), (1, 1)])) is not None
    assert padding.shape_of(batch_of([3, 3, 3], [(0, 1)])) is None  # the last of an epoch
    assert padding.shape_of(batch_of([3, 3, 3, 3], [(0, 1), (1, 1), (2, 1)])) is None
    weighted = batch_of([3, 3, 3, 3], [])
    weighted = Batch(**{**vars(weighted), "weights": np.ones(12, np.float32)})
    assert padding.shape_of(weighted) is None


def test_packed_batches_are_padded_after_the_last_document():
    padding = Padding.of(sp.csr_matrix(np.ones((9, L))), 64, 12, L, packed=True)
    assert padding.multiple == 24  # two documents of 12
    batch = batch_of([5] * 64, [(0, 1)])
    shape = padding.shape_of(batch)
    assert (shape.tokens, shape.length) == (336, 12)  # of 320
    got = shape.view(torch.from_numpy(shape.pack(batch, L)))
    assert (len(got.ids), got.longest) == (336, 12)
    assert got.offsets.tolist() == batch.offsets.tolist()
    assert padding.shape_of(batch_of([4] * 64, [(0, 1)])).tokens == 264


@pytest.mark.parametrize(("batch_size", "documents"), [(1, 1), (64, 2), (128, 4), (10_000, SPARE)])
def test_padding_of_packed_batches_is_a_few_documents(batch_size, documents):
    labels = sp.csr_matrix(np.ones((9, L)))
    assert Padding.of(labels, batch_size, 12, L, packed=True).multiple == 12 * documents


def test_room_for_positives_follows_from_the_training_documents():
    counts = np.array([1, 3, 1, 3] * 100)
    labels = sp.csr_matrix(np.arange(L)[None, :] < counts[:, None], dtype=np.float32)
    padding = Padding.of(labels, batch_size=64, max_len=32, n_labels=L)
    mean, spread = 64 * 2, 6 * 1 * 8
    assert mean + spread <= padding.pairs <= mean + spread + 2 * ALIGNED
    assert padding.pairs % ALIGNED == 0
    assert (padding.multiple, padding.max_len, padding.pad_label) == (4, 32, L)
    assert Padding.of(labels, 64, 128, L).multiple == 16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_in_pinned_memory():
    padding = Padding(4, 40, 8, 12, L)
    padded = padding.pinned(batch_of([3, 4, 5, 6], [(0, 1)]))
    assert isinstance(padded, PaddedBatch)
    assert padded.flat.is_pinned()
    assert padded.size == 4
    left = padding.pinned(batch_of([3, 4], [(0, 1)]))
    assert isinstance(left, Batch)
    assert left.ids.is_pinned()
