import time

import pytest

from haste.errors import DataError
from haste.files import read_yaml

BOMB = "a0: &a0 [lol, lol, lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {epochs: 50}\nseed: 1\ntraining: {batch_size: 16}\n", "line 3: .*'training'"),
        ("training:\n  epochs: 1\n  'epochs': 2\n", "line 3: .*'epochs'"),
        ("runs:\n- {seed: 1, seed: 1}\n", "line 2: .*'seed'"),
        (BOMB, "line [0-9]+: .*alias"),
        (BOMB + "b: {<<: [*a11, *a11]}\n", "line [0-9]+: .*alias"),
        ("a: &a [1, *a]\n", "line 1: .*alias"),
        ("a: [1\nb: 2\n", "line 2"),
        ("a: !!python/object:os.system {}\n", "line 1"),
        ("[" * 5000, "not YAML"),
        ("a: 2026-13-45\n", "not YAML"),
        ("a: \x00\n", "not YAML"),
    ],
)
def test_what_would_lose_a_value_or_never_end_is_refused(tmp_path, text, said):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(DataError, match=f"my.yaml.*{said}") as error:
        read_yaml(path)
    assert time.monotonic() - began < 5
    assert "\n" not in str(error.value)


def test_aliases_and_merges_that_stay_small_are_read(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("a: &a {x: 1, y: [1, 2]}\nb: *a\nc: {<<: *a, x: 2}\n1: one\n'1': text\n")
    value = read_yaml(path)
    assert value["b"] == value["a"]
    assert value["c"] == {"x": 2, "y": [1, 2]}
    assert (value[1], value["1"]) == ("one", "text")
