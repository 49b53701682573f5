import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import yaml
from file_server import serving, whole
from filelock import FileLock

from haste.data import download as downloading
from haste.data import fetch as fetching
from haste.data.download import download
from haste.data.fetch import fetch, take, verify
from haste.data.lock import hold_to_lock
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
    """Of all files and folders but locks, which stay."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


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


def altered_record(**changes):
    def alter(out):
        record = json.loads((out / "SOURCE.json").read_text())
        (out / "SOURCE.json").write_text(json.dumps({**record, **changes}))

    return alter


NO_RECORD = r"SOURCE\.json: not the record of a fetched"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda out: (out / "data.xml").write_bytes(b"<b/>" * 50), "data.xml: wrong sha256"),
        (
            lambda out: (out / "data.xml").write_bytes(b"<a/>"),
            "data.xml: truncated: expected 200 bytes, found 4",
        ),
        (
            lambda out: (out / "data.xml").unlink(),
            "data.xml: missing. Run: haste fetch words --out",
        ),
        (lambda out: (out / "SOURCE.json").write_text("{}"), NO_RECORD),
        (altered_record(members={"data.xml": {"size": "?", "sha256": 1}}), NO_RECORD),
        (altered_record(members=[1]), NO_RECORD),
    ],
)
def test_a_damaged_folder_is_seen_and_mended(offered, tmp_path, damage, text):
    archives, source = offered
    out = tmp_path / "raw"
    fetch(source, out, Downloader(archives))
    damage(out)
    with pytest.raises(DataError, match=text):
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


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def web(server, tmp_path, make_tar):
    """A source on the server whose digest nobody knows, and what sets its content."""
    origin = Origin(via="https", url=f"{server.url}/set.tar.gz", unpacked=1000)

    def offer(*members):
        archive = make_tar(tmp_path / "offered.tgz", *members).read_bytes()
        server.script["/set.tar.gz"] = [whole(archive)]
        return archive

    return Source("set", "unknown", "unknown", (origin,)), offer


def test_an_unknown_digest_is_trusted_once_and_held_to_ever_after(web, tmp_path):
    source, offer = web
    lock, out = tmp_path / "data/datasets.lock.yaml", tmp_path / "data/set/raw"
    archive = offer(("base/X.txt", b"first"), ("base/sub/Y.txt", b"y"))
    assert fetch(source, out, lock=lock) is True
    assert (out / "X.txt").read_bytes() == b"first"
    assert (out / "sub/Y.txt").read_bytes() == b"y"
    record = verify(out)
    assert (record.url, record.file) == (source.origins[0].url, "set.tar.gz")
    assert record.sha256 == hashlib.sha256(archive).hexdigest()
    was = hashlib.sha256(b"first").hexdigest()
    locked = yaml.safe_load(lock.read_text())["set"][source.origins[0].url]
    assert locked["files"]["X.txt"] == was
    assert fetch(source, out, lock=lock) is False
    assert names(tmp_path / "data/set") == ["raw"]

    # the same files in another archive, as a site makes that packs a folder for each request
    shutil.rmtree(out)
    offer(("other/sub/Y.txt", b"y"), ("other/X.txt", b"first"))
    assert fetch(source, out, lock=lock) is True

    shutil.rmtree(out)
    offer(("base/X.txt", b"second"), ("base/sub/Y.txt", b"y"))
    with pytest.raises(DataError) as info:
        fetch(source, out, lock=lock)
    now = hashlib.sha256(b"second").hexdigest()
    assert f"X.txt: not what {source.origins[0].url} gave on " in str(info.value)
    assert f"sha256 was {was}, is {now}. If the change is meant, remove its entry" in str(
        info.value
    )
    assert not out.exists()
    assert names(tmp_path / "data/set") == [], "what is refused is not kept to be unpacked again"


def test_sources_fetched_at_the_same_time_are_all_locked(tmp_path):
    path = tmp_path / "datasets.lock.yaml"
    with ThreadPoolExecutor() as pool:
        with FileLock(tmp_path / ".datasets.lock.yaml.lock"):
            held = [
                pool.submit(hold_to_lock, path, name, "there", {"a": name}) for name in ("x", "y")
            ]
            time.sleep(0.2)
        for future in held:
            future.result()
    assert sorted(yaml.safe_load(path.read_text())) == ["x", "y"]


def test_two_that_fetch_the_same_download_it_once(offered, tmp_path):
    archives, source = offered
    downloader = Downloader(archives)

    def slow(origin, folder):
        downloader(origin, folder)
        time.sleep(0.3)

    with ThreadPoolExecutor() as pool:
        done = [pool.submit(fetch, source, tmp_path / "raw", slow) for _ in range(2)]
    assert sorted(future.result() for future in done) == [False, True]
    assert downloader.asked == ["first"]


def test_what_a_killed_one_unpacked_is_removed(offered, tmp_path, monkeypatch):
    archives, source = offered
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "_install", lambda *_: os._exit(9))
        child = multiprocessing.get_context("fork").Process(
            target=fetch, args=(source, tmp_path / "data/raw", Downloader(archives))
        )
        child.start()
        child.join()
    assert child.exitcode == 9
    assert fetch(source, tmp_path / "data/raw", Downloader(archives)) is True
    assert names(tmp_path / "data") == ["raw"]


def test_a_corrupt_download_is_not_locked(web, server, tmp_path):
    source, offer = web
    archive = bytearray(offer(("a", bytes(range(256)) * 3)))
    archive[len(archive) // 2] ^= 255
    server.script["/set.tar.gz"] = [whole(bytes(archive))]
    with pytest.raises(DataError, match=r"set\.tar\.gz: cannot be read"):
        fetch(source, tmp_path / "raw")
    assert not (tmp_path / "datasets.lock.yaml").exists()
    offer(("a", b"1"))
    assert fetch(source, tmp_path / "raw") is True


def test_a_folder_on_the_web_is_a_source(server, tmp_path):
    server.script["/model/config.json"] = [whole(b"{}")]
    server.script["/model/model.bin"] = [whole(b"weights")]
    members = {"config.json": "config.json", "model.safetensors": "model.bin"}
    origin = Origin(via="https", url=f"{server.url}/model/", members=members, unpacked=100)
    source = Source("model", "free", "none", (origin,))
    out = tmp_path / "raw"
    assert fetch(source, out) is True
    assert names(out) == ["SOURCE.json", "config.json", "model.safetensors"]
    assert fetch(source, out) is False
    assert verify(out).size == 9


def test_a_file_whose_digest_is_known_is_held_to_it_from_the_start(server, tmp_path):
    server.script["/model/a"] = [whole(b"other")]
    known = hashlib.sha256(b"right").hexdigest()
    origin = Origin(
        via="https",
        url=f"{server.url}/model/",
        members={"a": "a"},
        digests={"a": known},
        unpacked=100,
    )
    source = Source("model", "free", "none", (origin,))
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(DataError, match=rf"a: wrong sha256: expected {known}, found {found}"):
        fetch(source, tmp_path / "raw")
    server.script["/model/a"] = [whole(b"right")]
    assert fetch(source, tmp_path / "raw") is True


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_copy_of_ones_own_is_taken(web, tmp_path, make_tar, kind):
    source, _ = web
    if kind == "folder":
        given = tmp_path / "mine"
        (given / "sub").mkdir(parents=True)
        (given / "X.txt").write_bytes(b"x")
        (given / "sub/Y.txt").write_bytes(b"y")
    else:
        given = make_tar(tmp_path / "mine.tgz", ("base/X.txt", b"x"), ("base/sub/Y.txt", b"y"))
    out = tmp_path / "data/raw"
    out.mkdir(parents=True)
    take(source, given, out)
    assert (out / "X.txt").read_bytes() == b"x"
    assert (out / "sub/Y.txt").read_bytes() == b"y"
    assert given.exists()
    record = verify(out)
    assert (record.via, record.name) == ("local", "set")
    assert fetch(source, out) is False, "it counts as fetched"
    (out / "X.txt").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"X\.txt: too long: expected 1 bytes, found 7"):
        verify(out)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["base/set/X.txt", "base/set/sparse/X.npz"], {"X.txt", "sparse/X.npz"}),
        (["a/b/c.txt"], {"c.txt"}),
        (
            ["base/.DS_Store", "__MACOSX/base/._X.txt", "base/X.txt", "base/Y.txt"],
            {"X.txt", "Y.txt"},
        ),
    ],
)
def test_files_without_hidden_ones_and_the_folders_that_all_lie_in(
    web, tmp_path, make_tar, given, taken
):
    archive = make_tar(tmp_path / "mine.tgz", *((name, b"1") for name in given))
    take(web[0], archive, tmp_path / "raw")
    assert set(verify(tmp_path / "raw").members) == taken
