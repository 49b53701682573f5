import pytest

from haste.errors import ConfigError
from haste.former_names import renamed_columns, renamed_settings


def test_former_names_of_keys_at_any_depth():
    value = {"layer": {"run": 8}, "overrides": {"x": {"layer": {"run": 4}, "other": {"run": 1}}}}
    assert renamed_settings(value) == {
        "layer": {"block_size": 8},
        "overrides": {"x": {"layer": {"block_size": 4}, "other": {"run": 1}}},
    }


def test_both_names_of_a_key_are_refused():
    with pytest.raises(ConfigError, match="'run' is the former name of 'block_size'"):
        renamed_settings({"layer": {"run": 8, "block_size": 4}})


def test_a_removed_key_is_read_with_what_is_still_done_and_no_other():
    assert renamed_settings({"training": {"label_texts": False, "epochs": 3}}) == {
        "training": {"epochs": 3}
    }
    with pytest.raises(ConfigError, match=r"training\.label_texts: True is no longer there"):
        renamed_settings({"training": {"label_texts": True}})


def test_former_names_of_columns():
    assert renamed_columns({"seconds_a_step": 1, "other": 2}) == {"seconds_per_step": 1, "other": 2}
    row = {"layer": "authors", "direction": "grad_weight", "calls_a_step": 3}
    assert renamed_columns(row) == {
        "layer": "released_cuda",
        "direction": "dw",
        "calls_per_step": 3,
    }
