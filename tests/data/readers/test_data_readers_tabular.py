"""csv, parquet, jsonl and Hugging Face `datasets` folders."""

import json

import pyarrow as pa
import pytest
from layout_files import read
from pyarrow import csv, ipc, parquet

from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.readers import detect
from haste.data.registry import Dataset
from haste.errors import DataError

TRAIN = [("red apple", ["fruit", "red"]), ("green pear", ["fruit"]), ("a, b\nc", [])]
TEST = [("apple", ["red", "new"])]
WANTED = [("red apple", [0, 1]), ("green pear", [0]), ("a, b\nc", [])]


def table(rows, labels=list):
    return pa.table({"text": [t for t, _ in rows], "labels": [labels(y) for _, y in rows]})


def write_csv(folder, split, rows):
    separated = table(rows, lambda y: ";".join(y) if len(y) != 1 else json.dumps(y))
    csv.write_csv(separated, folder / f"{split}.csv")


def write_parquet(folder, split, rows):
    parquet.write_table(table(rows), folder / f"{split}.parquet")


def write_parts(folder, split, rows):
    (folder / "data").mkdir(exist_ok=True)
    for part in range(len(rows)):
        path = folder / "data" / f"{split}-0000{part}-of-0000{len(rows)}.parquet"
        parquet.write_table(table(rows[part : part + 1]), path)


def write_jsonl(folder, split, rows):
    lines = [json.dumps({"title": t, "content": "", "labels": y}) for t, y in rows]
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def write_datasets(folder, split, rows):
    (folder / split).mkdir()
    stored = table(rows)
    path = str(folder / split / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as file, ipc.new_stream(file, stored.schema) as stream:
        stream.write_table(stored)


@pytest.mark.parametrize(
    "write", [write_csv, write_parquet, write_parts, write_jsonl, write_datasets]
)
def test_every_kind_gives_the_same_documents(tmp_path, write):
    for split, rows in (("train", TRAIN), ("test", TEST)):
        write(tmp_path, split, rows)
    layout = detect(tmp_path)
    assert layout.name == "table"
    assert [layout.count(split) for split in ("train", "test")] == [3, 1]
    assert read(layout, "train") == WANTED
    assert read(layout, "test") == [("apple", [1, 2])]
    names = layout.labels(pa.array([0, 1, 2]).to_numpy())["name"].to_pylist()
    assert names == ["fruit", "red", "new"]
    assert all(path.is_file() for path in layout.files())


def test_numbered_labels_have_the_names_that_datasets_wrote_down(tmp_path):
    for split in ("train", "test"):
        write_datasets(tmp_path, split, [("x", [1]), ("y", [0])])
        info = {"features": {"labels": {"feature": {"names": ["zero", "one"]}}}}
        (tmp_path / split / "dataset_info.json").write_text(json.dumps(info))
    layout = detect(tmp_path)
    assert [row for _, row in read(layout, "train")] == [[0], [1]]
    assert layout.labels(pa.array([0, 1]).to_numpy())["name"].to_pylist() == ["one", "zero"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', "no column labels"),
        ('{"labels": ["a"]}', "no column text"),
        ('{"text": 3, "labels": ["a"]}', "row 1: text is 3"),
        ('{"text": "x", "labels": [0.5]}', "row 1: labels: 0.5 is no label"),
        ('{"text": "half \\ud800", "labels": ["a"]}', "row 1: text is"),
        ('{"text": "x", "labels": ["half \\ud800"]}', "row 1: labels: .* is no label"),
        ("[]", "line 1: expected a JSON object"),
        ("{", "line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, line, message):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        read(detect(tmp_path), "train")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["x"], "labels": [["a"]]}, "row 1: no column text.*it has body, labels"),
        ({"text": ["x"], "tags": [["a"]]}, "row 1: no column labels; it has text, tags"),
    ],
)
def test_columns_of_a_parquet_file_are_named_when_none_will_do(tmp_path, columns, message):
    for split in ("train", "test"):
        parquet.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=message):
        read(detect(tmp_path), "train")


@pytest.mark.parametrize("text", ["text\tlabels\nx\ta\n", "text;labels\nx;a,b\n"])
def test_of_a_csv_with_other_separators_it_is_said_what_stands_between_columns(tmp_path, text):
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(text)
    with pytest.raises(DataError, match="commas"):
        read(detect(tmp_path), "train")


def test_a_part_that_is_not_there_is_missed(tmp_path):
    for split, rows in (("train", TRAIN), ("test", TEST)):
        write_parts(tmp_path, split, rows)
    (tmp_path / "data/train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="one of 3 parts by its name, but there are 2"):
        detect(tmp_path)


def test_a_number_and_its_digits_are_one_label(tmp_path):
    """A cell of a csv has the one or the other, by whether it is a JSON list, and train need not be as test."""
    (tmp_path / "train.csv").write_text('text,labels\nx,12\ny,"[12, 13]"\nz,13;12\n')
    (tmp_path / "test.jsonl").write_text('{"text": "x", "labels": [13]}\n')
    layout = detect(tmp_path)
    assert read(layout, "train") == [("x", [0]), ("y", [0, 1]), ("z", [0, 1])]
    assert read(layout, "test") == [("x", [1])]


def test_no_name_stands_for_a_label_below_zero(tmp_path):
    """`datasets` has -1 for no label."""
    for split in ("train", "test"):
        write_datasets(tmp_path, split, [("x", [-1])])
        info = {"features": {"labels": {"feature": {"names": ["zero", "one"]}}}}
        (tmp_path / split / "dataset_info.json").write_text(json.dumps(info))
    layout = detect(tmp_path)
    read(layout, "train")
    assert layout.labels(pa.array([0]).to_numpy())["name"].to_pylist() == ["-1"]


def test_other_columns_of_a_csv_may_have_anything(tmp_path):
    """Even where the first megabyte of one has numbers alone."""
    documents, text = 3000, "word " * 100
    rows = "".join(f"{i},{text},a\n" for i in range(documents))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(f"id,text,labels\n{rows}A1,last,b\n")
    layout = detect(tmp_path)
    assert read(layout, "train")[-1] == ("last", [1])
    assert layout.count("test") == documents + 1


def test_tables_become_a_corpus(tmp_path):
    for split in ("train", "test"):
        write_csv(tmp_path, split, TRAIN * 4)
    dataset = Dataset(name="mine", path=str(tmp_path))
    info = build_corpus(dataset, tmp_path, tmp_path / "corpus")
    assert (info.n_labels, info.documents["test"]) == (2, 12)
    corpus = load_corpus(tmp_path / "corpus")
    assert corpus.labels["name"].to_pylist() == ["fruit", "red"]
    assert "red apple" in corpus.texts("test")
