import gzip
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haste.data import archives
from haste.data.archives import NoRoomError, disk_errors, extract
from haste.errors import DataError

DAMAGED = "not an archive .* that can be unpacked here"


def make_zip(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["a.tar.gz", "a.tgz", "a.whl", "a.zip"])
def make(request, tmp_path, make_tar):
    maker = make_tar if request.param in ("a.tar.gz", "a.tgz") else make_zip
    return lambda *members: maker(tmp_path / request.param, *members)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    return folder


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_the_wanted_members(make, folder):
    archive = make(("p/data", b"12345"), ("p/code.py", b"evil"), ("p/more", b"67"))
    extract(archive, ["p/data", "p/more"], folder, limit=7)
    assert tree(folder) == {"p/data": b"12345", "p/more": b"67"}


def test_a_zip_of_windows_has_folders_as_others(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        member = zipfile.ZipInfo()
        member.filename = "p\\data"
        archive.writestr(member, b"1")
    extract(tmp_path / "windows.zip", ["p/data"], folder, limit=1)
    assert tree(folder) == {"p/data": b"1"}


@pytest.mark.parametrize(
    "name", ["../evil", "p/../../evil", "/tmp/evil", "p\\..\\..\\evil", "C:/evil"]
)
@pytest.mark.parametrize("members", [[], ["p/data"]])
def test_paths_out_of_the_folder_are_refused(make, folder, name, members):
    archive = make(("p/data", b"1"), (name, b"2"))
    with pytest.raises(DataError, match="leads out of the folder; refused"):
        extract(archive, members, folder, limit=100)
    assert tree(folder) == {}


def tar_with(kind):
    def make(path, make_tar):
        info = tarfile.TarInfo("p/other")
        info.type, info.linkname = kind, "/etc/passwd"
        return make_tar(path, ("p/data", b"1"), info)

    return make


def zip_with(kind):
    def make(path, _):
        info = zipfile.ZipInfo("p/other")
        info.external_attr = (kind | 0o644) << 16
        return make_zip(path, ("p/data", b"1"), (info, "/etc/passwd"))

    return make


@pytest.mark.parametrize(
    "make",
    [
        *map(tar_with, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)),
        *map(zip_with, (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK)),
    ],
)
def test_links_and_devices_are_left_out(tmp_path, folder, make_tar, caplog, make):
    archive = make(tmp_path / "a", make_tar)
    extract(archive, [], folder, limit=100)
    assert tree(folder) == {"p/data": b"1"}
    assert [record.message for record in caplog.records] == [
        "a: p/other is a link or a device; left out"
    ]
    with pytest.raises(DataError, match="a: has no file p/other"):
        extract(archive, ["p/other"], folder, limit=100)


def test_a_missing_member_is_named(make, folder):
    with pytest.raises(DataError, match="has no file p/data"):
        extract(make(("p/other", b"")), ["p/data"], folder, limit=1)


def test_a_damaged_archive_is_refused(make, folder):
    archive = make(("p/data", bytes(range(256)) * 400))
    archive.write_bytes(archive.read_bytes()[:-300])
    with pytest.raises(DataError, match=DAMAGED):
        extract(archive, ["p/data"], folder, limit=10**6)


def test_gzip_is_one_file(tmp_path, folder):
    path = tmp_path / "trn.json.gz"
    path.write_bytes(gzip.compress(b"line\n" * 1000))
    extract(path, [], folder, limit=5000)
    assert tree(folder) == {"trn.json": b"line\n" * 1000}
    with pytest.raises(DataError, match="more bytes than the registry's `unpacked`"):
        extract(path, [], folder, limit=4999)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=DAMAGED):
        extract(path, [], folder, limit=5000)


def test_what_is_no_archive_is_refused(tmp_path, folder):
    path = tmp_path / "a.zip"
    path.write_bytes(b"plain text" * 100)
    with pytest.raises(DataError, match=rf"a\.zip: {DAMAGED} .*of no known kind"):
        extract(path, [], folder, limit=100)


def test_a_bomb_is_stopped_by_what_it_unpacks_to(make, folder):
    archive = make(("bomb", b"\0" * 10**7))
    assert archive.stat().st_size < 50_000
    with pytest.raises(DataError, match="more bytes than the registry's `unpacked`"):
        extract(archive, [], folder, limit=10**6)
    assert sum(len(content) for content in tree(folder).values()) <= 10**6


def test_a_full_disk_names_the_target(tmp_path):
    for path, error, text in (
        ("/dev/full", NoRoomError, "the disk is full"),
        (tmp_path, DataError, "cannot be written"),
    ):
        with (
            pytest.raises(error, match=f"^target: {text}"),
            disk_errors("target"),
            Path(path).open("wb") as file,
        ):
            file.write(b"1")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_zip_or_tar_gives_files_or_one_line(tmp_path_factory, make_tar, data):
    folder = tmp_path_factory.mktemp("fuzz")
    maker = data.draw(st.sampled_from([make_zip, make_tar]))
    archive = maker(folder / "a", ("p/data", bytes(range(256)) * 4), ("p/more", b"text"))
    content = bytearray(archive.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    archive.write_bytes(content)
    try:
        extract(archive, [], folder, limit=10**6)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_room_is_looked_for_before_anything_is_written(make, folder, monkeypatch):
    usage = archives.shutil.disk_usage(folder)._replace(free=99)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoRoomError, match=r"are needed and 0\.0 GB free"):
        extract(make(("a", b"0" * 50), ("b", b"0" * 50)), [], folder, limit=10**6)
    assert tree(folder) == {}
