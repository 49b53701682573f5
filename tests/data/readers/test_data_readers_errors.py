"""Damaged files of each layout, one thing wrong at a time: the error names the place and what was expected."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import FEATURES, FILES, FILTERS, TEST, npz, ones, read, write

from haste.data.readers import detect
from haste.errors import DataError

JSON, PECOS, ATTENTION = FILES["JSON lines"], FILES["PECOS"], FILES["AttentionXML"]
TEXT, LIBSVM = FILES["XMC repository, text"], FILES["libsvm"]
SPARSE, TFIDF = FILES["XMC repository, features"], FILES["PECOS, features only"]


BAD_OBJECTS = {
    "{": r"trn\.json: line 2: expected a JSON object \(.*\), found '\{'",
    "[1]": r"line 2: expected a JSON object, found '\[1\]'",
    "[" * 10_000: "line 2: expected a JSON object",
    '{"title": "a"}': "target_ind: a list of whole numbers, found 'None'",
    '{"title": "a", "target_ind": [0.5]}': r"numbers, found '\[0\.5\]'",
    '{"title": "a", "target_ind": [true]}': r"found '\[True\]'",
    '{"title": "a", "target_ind": [0, 4]}': "labels from 0 to 3, found '4'.* count from 1?",
    '{"title": "a", "target_ind": [-1]}': "labels from 0 to 3, found '-1'",
    f'{{"title": "a", "target_ind": [{10**20}]}}': "line 2: expected labels from 0 to 3",
    '{"target_ind": []}': "line 2: expected title: a text, found 'None'",
    '{"title": 1, "target_ind": []}': "title: a text, found '1'",
    '{"title": "", "content": null, "target_ind": []}': "content: a text, found 'None'",
    '{"title": "\\ud800", "target_ind": []}': "line 2: expected title: a text of whole characters",
}
"""the second line of trn.json -> what is said"""
BAD_ROWS = {
    b"1": "line 3: expected id:value .* found '1'",
    b"1:nan": "line 3: expected id:value",
    b"1_0:1": "line 3: expected id:value",
    b"1:1e39": "line 3: expected id:value",
    b"\xb2:1": "line 3, byte 1: 0xb2 is not ascii",
    b"1:1_0": "line 3: expected id:value .* found '1:1_0'",
    b"1:-1": "line 3: .* not negative, found '1:-1'",
    b"4:1": "found '4:1'.* count from 1?",
}
"""the third line of tst_X_Y.txt -> what is said"""


@pytest.mark.parametrize(
    ("files", "changed", "text"),
    [
        *(
            (JSON, {"trn.json": f'{{"title": "a", "target_ind": [0]}}\n{line}\n'.encode()}, text)
            for line, text in BAD_OBJECTS.items()
        ),
        *(
            (TEXT, {"tst_X_Y.txt": b"2 4\n0:1\n" + line + b"\n"}, text)
            for line, text in BAD_ROWS.items()
        ),
        (JSON, {"lbl.json": b'{"title": "a"}\n{"title": 2}\n' * 2}, r"lbl\.json: line 2"),
        (JSON, {"tst.json": b'{"title": "a", "target_ind": [4]}'}, r"tst\.json: line 1: .*to 3"),
        # AttentionXML
        (
            ATTENTION,
            {"test_labels.txt": b"two\n"},
            r"test_labels\.txt: ends after 1 documents, but .*test_raw_texts\.txt has more",
        ),
        (
            ATTENTION,
            {"train_raw_texts.txt": b"a\n"},
            r"train_raw_texts\.txt: ends after 1 documents, but .*train_labels\.txt has more",
        ),
        # PECOS
        (PECOS, {"X.tst.txt": b"a\n"}, r"X\.tst\.txt: ends after 1 documents"),
        (PECOS, {"X.tst.txt": b"a\nb\nc\n"}, r"Y\.tst\.npz: ends after 2 documents"),
        (
            PECOS,
            {"Y.tst.npz": npz([[0] * 5, [1] * 5], 5)},
            r"Y\.tst\.npz: says 5 labels, but .*Y\.trn\.npz says 4",
        ),
        (PECOS, {"Y.trn.npz": ones(TEST)}, r"Y\.trn\.npz: ends after 2 documents"),
        (TFIDF, {"X.trn.tfidf.npz": npz(FEATURES["test"])}, "has 2 rows, but .* has 3"),
        (
            TFIDF,
            {"X.tst.tfidf.npz": npz([[1] * 5] * 2, 5)},
            "X.tst.tfidf.npz: says 5 features, but .* says 4",
        ),
        # XMC repository
        (
            TEXT,
            {"trn_X_Y.txt": b"3\n"},
            r"trn_X_Y\.txt: line 1: expected the counts of documents, labels",
        ),
        (TEXT, {"trn_X_Y.txt": b"3 -4\n"}, "line 1: expected the counts"),
        (TEXT, {"trn_X_Y.txt": b"3 999999999999\n"}, "line 1: expected the counts"),
        (TEXT, {"trn_X_Y.txt": b""}, "line 1: expected the counts"),
        (
            TEXT,
            {"trn_X_Y.txt": b"3 4\n0:1\n1:1\n4:1\n"},
            r"trn_X_Y\.txt: line 4: expected id:value with an id from 0 to 3 .* found '4:1'",
        ),
        (
            TEXT,
            {"tst_X_Y.txt": b"2 5\n0:1\n4:1\n"},
            r"tst_X_Y\.txt: says 5 labels, but .*trn_X_Y\.txt says 4",
        ),
        (
            TEXT,
            {"tst_X_Y.txt": b"3 4\n0:1\n1:1\n"},
            r"tst_X_Y\.txt: expected 3 documents, found 2",
        ),
        (TEXT, {"Y.txt": b"a\nb\n"}, r"Y\.txt: expected 4 lines, one a label, found 2"),
        (
            SPARSE,
            {"tst_X_Xf.txt": b"3 4\n3:1\n0:1\n"},
            r"tst_X_Xf\.txt: says 3 documents, but .*tst_X_Y\.txt says 2",
        ),
        (SPARSE, {"tst_X_Xf.txt": b"2 4\n3:1\n0:1 5:1\n"}, r"tst_X_Xf\.txt: line 3: .*'5:1'"),
        (SPARSE, {"tst_X_Xf.txt": b"2 4\n3:1\n"}, "ends after 1 documents"),
        # that count from 1
        (SPARSE, {"tst_X_Xf.txt": b"2 4\n1:1\n4:-1\n"}, "found '4:-1'.* count from 1?"),
        (LIBSVM, {"test.txt": b"2 4 4\n1 3:1\n4 1:1\n"}, "found '4'.* count from 1?"),
        (PECOS, {"Y.tst.npz": npz([[1, 0, 0, 0]] * 2, indices=np.array([1, 4]))}, "count from 1?"),
        (PECOS, {"Y.tst.npz": npz([[-1, 0, 0, 0]] * 2)}, r"Y\.tst\.npz: a label has the value -1"),
        # libsvm
        (LIBSVM, {"test.txt": b"2 4\n"}, "counts of documents, features, labels, found '2 4'"),
        (LIBSVM, {"test.txt": b"2 4 4\n2 3:1\n0,x 0:1\n"}, "line 3: expected labels like 3,14,15"),
        (LIBSVM, {"test.txt": b"2 4 4\n2 3:1\n0,4 0:1\n"}, "line 3: expected labels from 0 to 3"),
        (LIBSVM, {"test.txt": b"2 4 5\n2 3:1\n0,4 0:1\n"}, "says 5 labels, but .* says 4"),
        (LIBSVM, {"test.txt": b"2 4 4\n2 3:1\n"}, r"test\.txt: expected 2 documents, found 1"),
        (LIBSVM, {"test.txt": b"1 4 4\n2 3:1\n1 0:1\n"}, "expected 1 documents, found 2"),
    ],
)
def test_damage_is_named(tmp_path, files, changed, text):
    layout = detect(write(tmp_path, {**files, **changed}))
    with pytest.raises(DataError, match=text):
        read_all(layout)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        *((JSON, name) for name in ("trn.json", "lbl.json")),
        *((ATTENTION, name) for name in ("train_raw_texts.txt", "test_labels.txt")),
        *((TEXT, name) for name in ("trn_X.txt", "trn_X_Y.txt", "Y.txt", "filter_labels_test.txt")),
        (PECOS, "X.trn.txt"),
        (SPARSE, "trn_X_Xf.txt"),
        (LIBSVM, "train.txt"),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n \n"])
def test_blank_lines_at_the_end_are_no_documents(tmp_path, files, name, end):
    files = {**files, **FILTERS}
    wanted = read_all(detect(write(tmp_path / "wanted", files)))
    ended = files[name].removesuffix(b"\n") + b"\n" + end
    found = read_all(detect(write(tmp_path / "found", {**files, name: ended})))
    assert str(found) == str(wanted)


def test_commas_are_part_of_a_label_of_attention_xml(tmp_path, caplog):
    labels = {"train_labels.txt": b"a,b\n\na,b\n", "test_labels.txt": b"b\na,b\n"}
    found = read(detect(write(tmp_path, {**ATTENTION, **labels})), "train")
    assert [row for _, row in found] == [[0], [], [0]]
    assert "separate labels by spaces" in caplog.text


def read_all(layout):
    """All that a layout gives."""
    found = []
    for split in ("train", "test"):
        documents = read(layout, split)
        assert len(documents) == layout.count(split)
        found += [documents, layout.filter_pairs(split)]
    return [*found, layout.labels(np.arange(1)), layout.n_labels, layout.n_features]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"format": np.array(b"csc")}, ""),
        ({"shape": np.array([3, 10**12])}, "its shape is 3 x 1000000000000"),
        ({"shape": np.array([3.0, 4.0])}, "shape must be two whole numbers"),
        ({"data": np.array([1.0, 1.0])}, "same size"),
        ({"data": np.array(["a", "b", "c"])}, ""),
        ({"data": np.array([1, np.nan, 1])}, "not finite"),
        ({"data": np.array([1, 1e39, 1])}, "not finite"),
        ({"indices": np.array([0, 2, 4])}, "an index is not from 0 to 3"),
        ({"indices": np.array([0, -1, 1])}, "indices must be >= 0"),
        ({"indices": np.array([0, 5, 1])}, "indices must be < 4"),
        ({"indptr": np.array([0, 3, 2, 3])}, "non-decreasing"),
        ({"indptr": np.array([0, 2, 3])}, "index pointer size 3 should be 4"),
        ({"data": np.array([1, None, 1])}, "ValueError: Object arrays cannot be loaded"),
    ],
)
def test_a_damaged_matrix_is_refused(tmp_path, changed, text):
    dense = [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    write(tmp_path, {**PECOS, "Y.trn.npz": npz(dense, **changed)})
    with pytest.raises(DataError, match=rf"Y\.trn\.npz: not a sparse matrix, CSR.*\(.*{text}"):
        read(detect(tmp_path), "train")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_an_entry_of_zero_is_no_label(tmp_path, dtype):
    changed = {"data": np.array([1, 0, 1], dtype)}
    dense = [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    write(tmp_path, {**PECOS, "Y.trn.npz": npz(dense, **changed)})
    assert [labels for _, labels in read(detect(tmp_path), "train")] == [[0], [1], []]
    write(tmp_path / "text", {**TEXT, "tst_X_Y.txt": b"2 4\n2:0 1:1\n0:1\n"})
    assert [labels for _, labels in read(detect(tmp_path / "text"), "test")] == [[1], [0]]


PIECES = [
    b"\n",
    b" ",
    b":",
    b",",
    b"-1",
    b"0",
    b"9" * 25,
    b"\xff",
    b"\x00",
    b"\r",
    b"{",
    b'"',
    b"nan",
    b"1e999",
]


@st.composite
def damaged(draw):
    """The files of a layout, one of them with some bytes cut out or put in."""
    files = {**FILES[draw(st.sampled_from(sorted(FILES)))], **FILTERS}
    name = draw(st.sampled_from(sorted(files)))
    content = files[name]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        gone = draw(st.integers(0, 4) | st.integers(0, len(content)))
        put = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        content = content[:at] + put + content[at + gone :]
    return {**files, name: content}


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_whatever_is_read_gives_documents_or_a_data_error(tmp_path_factory, files):
    folder = write(tmp_path_factory.mktemp("fuzz"), files)
    with contextlib.suppress(DataError):
        read_all(detect(folder))
