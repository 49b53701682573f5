import hashlib
import json
import stat
import sys
from dataclasses import replace

import pytest

from haste.data import download as downloading
from haste.data.download import download
from haste.data.fetch import fetch, verify
from haste.data.registry import Origin, Source
from haste.errors import DataError


@pytest.fixture
def offered(tmp_path, make_tar):
    """Two archives by package name, and the source that knows them."""
    archives, origins = {}, []
    for via, package, members in (
        ("pip", "first", {"data.xml": b"<a/>" * 50}),
        ("npm", "second", {"data.noun": b"noun", "LICENSE": b"free"}),
    ):
        path = make_tar(
            tmp_path / f"{package}.tgz", *((f"p/{n}", content) for n, content in members.items())
        )
        archives[package] = path.read_bytes()
        origins.append(
            Origin(
                via=via,
                package=package,
                version="1.0",
                file=path.name,
                size=path.stat().st_size,
                sha256=hashlib.sha256(archives[package]).hexdigest(),
                members={name: f"p/{name}" for name in members},
                unpacked=sum(map(len, members.values())),
            )
        )
    return archives, Source("words", "The Licence", "Keep the notice.", tuple(origins))


class Downloader:
    def __init__(self, archives):
        self.archives, self.asked = dict(archives), []

    def __call__(self, origin, folder):
        self.asked.append(origin.package)
        content = self.archives[origin.package]
        if content is None:
            raise DataError("no network")
        (folder / origin.file).write_bytes(content)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_fetched_once(offered, tmp_path, caplog):
    archives, source = offered
    out, download = tmp_path / "raw", Downloader(archives)
    with caplog.at_level("INFO"):
        assert fetch(source, out, download) is True
    assert "licence of the data: The Licence. Keep the notice." in caplog.text
    assert names(out) == ["SOURCE.json", "data.xml"]
    record = json.loads((out / "SOURCE.json").read_text())
    assert record["package"] == "first"
    assert record["size"] == len(archives["first"])
    assert record["licence"] == "The Licence"
    assert record["members"]["data.xml"]["size"] == 200
    assert fetch(source, out, download) is False
    assert download.asked == ["first"]
    assert names(tmp_path) == ["first.tgz", "raw", "second.tgz"]  # nothing left beside it


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-5], "truncated: expected {size} bytes, found {found}"),
        (lambda content: content + b"!", "too long: expected {size} bytes, found {found}"),
        (
            lambda content: content[:-1] + b"!",
            "wrong sha256: expected {sha256}, found {found_sha256}",
        ),
        (lambda _: None, "no network"),
    ],
    ids=["truncated", "too long", "altered", "unreachable"],
)
def test_the_second_origin_when_the_first_fails(offered, tmp_path, caplog, damage, reason):
    archives, source = offered
    first, content = source.origins[0], damage(archives["first"])
    reason = reason.format(
        size=first.size,
        sha256=first.sha256,
        found=len(content or b""),
        found_sha256=hashlib.sha256(content or b"").hexdigest(),
    )
    fetch(source, tmp_path / "raw", Downloader({**archives, "first": content}))
    assert (
        f"words: not from first 1.0 (pip): {'' if content is None else 'first.tgz: '}{reason}"
        in (caplog.text)
    )
    assert names(tmp_path / "raw") == ["LICENSE", "SOURCE.json", "data.noun"]


def test_when_all_fail_every_reason_is_given_and_nothing_is_written(offered, tmp_path):
    archives, source = offered
    download = Downloader({"first": None, "second": archives["second"][:-1]})
    with pytest.raises(
        DataError, match=r"first 1.0 \(pip\): no network \| second .*truncated"
    ) as info:
        fetch(source, tmp_path / "raw", download)
    assert "compare it with datasets.yaml" in str(info.value)
    assert not (tmp_path / "raw").exists()


def test_a_download_of_another_name_is_refused(offered, tmp_path):
    _, source = offered
    with pytest.raises(DataError, match=r"expected the file first\.tgz, got other\.tgz"):
        fetch(source, tmp_path / "raw", lambda _, folder: (folder / "other.tgz").touch())


@pytest.mark.parametrize("damage", ["change", "cut", "remove", "record"])
def test_a_damaged_folder_is_seen_and_mended(offered, tmp_path, damage):
    archives, source = offered
    out = tmp_path / "raw"
    fetch(source, out, Downloader(archives))
    path = out / "data.xml"
    if damage == "change":
        path.write_bytes(b"<b/>" * 50)
    elif damage == "cut":
        path.write_bytes(b"<a/>")
    elif damage == "remove":
        path.unlink()
    else:
        (out / "SOURCE.json").write_text("{}")
    expected = {
        "change": "data.xml: wrong sha256",
        "cut": "data.xml: truncated: expected 200 bytes, found 4",
        "remove": "data.xml: missing. Run: haste fetch words --out",
        "record": "SOURCE.json: not the record of a fetched source",
    }
    with pytest.raises(DataError, match=expected[damage]):
        verify(out)
    assert fetch(source, out, Downloader(archives)) is True
    assert verify(out).package == "first"


def test_files_of_two_origins_are_never_mixed(offered, tmp_path):
    archives, source = offered
    out = tmp_path / "raw"
    fetch(source, out, Downloader({**archives, "first": None}))
    (out / "data.noun").write_bytes(b"other")
    fetch(source, out, Downloader(archives))
    assert names(out) == ["SOURCE.json", "data.xml"]


def test_a_new_version_in_the_registry_is_fetched(offered, tmp_path, make_tar):
    archives, source = offered
    out = tmp_path / "raw"
    fetch(source, out, Downloader(archives))
    content = make_tar(tmp_path / "first.tgz", ("p/data.xml", b"<c/>" * 50)).read_bytes()
    newer = replace(
        source.origins[0],
        version="1.1",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    source = replace(source, origins=(newer,))
    assert fetch(source, out, Downloader({"first": content})) is True
    assert (out / "data.xml").read_bytes().startswith(b"<c/>")


@pytest.fixture
def fake_tool(tmp_path, monkeypatch):
    """A program that writes down its arguments, standing for python or npm."""

    def make(code=0):
        path = tmp_path / "tool"
        path.write_text(
            f'#!{sys.executable}\nimport sys\nopen({str(tmp_path / "args")!r}, "w").write("\\n".join'
            f'(sys.argv[1:]))\nsys.stderr.write("no such package\\n")\nsys.exit({code})\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setattr(downloading.sys, "executable", str(path))
        monkeypatch.setattr(downloading.shutil, "which", lambda _: str(path))
        return tmp_path / "args"

    return make


def test_pip_checks_the_hash_before_it_runs_anything(offered, tmp_path, fake_tool):
    origin = offered[1].origins[0]
    arguments = fake_tool()
    download(origin, tmp_path)
    given = arguments.read_text().splitlines()
    assert given[:3] == ["-m", "pip", "download"]
    assert given[given.index("--no-binary") + 1] == "first"
    assert {"--no-deps", "--require-hashes"} <= set(given)
    requirements = tmp_path / "requirements.txt"
    assert given[given.index("--requirement") + 1] == str(requirements)
    assert requirements.read_text() == f"first==1.0 --hash=sha256:{origin.sha256}\n"


def test_npm_runs_no_scripts(offered, tmp_path, fake_tool):
    arguments = fake_tool()
    download(offered[1].origins[1], tmp_path)
    given = arguments.read_text().splitlines()
    assert given[:3] == ["pack", "second@1.0", "--ignore-scripts"]
    assert given[given.index("--pack-destination") + 1] == str(tmp_path)


def test_what_the_tool_said_is_passed_on(offered, tmp_path, fake_tool):
    fake_tool(code=3)
    with pytest.raises(DataError, match="pip failed with exit code 3: no such package"):
        download(offered[1].origins[0], tmp_path)


def test_a_missing_tool_is_named(offered, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm could not be started"):
        download(offered[1].origins[1], tmp_path)
