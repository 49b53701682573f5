"""Named tensors in one safetensors file with a digest over all its bytes.

Who trains reads all of the file and holds it to its digest; who predicts may map it into memory, where
pages are read when they are needed and are the same for all processes.

The file is written tensor by tensor: what the library's `save_file` needs, a copy of all of them in
memory and a temporary file of its own that a kill leaves behind, is not needed here.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from haste import former_names
from haste.errors import DataError
from haste.files import atomic, reading
from haste.kernels.state import RowRange

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DIGEST = "crc32"
_NO_DIGEST = "0" * 8
"""what stands in the place of the digest while it is taken"""
_BLOCK = 1 << 22
MADE_BY = "haste train"
_AGAIN = f"Delete it, and make it again: {MADE_BY}."


@dataclass(frozen=True)
class Blocks:
    """A tensor that is made block of rows by block when it is written."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    blocks: Iterable[Tensor]

    @classmethod
    def of(cls, value: Tensor | Blocks) -> Blocks:
        """A tensor, on any device, as one block."""
        return (
            value if isinstance(value, Blocks) else cls(tuple(value.shape), value.dtype, (value,))
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return math.prod(self.shape) * self.dtype.itemsize


def save_tensors(
    path: Path | None,
    tensors: Mapping[str, Tensor | Blocks],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Replace `path` by a safetensors file of `tensors` and `metadata`.

    Without a path nothing is written, and blocks are made in the same order: what they need of this
    process, another one writes.
    """
    # the wide ones first, so that all are aligned
    values = {name: Blocks.of(value) for name, value in tensors.items()}
    names = sorted(values, key=lambda name: (-values[name].dtype.itemsize, name))
    if path is None:
        for name in names:
            collections.deque(values[name].blocks, maxlen=0)
        return
    entries: dict[str, Any] = {}
    begin = 0
    for name in names:
        value = values[name]
        end = begin + value.nbytes
        entries[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    header = _header(entries, metadata or {}, _NO_DIGEST)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(header)
        digest = zlib.crc32(header)
        for block in itertools.chain.from_iterable(values[name].blocks for name in names):
            content = block.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data
            digest = zlib.crc32(content, digest)
            stream.write(content)
        stream.seek(0)
        stream.write(_header(entries, metadata or {}, f"{digest:08x}"))


def load_tensors(
    path: Path,
    *,
    need_digest: bool = False,
    rows: Mapping[str, RowRange] | None = None,
    verify: bool = True,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises DataError where it is missing or a byte is not as it was written. A file without a digest, which
    older versions wrote, is read as it is unless `need_digest`. Of the tensors named in `rows` only these rows
    are read, where they have as many in all.

    The tensors are the file itself, mapped: a page is read when it is used, and is copied where it is
    written to. Without `verify` that the tensors fill the file is checked and nothing else, so that another byte
    is another number; whoever overwrites the file in place then changes tensors, or ends this process.
    """
    rows = rows or {}
    with reading(path, "a safetensors file", MADE_BY):
        if verify:
            _check(path, need_digest)
        with safe_open(path, framework="pt") as stored:
            metadata = dict(stored.metadata() or {})
            metadata.pop(_DIGEST, None)
            tensors = {}
            for name in stored.keys():  # noqa: SIM118
                present_name = former_names.renamed_tensor(name)
                wanted, stored_tensor = rows.get(present_name), stored.get_slice(name)
                if wanted is None or stored_tensor.get_shape()[0] != wanted.total:
                    tensors[present_name] = stored.get_tensor(name)
                else:
                    tensors[present_name] = stored_tensor[wanted.begin : wanted.end]
    return tensors, metadata


def _header(entries: Mapping[str, Any], metadata: Mapping[str, str], digest: str) -> bytes:
    """The file's first bytes: as many for one digest as for any other."""
    content = {"__metadata__": {**metadata, _DIGEST: digest}, **entries}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _check(path: Path, need_digest: bool) -> None:
    with path.open("rb") as stream:
        size = stream.read(8)
        length = int.from_bytes(size, "little")
        if length > path.stat().st_size:
            raise DataError(f"{path}: damaged, shorter than its first bytes say. {_AGAIN}")
        header = stream.read(length)
        stored = json.loads(header).get("__metadata__", {}).get(_DIGEST)
        if stored is None:
            if need_digest:
                raise DataError(
                    f"{path}: has no digest; an older version wrote it, or it is damaged."
                )
            return
        mark = f'"{_DIGEST}":"%s"'
        blank = header.replace((mark % stored).encode(), (mark % _NO_DIGEST).encode())
        digest = zlib.crc32(size + blank)
        while block := stream.read(_BLOCK):
            digest = zlib.crc32(block, digest)
    if stored != f"{digest:08x}":
        raise DataError(f"{path}: damaged, not the bytes that were written. {_AGAIN}")
