"""One digest of what a run reads."""

from dataclasses import replace
from pathlib import Path

import pytest

from haste.checksums import write_description
from haste.grid import RunKey
from haste.transfer.digests import MISSING, InputDigests

KEY = RunKey("words", "spartex", "default", 0)


@pytest.fixture
def inputs(grid, make_inputs):
    make_inputs(grid)
    Path("data/order.npz").write_text("order")
    return replace(grid.resolve(KEY).inputs, order="data/order.npz")


NAMES = {
    "corpus": "test.parquet",
    "tokens": "tokens.json",
    "model": "model.safetensors",
    "order": "",
    "clusters": "",
}


@pytest.mark.parametrize(("field", "name"), NAMES.items())
def test_digest_changes_with_each_input(inputs, field, name):
    before = InputDigests().of(inputs)
    assert len(before) == 64
    path = Path(getattr(inputs, field), name)
    content = path.read_bytes()
    path.write_bytes(content + b"more")
    assert InputDigests().of(inputs) != before
    path.write_bytes(content)
    assert InputDigests().of(inputs) == before


def test_tokens_made_again_have_the_digest_they_had(inputs):
    digests = []
    for time in (1, 2):
        description = {"max_len": 5, "corpus_seen": {"train": [100, time]}, "n_tokens": 7}
        write_description(Path(inputs.tokens, "tokens.json"), description)
        digests.append(InputDigests().of(inputs))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("field", "name"), NAMES.items())
def test_no_digest_where_an_input_is_not_made(inputs, field, name):
    Path(getattr(inputs, field), name).unlink()
    # one file of several in a corpus may be missing: not every corpus has the same
    expected = field == "corpus"
    assert (InputDigests().of(inputs) != MISSING) == expected


def test_digest_does_not_depend_on_when_a_model_was_fetched_or_where_it_lies(inputs):
    before = InputDigests().of(inputs)
    Path(inputs.model, "SOURCE.json").write_text("fetched later")
    Path(inputs.corpus, ".half.parquet").write_text("a temporary file")
    Path("data").rename("elsewhere")
    moved = replace(
        inputs,
        **{k: v.replace("data/", "elsewhere/") for k, v in vars(inputs).items()},
    )
    assert InputDigests().of(moved) == before


def test_a_file_is_read_once(inputs):
    digests = InputDigests()
    before = digests.of(inputs)
    Path(inputs.order).write_text("changed")
    assert digests.of(inputs) == before
