import pytest

from haste.data.linked import split_of


@pytest.mark.parametrize(
    ("number", "split"),
    [(1, "train"), (11, "test"), (13, "test"), (15, "train"), (16, "validation"), (40, "test")],
)
def test_splits(number, split):
    # worked out with sha1sum and bc
    assert split_of(f"ENG31-{number:08d}-n") == split
