import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haste.data.ragged import RaggedWriter

blocks = st.lists(st.lists(st.lists(st.integers(0, 99), max_size=3), max_size=3))


def joined(rows):
    return [value for row in rows for value in row]


def append(writer, block):
    writer.append(np.array(joined(block), np.int64), [len(row) for row in block])


@given(blocks, st.sampled_from([np.int32, np.float32]))
def test_blocks_become_one_and_what_is_saved_is_what_numpy_saves(tmp_path_factory, blocks, dtype):
    folder = tmp_path_factory.getbasetemp() / "ragged"
    collected = RaggedWriter.temporary(folder, dtype)
    with RaggedWriter.saved(folder / "saved.npy", dtype) as saved:
        for block in blocks:
            append(collected, block)
            append(saved, block)
    rows = [row for block in blocks for row in block]
    ragged = collected.ragged()
    assert [row.tolist() for row in ragged] == rows
    assert (ragged.values.dtype, ragged.offsets.dtype) == (dtype, np.int64)
    assert saved.offsets().tolist() == ragged.offsets.tolist()
    np.save(folder / "numpy.npy", np.array(joined(rows), dtype))
    assert (folder / "saved.npy").read_bytes() == (folder / "numpy.npy").read_bytes()


def test_collected_values_lie_on_disk_and_leave_nothing_behind(tmp_path):
    writer = RaggedWriter.temporary(tmp_path, np.float32)
    writer.append(np.arange(4.0), [1, 3])
    ragged = writer.ragged()
    del writer
    assert isinstance(ragged.values, np.memmap)
    assert ragged[1].tolist() == [1.0, 2.0, 3.0]
    assert list(tmp_path.iterdir()) == []


def test_a_length_of_many_digits_fits_into_the_header(tmp_path):
    with RaggedWriter.saved(tmp_path / "saved.npy", np.int8) as writer:
        for _ in range(11):
            writer.append(np.zeros(1_000_000, np.int8), [1_000_000])
    assert np.load(tmp_path / "saved.npy").shape == (11_000_000,)


def test_what_fails_midway_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "saved.npy"
    np.save(path, np.array([7], np.int32))

    def cut_short():
        with RaggedWriter.saved(path, np.int32) as writer:
            writer.append(np.arange(9), [9])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert np.load(path).tolist() == [7]
    assert [p.name for p in tmp_path.iterdir()] == ["saved.npy"]
