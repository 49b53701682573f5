import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.data.labelspace import LabelSpace, reciprocal_pairs
from haste.data.ragged import Ragged

UIDS = "abcdef"


def ragged(rows, dtype=np.int64):
    return Ragged.of([np.array(row, dtype) for row in rows])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_columns_of_label_ids(dtype):
    rows = {"train": [[5, 1, 5], []], "validation": [[]], "test": [[0, 5], [4, 3]]}
    labels = {split: ragged(ids, dtype) for split, ids in rows.items()}
    space = LabelSpace.of(labels, 7)
    assert space.ids.tolist() == [1, 5, 0, 3, 4]
    assert space.n_labels == 2
    matrix = space.positives(labels["train"])
    assert matrix.toarray().tolist() == [[1, 1, 0, 0, 0], [0] * 5]
    assert matrix.has_sorted_indices
    assert (matrix.indices.dtype, matrix.dtype) == (np.int32, np.float32)
    assert space.positives(labels["test"]).toarray().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]


def pairs_of(graph, parts):
    """The reciprocal pairs of the test documents, as uids."""
    ids = {
        split: ragged([[UIDS.index(label) for label in graph[uid]] for uid in uids])
        for split, uids in parts.items()
    }
    space = LabelSpace.of(ids, len(UIDS))
    label_uids = [UIDS[label] for label in space.ids]
    test, train = (space.positives(ids[split]) for split in ("test", "train"))
    pairs = reciprocal_pairs(parts["test"], test, parts["train"], train, label_uids).tocoo()
    return {(parts["test"][i], label_uids[j]) for i, j in zip(pairs.row, pairs.col, strict=True)}


def test_a_document_that_is_no_label_has_no_reciprocal_pair():
    # f is no column: looked up as -1, its pair must not fall on the last label of the row before
    graph = {"a": "be", "b": "e", "f": "b"}
    parts = {"train": ["a", "b"], "validation": [], "test": ["f"]}
    assert pairs_of(graph, parts) == set()


graphs = st.dictionaries(st.sampled_from(UIDS), st.sets(st.sampled_from(UIDS)), min_size=2)


@given(graphs, st.sets(st.sampled_from(UIDS), min_size=1))
def test_reciprocal_pairs_equal_a_naive_loop(graph, train):
    parts = {
        "train": [uid for uid in sorted(graph) if uid in train],
        "validation": [],
        "test": [uid for uid in sorted(graph) if uid not in train],
    }
    assert pairs_of(graph, parts) == {
        (uid, label)
        for uid in parts["test"]
        for label in graph[uid]
        if label in train and uid in graph.get(label, ())
    }
