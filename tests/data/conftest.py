"""Archives, and a WordNet of ten synsets, written in both formats; its labels are worked out by hand in the tests."""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Entry:
    uid: str  # "3-n"
    lemmas: list[str]
    gloss: str
    pointers: list[tuple[str, str]]  # ("@", "2-n"), as WNDB writes them
    lexical: int = 0  # so many pointers, the last, belong to the first word


ENTRIES = [
    Entry("1-n", ["entity"], "what exists", [("~", "2-n"), ("+", "5-a")], lexical=1),
    Entry("2-n", ["animal", "living creature"], "a being", [("@", "1-n"), ("~", "3-n")]),
    Entry(
        "3-n",
        ["dog", "domestic dog"],
        "it barks",
        [("@", "2-n"), ("~", "11-n"), ("~", "16-n"), ("~i", "4-n")],
    ),
    Entry("4-n", ["Lassie"], "a dog of films", [("@i", "3-n")]),
    Entry("5-a", ["big(a)", "large"], "of great size", [("&", "6-a"), ("+", "1-n")], lexical=1),
    Entry("6-s", ["huge"], "very great", [("&", "5-a")]),
    Entry("7-r", ["alone"], "without others", []),
    Entry("11-n", ["puppy"], "a young dog", [("@", "3-n"), ("~", "13-n"), ("@", "3-n")]),
    Entry("13-n", ["toy puppy"], "a small puppy", [("@", "11-n")]),
    Entry("16-n", ["poodle"], "a curly dog", [("@", "3-n")]),
]
XML_TYPES = {
    "@": "HYPERNYM",
    "@i": "INSTANCE_HYPERNYM",
    "~": "HYPONYM",
    "~i": "INSTANCE_HYPONYM",
    "&": "SIMILAR_TO",
    "+": "DERIVATION_RELATED",
}


def full(uid: str) -> str:
    number, pos = uid.split("-")
    return f"ENG31-{int(number):08d}-{pos}"


def xml_text(entries) -> str:
    def pointers(chosen):
        return "".join(f"<SR>{full(t)}<TYPE>{XML_TYPES[k]}</TYPE></SR>" for k, t in chosen)

    lines = ["<SYNSETS>"]
    for entry in entries:
        split = len(entry.pointers) - entry.lexical
        words = [f"{lemma}<SENSE>0</SENSE>" for lemma in entry.lemmas]
        words[0] += pointers(entry.pointers[split:])
        synonyms = "".join(f"<LITERAL>{word}</LITERAL>" for word in words)
        lines.append(
            f"<SYNSET><ID>{full(entry.uid)}</ID><SYNONYM>{synonyms}</SYNONYM><POS>n</POS>"
            f"<DEF>{entry.gloss}</DEF>{pointers(entry.pointers[:split])}</SYNSET>"
        )
    return "\n".join([*lines, "</SYNSETS>\n"])


def wndb_line(entry: Entry) -> str:
    number, pos = entry.uid.split("-")
    words = " ".join(f"{lemma.replace(' ', '_')} 0" for lemma in entry.lemmas)
    targets = ((kind, target.split("-")) for kind, target in entry.pointers)
    pointers = "".join(f" {kind} {int(n):08d} {p} 0000" for kind, (n, p) in targets)
    return (
        f"{int(number):08d} 03 {pos} {len(entry.lemmas):02x} {words} {len(entry.pointers):03d}"
        f'{pointers} | {entry.gloss}; also so; "for example"  \n'
    )


@pytest.fixture
def write_xml():
    def write(folder: Path, entries=ENTRIES) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "english_wordnet_version_31.xml"
        path.write_text(xml_text(entries), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_wndb():
    def write(folder: Path, entries=ENTRIES) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, kinds in {"noun": "n", "verb": "v", "adj": "as", "adv": "r"}.items():
            lines = [wndb_line(entry) for entry in entries if entry.uid[-1] in kinds]
            licence = "  1 This software and database | is provided  \n"
            (folder / f"data.{name}").write_text(licence + "".join(lines), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def entries():
    return list(ENTRIES)


@pytest.fixture
def make_tar():
    """Writes a .tar.gz of members that are (name, bytes) or a TarInfo."""

    def make(path: Path, *members) -> Path:
        with tarfile.open(path, "w:gz") as archive:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    archive.addfile(member)
                else:
                    info = tarfile.TarInfo(member[0])
                    info.size = len(member[1])
                    archive.addfile(info, io.BytesIO(member[1]))
        return path

    return make
