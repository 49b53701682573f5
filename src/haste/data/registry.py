"""The registry of data: what can be fetched and from where, and which data sets are made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from haste.config import NAME, build_dataclass, check_keys, expand_home
from haste.errors import ConfigError, DataError, suggest
from haste.files import read_yaml
from haste.paths import REGISTRY

_PACKAGE = ("package", "version", "file", "size", "sha256", "members")
NEEDED = {"pip": _PACKAGE, "npm": _PACKAGE, "https": ("url",), "drive": ("url", "file")}
"""by `via`: what an origin must say"""
REFUSED = {
    "pip": ("url",),
    "npm": ("url",),
    "https": ("package", "version"),
    "drive": ("package", "version"),
}
KINDS = ("xmc", "wordnet")
TEXTS = ("title", "title+content")
ORIGINS = ("source", "path", "synth")
"""of a data set: one of them"""
SYNTH = (
    *("layout", "like", "scale", "documents", "test_documents", "labels", "labels_per_document"),
    *("words", "seed"),
)
COUNTS = ("train", "validation", "test", "labels", "train_all", "features")


@dataclass(frozen=True)
class Origin:
    """One place a source can come from: a package, or a file or folder on the web."""

    via: str
    """pip or npm, whose own settings say which index is asked; https; drive (Google Drive)"""
    unpacked: int
    """bytes of all files together; more is refused. Where nobody has said how many there are: a limit"""
    package: str = ""
    """pip, npm"""
    version: str = ""
    """pip, npm"""
    url: str = ""
    """https, drive; one that ends in / is a folder, and its `members` are fetched one by one"""
    file: str = ""
    """the archive's name; for https that in the URL unless given"""
    size: int = 0
    """of the archive, in bytes; 0: not known"""
    sha256: str = ""
    """of the archive; empty: not known, and the files are held to what they were when first fetched"""
    members: Mapping[str, str] = field(default_factory=dict)
    """name it gets -> path in the archive or below the URL; empty: all files of the archive"""
    digests: Mapping[str, str] = field(default_factory=dict)
    """name it gets -> sha256, where that of single files is known"""

    def __str__(self) -> str:
        return self.url or f"{self.package} {self.version} ({self.via})"

    @property
    def archive(self) -> str:
        """The name of the file to download; empty for a folder."""
        if self.is_folder:
            return ""
        return self.file or PurePosixPath(urlsplit(self.url).path).name

    @property
    def is_folder(self) -> bool:
        """Whether files are fetched one by one, as they are."""
        return self.url.endswith("/")

    def __post_init__(self) -> None:
        if self.via not in NEEDED:
            raise ConfigError(f"via: {self.via!r} is not known.{suggest(str(self.via), NEEDED)}")
        missing = [key for key in NEEDED[self.via] if not getattr(self, key)]
        if self.is_folder and not self.members:
            missing.append("members")
        if missing:
            raise ConfigError(f"{missing[0]}: needed with via: {self.via}.")
        for key in (*REFUSED[self.via], *(("file", "size", "sha256") if self.is_folder else ())):
            if getattr(self, key):
                what = "a url that ends in /" if self.is_folder else f"via: {self.via}"
                raise ConfigError(f"{key}: means nothing with {what}.")
        for key, expected in (("members", "path in the archive"), ("digests", "sha256")):
            if not isinstance(getattr(self, key), Mapping):
                raise ConfigError(f"{key}: expected 'name: {expected}', at least one.")
        for digest in filter(None, (self.sha256, *self.digests.values())):
            if not re.fullmatch(r"[0-9a-f]{64}", str(digest)):
                raise ConfigError(f"sha256: {digest!r} is not 64 hexadecimal digits.")
        for name in (self.file, *self.members):
            if name == ".." or PurePosixPath(str(name)).name != name:
                raise ConfigError(f"{name!r} is not a plain file name.")
        if self.url and not _is_safe(self.url):
            raise ConfigError(f"url: {self.url!r} is not an address that begins with https://.")


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Source:
    """Files that are fetched together: raw data, or a pretrained model (config, tokenizer, weights)."""

    name: str
    licence: str
    """of the data, by name"""
    terms: str
    """what the licence asks for, in short"""
    origins: tuple[Origin, ...]
    """in order of preference"""
    hidden_size: int = 0
    """of a model; 0 where only the fetched model says it"""
    parameters: int = 0
    """of a model; 0: not known"""


@dataclass(frozen=True)
class Dataset:
    """How a corpus is made of a source, or of a folder of one's own."""

    name: str
    kind: str = "xmc"
    """how it is read: xmc (any layout of haste.data.formats, detected) or wordnet"""
    source: str = ""
    """a name of `sources`"""
    path: str = ""
    """instead of a source: a folder with the files"""
    synth: Mapping[str, Any] = field(default_factory=dict)
    """instead of a source: options of `haste synth`, by which it is generated"""
    propensity_a: float = 0.55
    propensity_b: float = 1.5
    opaque_labels: bool = False
    """nothing may use a label's text"""
    filtered: bool = False
    """reciprocal pairs leave the predictions before any metric is taken, as is usual for LF data sets"""
    text: str = "title+content"
    """what a document's text is, where the layout keeps the two apart: title or title+content"""
    validation: float = 0.02
    """share of the published training documents that is held out, where the kind has no split of its own"""
    max_len: int = 128
    """tokens kept of a document where a run does not say otherwise"""
    root: str = ""
    """wordnet: the synset whose subtree it is; empty for all"""
    expected: Mapping[str, int] = field(default_factory=dict)
    """counts; a corpus that differs is refused. Documents of each split; labels: the published L of
    xmc, those with a training document of wordnet; train_all: training documents as published, before
    validation is taken out; features: columns of sparse features"""

    def __post_init__(self) -> None:
        expand_home("", self, "path")
        for key, known in (("kind", KINDS), ("text", TEXTS)):
            value = getattr(self, key)
            if value not in known:
                raise ConfigError(f"{key}: {value!r} is not known.{suggest(value, known)}")
        given = [key for key in ORIGINS if getattr(self, key)]
        if len(given) != 1:
            what = f"{' and '.join(given)} exclude each other" if given else "missing"
            raise ConfigError(f"source: {what}; give one of {', '.join(ORIGINS)}.")
        check_keys("synth", self.synth, SYNTH)
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation: {self.validation} must lie between 0 and 1.")
        check_keys("expected", self.expected, COUNTS)
        for key, number in self.expected.items():
            if not isinstance(number, int) or number < 0:
                raise ConfigError(f"expected.{key}: expected a count, got {number!r}.")


@dataclass(frozen=True)
class Registry:
    """All of datasets.yaml."""

    sources: Mapping[str, Source]
    models: Mapping[str, Source]
    datasets: Mapping[str, Dataset]

    def source(self, name: str) -> Source:
        """A source or model by name; raises ConfigError with the nearest name."""
        known = {**self.sources, **self.models}
        if name not in known:
            raise ConfigError(f"there is no source or model {name!r}.{suggest(name, known)}")
        return known[name]

    def dataset(self, name: str) -> Dataset:
        """A data set by name; raises ConfigError with the nearest name."""
        if name not in self.datasets:
            raise ConfigError(
                f"there is no data set {name!r}.{suggest(name, self.datasets)} One of your own: "
                f"datasets: {{{name}: {{path: ITS FOLDER}}}}."
            )
        return self.datasets[name]

    def with_datasets(self, settings: Mapping[str, Mapping[str, Any]]) -> Registry:
        """With the data sets that a grid describes itself (GridConfig.dataset_settings) besides.

        Settings of a known data set change these alone; a `path` or `synth` takes the place of its
        source.
        Raises ConfigError that names the place of a wrong value.
        """
        datasets = dict(self.datasets)
        for name, entry in settings.items():
            known = datasets.get(name)
            if known is not None:
                kept = _settings(known)
                if any(key in entry for key in ORIGINS):
                    kept = {key: value for key, value in kept.items() if key not in ORIGINS}
                entry = {**kept, **entry}
            datasets[name] = _dataset(name, entry, self.sources)
        return replace(self, datasets=datasets)


def load_registry(path: Path | str = REGISTRY) -> Registry:
    """Read and check a registry.

    Raises DataError when the file is missing or not YAML, ConfigError that names the place of a
    wrong value, and for an unknown key the nearest known one.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file. Run this in the repository, or give --registry.")
    try:
        return _registry(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _registry(value: Any) -> Registry:
    check_keys("registry", value, ("sources", "models", "datasets"))
    parts = {key: value.get(key) or {} for key in ("sources", "models", "datasets")}
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise ConfigError(f"{key}: expected names and their settings, got {part!r}.")
        for name in part:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ConfigError(f"{key}: {name!r} is not a plain name.")
    sources, models = (
        {name: _source(f"{key}.{name}", name, entry) for name, entry in parts[key].items()}
        for key in ("sources", "models")
    )
    for name in sources.keys() & models.keys():
        raise ConfigError(f"{name!r} is both a source and a model; rename one.")
    datasets = {name: _dataset(name, entry, sources) for name, entry in parts["datasets"].items()}
    return Registry(sources, models, datasets)


def _dataset(name: str, entry: Any, sources: Mapping[str, Source]) -> Dataset:
    dataset = _build(Dataset, f"datasets.{name}", name=name, settings=entry)
    if dataset.source and dataset.source not in sources:
        raise ConfigError(
            f"datasets.{name}.source: there is no source {dataset.source!r}."
            f"{suggest(dataset.source, sources)}"
        )
    return dataset


def _settings(dataset: Dataset) -> dict[str, Any]:
    return {f.name: getattr(dataset, f.name) for f in fields(dataset) if f.name != "name"}


def _source(where: str, name: str, entry: Any) -> Source:
    check_keys(where, entry, ("licence", "terms", "origins", "hidden_size", "parameters"))
    origins = entry.get("origins")
    if not isinstance(origins, list) or not origins:
        raise ConfigError(f"{where}.origins: expected a list of at least one, got {origins!r}.")
    built = tuple(
        _build(Origin, f"{where}.origins[{i}]", settings=origin) for i, origin in enumerate(origins)
    )
    return _build(Source, where, name=name, settings={**entry, "origins": built})


def _build(cls: type, where: str, settings: Any, **fixed: str) -> Any:
    """`build_dataclass`, with the place put before errors of the class itself too."""
    check_keys(where, settings, set(cls.__dataclass_fields__) - fixed.keys())
    try:
        return build_dataclass(cls, where, {**settings, **fixed})
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}.{text}") from error
