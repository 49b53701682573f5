"""The same three training and two test documents, by hand, in every layout.

Labels 0 to 3; label 3 has no document. Training: {0, 2}, {1}, {}; test: {2}, {0, 1}.
"""

import gzip
import io

import numpy as np
import scipy.sparse as sp

TRAIN = [("red apple", [0, 2]), ("green pear", [1]), ("plum", [])]
TEST = [("apple", [2]), ("fig tree", [0, 1])]
FEATURES = {
    "train": [[0.5, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 0]],
    "test": [[0, 0, 0, 1.25], [1, 0, 1, 0]],
}
N_LABELS = 4


def npz(dense, width=N_LABELS, **changed):
    """What scipy.sparse.save_npz writes of a matrix, as bytes."""
    matrix = sp.csr_matrix(np.array(dense, np.float32).reshape(-1, width))
    arrays = {
        "format": np.array(b"csr"),
        "shape": np.array(matrix.shape),
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        **changed,
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(dense):
    """The bytes of a dense matrix."""
    file = io.BytesIO()
    np.save(file, np.array(dense, np.float32))
    return file.getvalue()


def ones(documents):
    return npz([[float(i in labels) for i in range(N_LABELS)] for _, labels in documents])


PECOS_LABELS = {"Y.trn.npz": ones(TRAIN), "Y.tst.npz": ones(TEST)}
REPOSITORY_LABELS = {
    "trn_X_Y.txt": b"3 4\n0:1.0 2:1.0\n1:1\n\n",
    "tst_X_Y.txt": b"2 4\n2:1.0\n0:1.0 1:1.0\n",
}
FILES = {
    "PECOS": {
        "X.trn.txt": b"red apple\ngreen pear\nplum\n",
        "X.tst.txt": b"apple\nfig tree",
        **PECOS_LABELS,
    },
    "JSON lines": {
        "trn.json": b"""\
{"uid": "a", "title": "red", "content": "apple", "target_ind": [0, 2]}
{"uid": "b", "title": "green", "content": "pear", "target_ind": [1], "target_rel": [1.0]}
{"uid": "c", "title": "plum", "target_ind": []}
""",
        "tst.json.gz": gzip.compress(b"""\
{"uid": 4, "title": "apple", "content": "", "target_ind": [2]}
{"uid": 5, "title": "fig", "content": "tree", "target_ind": [1, 0]}
"""),
        "lbl.json": b"""\
{"uid": "l0", "title": "colour", "content": "of fruit"}
{"uid": "l1", "title": "green"}
{"uid": "l2", "title": "apple"}
{"uid": "l3", "title": "nothing"}
""",
    },
    "AttentionXML": {
        "train_raw_texts.txt": b"red /SEP/ apple\ngreen pear\nplum\n",
        "train_labels.txt": b"zero two\none\n\n",
        "test_raw_texts.txt": b"apple\r\nfig /SEP/ tree\r\n",
        "test_labels.txt": b"two\r\none zero\r\n",
    },
    "XMC repository, text": {
        "trn_X.txt": b"red apple\ngreen pear\nplum\n",
        "tst_X.txt": b"apple\nfig tree\n",
        "Y.txt": b"colour\ngreen\napple\nnothing\n",
        **REPOSITORY_LABELS,
    },
    "PECOS, features only": {
        "X.trn.tfidf.npz": npz(FEATURES["train"]),
        "X.tst.tfidf.npz": npz(FEATURES["test"]),
        **PECOS_LABELS,
    },
    "PECOS, dense embeddings": {
        "X.trn.npy": npy(FEATURES["train"]),
        "X.tst.npy": npy(FEATURES["test"]),
        **PECOS_LABELS,
    },
    "XMC repository, features": {
        "trn_X_Xf.txt": b"3 4\n0:0.5 3:2\n1:1.0\n\n",
        "tst_X_Xf.txt": b"2 4\n3:1.25\n0:1 2:1e0\n",
        **REPOSITORY_LABELS,
    },
    "libsvm": {
        "train.txt": b"3 4 4\n0,2 0:0.5 3:2\n1 1:1.0\n\n",
        "test.txt": b"2 4 4\n2 3:1.25\n0,1 0:1 2:1\n",
    },
}
FILTERS = {
    "filter_labels_train.txt": b"0 2\n1 1\n2 3\n",
    "filter_labels_test.txt": b"1 0\n",
}


def write(folder, files):
    """Write files (name -> bytes) and give the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(layout, split):
    """(text or features, sorted label ids) of each document."""
    found = []
    for block in layout.blocks(split):
        texts = block.texts
        rows = block.features.toarray().tolist() if texts is None else texts
        found += [
            (row, sorted(labels.tolist())) for row, labels in zip(rows, block.labels, strict=True)
        ]
    return found
