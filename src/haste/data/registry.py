"""The registry of data: what can be fetched and from where, and which data sets are made of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from haste.errors import ConfigError, DataError, suggest
from haste.files import read_yaml
from haste.paths import REGISTRY
from haste.settings import (
    Bool,
    Float,
    Int,
    Name,
    SettingError,
    expand_home,
    naming,
    parse,
    settings,
)

_PACKAGE = ("package", "version", "file", "size", "sha256", "members")
NEEDED = {"pip": _PACKAGE, "npm": _PACKAGE, "https": ("url",), "drive": ("url", "file")}
"""by `via`: what an origin must say"""
REFUSED = {
    "pip": ("url",),
    "npm": ("url",),
    "https": ("package", "version"),
    "drive": ("package", "version"),
}
Kind = Literal["xmc", "wordnet", "debian", "wikdict"]
Text = Literal["title", "title+content"]
ORIGINS = ("source", "path", "synth")
"""of a data set: one of them"""
PROPENSITY = (0.55, 1.5)
"""A and B of the propensity model where nobody has fitted others to a data set"""
SynthOption = Literal[
    "like", "scale", "documents", "test_documents", "labels", "labels_per_document", "words", "seed"
]
Counted = Literal["train", "validation", "test", "labels", "train_all", "features"]
Count = Annotated[Int, Field(ge=0)]


def _file_name(value: str) -> str:
    if value == ".." or PurePosixPath(value).name != value:
        raise ValueError(f"{value!r} is not a plain file name")
    return value


def _sha256(value: str) -> str:
    if value and not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is not 64 hexadecimal digits")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if value and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1"):
        raise ValueError(f"{value!r} is not an address that begins with https://")
    return value


FileName = Annotated[str, AfterValidator(_file_name)]
Sha256 = Annotated[str, AfterValidator(_sha256)]


@settings("origin")
class Origin:
    """One place a source can come from: a package, or a file or folder on the web."""

    via: Literal["pip", "npm", "https", "drive"]
    """pip or npm, whose own settings say which index is asked; https; drive (Google Drive)"""
    unpacked: Count
    """bytes of all files together; more is refused. Where nobody has said how many there are: a limit"""
    package: str = ""
    """pip, npm"""
    version: str = ""
    """pip, npm"""
    url: Annotated[str, AfterValidator(_url)] = ""
    """https, drive; one that ends in / is a folder, and its `members` are fetched one by one"""
    file: FileName = ""
    """the archive's name; for https that in the URL unless given"""
    size: Count = 0
    """of the archive, in bytes; 0: not known"""
    sha256: Sha256 = ""
    """of the archive; empty: not known, and the files are held to what they were when first fetched"""
    members: Mapping[FileName, str] = field(default_factory=dict)
    """name it gets -> path in the archive or below the URL; empty: all files of the archive"""
    digests: Mapping[str, Sha256] = field(default_factory=dict)
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
        missing = [key for key in NEEDED[self.via] if not getattr(self, key)]
        if self.is_folder and not self.members:
            missing.append("members")
        if missing:
            raise SettingError(missing[0], f"needed with via: {self.via}")
        for key in (*REFUSED[self.via], *(("file", "size", "sha256") if self.is_folder else ())):
            if getattr(self, key):
                what = "a url that ends in /" if self.is_folder else f"via: {self.via}"
                raise SettingError(key, f"means nothing with {what}")


@settings("source")
class Source:
    """Files that are fetched together: raw data, or a pretrained model (config, tokenizer, weights)."""

    name: str
    licence: str
    """of the data, by name"""
    terms: str
    """what the licence asks for, in short"""
    origins: Annotated[tuple[Origin, ...], Field(min_length=1)]
    """in order of preference"""
    hidden_size: Count = 0
    """of a model; 0 where only the fetched model says it"""
    parameters: Count = 0
    """of a model; 0: not known"""


@settings("dataset")
class Dataset:
    """How a corpus is made of a source, or of a folder of one's own."""

    name: str
    kind: Kind = "xmc"
    """how it is read: xmc (any layout of haste.data.readers, detected), wordnet, debian or wikdict"""
    source: str = ""
    """a name of `sources`"""
    path: Annotated[str, AfterValidator(expand_home)] = ""
    """instead of a source: a folder with the files"""
    synth: Mapping[SynthOption, Any] = field(default_factory=dict)
    """instead of a source: options of `haste synth`, by which it is generated"""
    propensity_a: Annotated[Float, Field(gt=0, le=100)] = PROPENSITY[0]
    """A of the propensity model, see haste.metrics.propensity"""
    propensity_b: Annotated[Float, Field(gt=0, le=10**6)] = PROPENSITY[1]
    """B of the propensity model"""
    opaque_labels: Bool = False
    """nothing may use a label's text"""
    filtered: Bool = False
    """reciprocal pairs leave the predictions before any metric is taken, as is usual for LF data sets"""
    text: Text = "title+content"
    """what a document's text is, where the layout keeps the two apart: title or title+content"""
    validation: Annotated[Float, Field(gt=0, lt=1)] = 0.02
    """share of the published training documents that is held out, where the kind has no split of its own"""
    max_len: Annotated[Int, Field(ge=4, le=4096)] = 128
    """tokens kept of a document where a run does not say otherwise"""
    root: str = ""
    """wordnet: the synset whose subtree it is; empty for all"""
    expected: Mapping[Counted, Count] = field(default_factory=dict)
    """counts; a corpus that differs is refused. Documents of each split; labels: the published L of
    xmc, those with a training document of wordnet; train_all: training documents as published, before
    validation is taken out; features: columns of sparse features"""

    def __post_init__(self) -> None:
        stated = [key for key in ORIGINS if getattr(self, key)]
        if len(stated) != 1:
            what = f"{' and '.join(stated)} exclude each other" if stated else "missing"
            raise SettingError("source", f"{what}; give one of {', '.join(ORIGINS)}")

    def check_counts(self, counts: Mapping[str, int]) -> None:
        """Raise DataError showing both where other counts are expected than `counts`, which may be some
        of them."""
        wrong = [
            f"{key}: expected {number}, found {counts[key]}"
            for key, number in self.expected.items()
            if key in counts and counts[key] != number
        ]
        if wrong:
            raise DataError(
                f"{self.name}: {'; '.join(wrong)}. {'Fetch' if self.source else 'Correct'} the source, or "
                "its `expected` if the data set has changed."
            )


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
            if name in datasets:
                replaced = ("name", *(ORIGINS if any(key in entry for key in ORIGINS) else ()))
                former = dataclasses.asdict(datasets[name])
                entry = {**{key: former[key] for key in former if key not in replaced}, **entry}
            dataset = _named(Dataset, f"datasets.{name}", name, entry)
            if dataset.source and dataset.source not in self.sources:
                raise ConfigError(
                    f"datasets.{name}.source: there is no source {dataset.source!r}."
                    f"{suggest(dataset.source, self.sources)}"
                )
            datasets[name] = dataset
        return replace(self, datasets=datasets)


def load_registry(path: Path | str = REGISTRY) -> Registry:
    """Read and check a registry.

    Raises DataError when the file is missing or not YAML, ConfigError that names the place of a
    wrong value, and for an unknown key the nearest known one.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file. Run this in the repository, or give --registry.")
    value = read_yaml(path)
    with naming(Path(path)):
        parts = parse(_Registry, value, "registry")
        sources, models = (
            {
                name: _named(Source, f"{key}.{name}", name, entry)
                for name, entry in (entries or {}).items()
            }
            for key, entries in (("sources", parts.get("sources")), ("models", parts.get("models")))
        )
        for name in sources.keys() & models.keys():
            raise ConfigError(f"{name!r} is both a source and a model; rename one.")
        return Registry(sources, models, {}).with_datasets(parts.get("datasets") or {})


@with_config(ConfigDict(extra="forbid"))
class _Registry(TypedDict, total=False):
    """The file as written; names become fields when its parts are made."""

    sources: Mapping[Name, Mapping[str, Any]] | None
    models: Mapping[Name, Mapping[str, Any]] | None
    datasets: Mapping[Name, Mapping[str, Any]] | None


def _named(cls: type, where: str, name: str, entry: Any) -> Any:
    """A row of the registry: its settings, and the key it stands under as its name."""
    if isinstance(entry, Mapping):
        if "name" in entry:
            raise ConfigError(f"{where}: unknown key 'name'.")
        entry = {**entry, "name": name}
    return parse(cls, entry, where)
