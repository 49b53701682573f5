"""Named tensors in one safetensors file with a digest over all its bytes, checked when it is read.

The file is written tensor by tensor: what the library's `save_file` needs, a copy of all of them in
memory and a temporary file of its own that a kill leaves behind, is not needed here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from haste import former_names
from haste.errors import DataError
from haste.files import atomic, reading

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


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Replace `path` by a safetensors file of `tensors`, on any device, and `metadata`."""
    # the wide ones first, so that all are aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {}
    begin = 0
    for name in names:
        value = tensors[name]
        end = begin + value.numel() * value.element_size()
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
        for name in names:
            block = tensors[name].detach().contiguous().flatten().view(torch.uint8).cpu().numpy()
            digest = zlib.crc32(block, digest)
            stream.write(block)
        stream.seek(0)
        stream.write(_header(entries, metadata or {}, f"{digest:08x}"))


def load_tensors(
    path: Path, *, need_digest: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises DataError where it is missing or a byte is not as it was written. A file without a digest, which
    older versions wrote, is read as it is unless `need_digest`.
    """
    with reading(path, "a safetensors file", MADE_BY):
        _check(path, need_digest)
        with safe_open(path, framework="pt") as stored:
            metadata = dict(stored.metadata() or {})
            metadata.pop(_DIGEST, None)
            tensors = {
                former_names.renamed_tensor(name): stored.get_tensor(name)
                for name in stored.keys()  # noqa: SIM118
            }
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
