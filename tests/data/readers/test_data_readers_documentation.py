"""The examples of the documentation are what the readers read."""

import re
from pathlib import Path

import pytest

from haste.data.readers import LAYOUTS, detect

PAGE = Path(__file__).parents[3] / "docs/own-data.md"
SECTION = PAGE.read_text(encoding="utf-8").split("## Examples of the layouts")[1].split("\n## ")[0]
FILE = re.compile(r'```text title="(.+?)"\n(.*?)```', re.DOTALL)
EXAMPLES = {
    f"{part.strip().splitlines()[0]} {number}": dict(FILE.findall(part))
    for number, part in enumerate(re.split(r"\n(?=[^\n]+:\n\n```text)", SECTION))
    if FILE.search(part)
}
OTHER = {"trn": "tst", "train": "test"}


def write_example(folder: Path, files: dict[str, str]) -> Path:
    """The files, and those of the test split in the same form."""
    folder.mkdir()
    for name, content in files.items():
        for training, test in OTHER.items():
            if name.startswith(training):
                (folder / (test + name.removeprefix(training))).write_text(content)
        (folder / name).write_text(content)
    return folder


def read(folder: Path) -> tuple[str, list]:
    layout = detect(folder)
    found = []
    for block in layout.blocks("train"):
        rows = block.texts or block.features.toarray().tolist()
        found += zip(rows, [sorted(labels.tolist()) for labels in block.labels], strict=True)
    assert layout.count("test") == len(found)
    return layout.name, found


FEATURES = [[0.5, 0, 1.5], [0, 1.0, 0]]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read(tmp_path, name):
    _, documents = read(write_example(tmp_path / "mine", EXAMPLES[name]))
    rows = [row for row, _ in documents]
    assert rows in (["red apple", "plum"], FEATURES)
    first, second = (set(labels) for _, labels in documents)
    assert second < first
    assert len(first) == 2


def test_every_layout_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    exec(code, {})
    folders = [Path(kind) for kind in ("texts", "sparse", "dense")]
    folders += [write_example(Path(f"{at}"), files) for at, files in enumerate(EXAMPLES.values())]
    assert {read(folder)[0] for folder in folders} == {layout.name for layout in LAYOUTS}
