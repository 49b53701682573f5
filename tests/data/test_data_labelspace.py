import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.data.labelspace import (
    Document,
    arrange_columns,
    label_space,
    positives_matrix,
    reciprocal_pairs,
)

UIDS = "abcdef"


def test_label_space_by_hand():
    documents = {
        "train": [Document("x", "", ("b", "a")), Document("y", "", ("d", "b"))],
        "validation": [Document("v", "", ("c", "a"))],
        "test": [Document("t", "", ("A", "d"))],
    }
    space = label_space(documents)
    assert space.uids == ("a", "b", "d", "A", "c")
    assert space.n_labels == 3
    matrix = positives_matrix(documents["train"], space)
    assert matrix.toarray().tolist() == [[1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert matrix.has_sorted_indices
    assert (matrix.indices.dtype, matrix.dtype) == (np.int32, np.float32)
    assert positives_matrix(documents["test"], space).toarray().tolist() == [[0, 0, 1, 1, 0]]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_columns_of_label_ids(dtype):
    values = {"train": [5, 1, 5], "validation": [], "test": [0, 5, 4, 3]}
    ids, n_labels = arrange_columns({s: np.array(v, dtype) for s, v in values.items()}, 7)
    assert ids.tolist() == [1, 5, 0, 3, 4]
    assert n_labels == 2


def test_a_document_that_is_no_label_has_no_reciprocal_pair():
    # t is no column: looked up as -1, its pair must not fall on the last label of the row before
    train = [Document("a", "", ("b", "z")), Document("b", "", ("z",))]
    test = [Document("t", "", ("b",))]
    space = label_space({"train": train, "validation": [], "test": test})
    matrices = [positives_matrix(rows, space) for rows in (test, train)]
    assert reciprocal_pairs(["t"], matrices[0], ["a", "b"], matrices[1], space.uids).nnz == 0


graphs = st.dictionaries(st.sampled_from(UIDS), st.sets(st.sampled_from(UIDS)), min_size=2)


@given(graphs, st.sets(st.sampled_from(UIDS), min_size=1))
def test_reciprocal_pairs_equal_a_naive_loop(graph, train):
    documents = [Document(uid, "", tuple(labels)) for uid, labels in sorted(graph.items())]
    parts = {
        "train": [d for d in documents if d.uid in train],
        "validation": [],
        "test": [d for d in documents if d.uid not in train],
    }
    space = label_space(parts)
    matrices = {split: positives_matrix(rows, space) for split, rows in parts.items()}
    found = reciprocal_pairs(
        [d.uid for d in parts["test"]],
        matrices["test"],
        [d.uid for d in parts["train"]],
        matrices["train"],
        space.uids,
    ).tocoo()
    pairs = {
        (parts["test"][i].uid, space.uids[j]) for i, j in zip(found.row, found.col, strict=True)
    }
    assert pairs == {
        (d.uid, label)
        for d in parts["test"]
        for label in d.labels
        if label in train and d.uid in graph.get(label, ())
    }
