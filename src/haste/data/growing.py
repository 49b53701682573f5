"""An .npy file that grows: for arrays too large for memory whose length is known only at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from haste.files import atomic


@contextlib.contextmanager
def growing_array(
    path: Path | str, dtype: np.dtype | type
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields what appends a block [n] to a one-dimensional .npy of `dtype`.

    When the context ends without an error, `path` is byte for byte what np.save writes of the blocks
    joined; else it is left as it was.
    """
    dtype, length = np.dtype(dtype), 0
    with atomic(path) as temporary, temporary.open("wb") as stream:

        def append(block: np.ndarray) -> None:
            nonlocal length
            stream.write(np.ascontiguousarray(block, dtype).data)
            length += len(block)

        _write_header(stream, dtype, 0)
        yield append
        # numpy leaves room in the header for a length of any number of digits
        stream.seek(0)
        _write_header(stream, dtype, length)


def _write_header(stream: BinaryIO, dtype: np.dtype, length: int) -> None:
    description = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (length,),
    }
    np.lib.format.write_array_header_1_0(stream, description)
