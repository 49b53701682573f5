import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from haste.data.ragged import Ragged
from haste.data.spool import RaggedSpool

blocks = st.lists(st.lists(st.lists(st.integers(0, 99), max_size=3), min_size=1, max_size=3))


@given(blocks)
def test_blocks_become_one(tmp_path_factory, blocks):
    spool = RaggedSpool(np.int32, tmp_path_factory.getbasetemp() / "spool")
    for block in blocks:
        part = Ragged.of([np.array(row, np.int64) for row in block])
        spool.append(part.values, part.offsets)
    found = spool.ragged()
    rows = [row for block in blocks for row in block]
    assert [row.tolist() for row in found] == rows
    assert (found.values.dtype, found.offsets.dtype) == (np.int32, np.int64)


def test_values_lie_on_disk_and_leave_nothing_behind(tmp_path):
    spool = RaggedSpool(np.float32, tmp_path)
    spool.append(np.arange(4.0), np.array([0, 1, 4]))
    found = spool.ragged()
    del spool
    assert isinstance(found.values, np.memmap)
    assert found[1].tolist() == [1.0, 2.0, 3.0]
    assert list(tmp_path.iterdir()) == []
