"""What the files that a run reads come to, in one digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from haste.checksums import plain_sha256
from haste.config import InputsConfig
from haste.paths import CorpusDir, TokenDir

MISSING = ""
"""the digest of inputs that are not all there"""


def input_files(inputs: InputsConfig) -> dict[str, Path] | None:
    """The files behind a run's `inputs`, by names that do not depend on where they lie; None where
    one of them has not been made yet.

    The whole folders of corpus and tokens, of the model what the encoder is made from: the record of
    when a model was fetched differs from one machine to the next.
    """
    corpus, tokens, model = map(Path, (inputs.corpus, inputs.tokens, inputs.model))
    weights = sorted(model.glob("*.safetensors"))
    files = {
        **_named("corpus", _files(corpus)),
        **_named("tokens", _files(tokens)),
        **_named("model", [model / "config.json", *weights]),
        **{name: Path(path) for name in ("order", "clusters") if (path := getattr(inputs, name))},
    }
    needed = (*files.values(), CorpusDir(corpus).info, TokenDir(tokens).info)
    return files if weights and all(path.is_file() for path in needed) else None


class InputDigests:
    """Digests of inputs; a file that several runs read is read once."""

    def __init__(self) -> None:
        self._files: dict[Path, str] = {}

    def of(self, inputs: InputsConfig) -> str:
        """sha256 (hex) over the names and digests of all files, MISSING where one is not there."""
        files = input_files(inputs)
        if files is None:
            return MISSING
        digests = {name: self._of_file(path) for name, path in files.items()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def _of_file(self, path: Path) -> str:
        if path not in self._files:
            self._files[path] = plain_sha256(path)
        return self._files[path]


def _named(folder: str, paths: list[Path]) -> dict[str, Path]:
    return {f"{folder}/{path.name}": path for path in paths}


def _files(folder: Path) -> list[Path]:
    """Files of a folder but hidden ones, which are half-written or an editor's."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
