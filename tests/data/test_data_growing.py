import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.data.growing import growing_array


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("growing")


@given(st.lists(st.integers(0, 70)), st.sampled_from([np.int32, np.float32, np.int64]))
def test_the_file_is_what_numpy_saves(folder, sizes, dtype):
    blocks = [np.arange(size, dtype=dtype) + size for size in sizes]
    with growing_array(folder / "grown.npy", dtype) as append:
        for block in blocks:
            append(block)
    np.save(folder / "saved.npy", np.concatenate([np.empty(0, dtype), *blocks]))
    assert (folder / "grown.npy").read_bytes() == (folder / "saved.npy").read_bytes()


def test_a_length_of_many_digits_fits_into_the_header(tmp_path):
    with growing_array(tmp_path / "grown.npy", np.int8) as append:
        for _ in range(11):
            append(np.zeros(1_000_000, np.int8))
    assert np.load(tmp_path / "grown.npy").shape == (11_000_000,)


def test_what_fails_midway_leaves_no_file(tmp_path):
    path = tmp_path / "grown.npy"
    np.save(path, np.array([7], np.int32))

    def cut_short():
        with growing_array(path, np.int32) as append:
            append(np.arange(9))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert np.load(path).tolist() == [7]
    assert [p.name for p in tmp_path.iterdir()] == ["grown.npy"]
