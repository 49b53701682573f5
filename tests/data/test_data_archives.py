import gzip
import stat
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haste.data import archives
from haste.data.archives import NoRoomError, extract
from haste.errors import DataError


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


def test_only_the_wanted_members_under_their_new_names(make, folder):
    archive = make(("p/data", b"12345"), ("p/code.py", b"evil"), ("p/more", b"67"))
    extract(archive, {"data.txt": "p/data", "more.txt": "p/more"}, folder, limit=7)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        "data.txt": b"12345",
        "more.txt": b"67",
    }


@pytest.mark.parametrize(
    "name", ["../evil", "p/../../evil", "/tmp/evil", "p\\..\\..\\evil", "C:/evil"]
)
def test_paths_out_of_the_folder_are_refused(make, folder, name):
    archive = make(("p/data", b"1"), (name, b"2"))
    with pytest.raises(DataError, match="leads out of the folder; refused"):
        extract(archive, {"data": "p/data"}, folder, limit=100)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_the_like_is_refused_in_tar(tmp_path, folder, make_tar, kind):
    link = tarfile.TarInfo("p/data")
    link.type, link.linkname = kind, "p/secret"
    archive = make_tar(tmp_path / "a.tar.gz", ("p/secret", b"secret"), link)
    with pytest.raises(DataError, match="p/data: is a link, folder or device"):
        extract(archive, {"data": "p/data"}, folder, limit=100)
    assert list(folder.iterdir()) == []


def test_a_link_is_refused_in_zip(tmp_path, folder):
    info = zipfile.ZipInfo("p/data")
    info.external_attr = 0o120777 << 16
    archive = make_zip(tmp_path / "a.zip", (info, "/etc/passwd"))
    with pytest.raises(DataError, match="p/data: is a link, folder or device"):
        extract(archive, {"data": "p/data"}, folder, limit=100)


def test_the_limit_counts_what_is_unpacked(make, folder):
    archive = make(("p/a", b"0" * 60), ("p/b", b"0" * 41))
    with pytest.raises(DataError, match="more bytes than the registry's `unpacked`"):
        extract(archive, {"a": "p/a", "b": "p/b"}, folder, limit=100)


def test_a_missing_member_is_named(make, folder):
    with pytest.raises(DataError, match="has no member p/data"):
        extract(make(("p/other", b"")), {"data": "p/data"}, folder, limit=1)


def test_a_damaged_archive_is_refused(make, folder):
    archive = make(("p/data", bytes(range(256)) * 400))
    archive.write_bytes(archive.read_bytes()[:-300])
    with pytest.raises(DataError, match="damaged archive"):
        extract(archive, {"data": "p/data"}, folder, limit=10**6)


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_files_without_the_folders_that_all_lie_in(make, folder):
    archive = make(
        ("base/set/X.txt", b"x"),
        ("base/set/sparse/X.npz", b"s"),
        ("base/.DS_Store", b"hidden"),
        ("__MACOSX/base/set/._X.txt", b"hidden"),
    )
    extract(archive, {}, folder, limit=2)
    assert tree(folder) == {"X.txt": b"x", "sparse/X.npz": b"s"}


def test_a_single_file_keeps_its_name(make, folder):
    extract(make(("a/b/c.txt", b"1")), {}, folder, limit=1)
    assert tree(folder) == {"c.txt": b"1"}


def test_gzip_is_one_file(tmp_path, folder):
    path = tmp_path / "trn.json.gz"
    path.write_bytes(gzip.compress(b"line\n" * 1000))
    extract(path, {}, folder, limit=5000)
    assert tree(folder) == {"trn.json": b"line\n" * 1000}
    with pytest.raises(DataError, match="more bytes than the registry's `unpacked`"):
        extract(path, {}, folder, limit=4999)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged archive"):
        extract(path, {}, folder, limit=5000)


def test_the_kind_is_told_by_the_content(tmp_path, folder):
    archive = make_zip(tmp_path / "download.tar.gz", ("a.txt", b"1"))
    extract(archive, {}, folder, limit=1)
    assert tree(folder) == {"a.txt": b"1"}


def test_what_is_no_archive_is_refused(tmp_path, folder):
    path = tmp_path / "a.zip"
    path.write_bytes(b"plain text" * 100)
    with pytest.raises(DataError, match=r"a\.zip: not a tar, zip or gzip archive"):
        extract(path, {}, folder, limit=100)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "p/../../evil"])
def test_paths_out_of_the_folder_are_refused_with_all_files_too(make, folder, name):
    with pytest.raises(DataError, match="leads out of the folder; refused"):
        extract(make(("p/data", b"1"), (name, b"2")), {}, folder, limit=100)
    assert tree(folder) == {}


def test_links_are_left_out(tmp_path, folder, make_tar, caplog):
    links = []
    for name, kind in (("p/soft", tarfile.SYMTYPE), ("p/hard", tarfile.LNKTYPE)):
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, "/etc/passwd"
        links.append(link)
    extract(make_tar(tmp_path / "a.tgz", ("p/data", b"1"), *links), {}, folder, limit=100)
    assert tree(folder) == {"data": b"1"}
    assert [record.message for record in caplog.records] == [
        "a.tgz: p/soft is a link; left out",
        "a.tgz: p/hard is a link; left out",
    ]


def test_a_bomb_is_stopped_by_what_it_unpacks_to(make, folder):
    archive = make(("bomb", b"\0" * 10**7))
    assert archive.stat().st_size < 50_000
    with pytest.raises(DataError, match="more bytes than the registry's `unpacked`"):
        extract(archive, {}, folder, limit=10**6)
    assert sum(len(content) for content in tree(folder).values()) <= 10**6


def test_an_archive_of_too_many_files_is_refused(make, folder, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    with pytest.raises(DataError, match="has 4 members; refused"):
        extract(make(*((f"f{i}", b"") for i in range(4))), {}, folder, limit=100)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ((("p/a", b"1"), ("p/a/b", b"2")), "a is both a file and a folder"),
        ((("p/a/b", b"1"), ("p/a", b"2")), "a is both a file and a folder"),
        ((("p/" + "ü" * 150, b"1"), ("p/b", b"2")), r"too long; refused"),
        (((("d/" * 2000) + "a", b"1"), ("b", b"2")), "2001 folders deep"),
    ],
)
def test_names_that_no_folder_can_have(make, folder, members, text):
    with pytest.raises(DataError, match=text) as error:
        extract(make(*members), {}, folder, limit=100)
    assert "\n" not in str(error.value)
    assert tree(folder) == {}


def test_a_gzip_named_by_dots_alone(tmp_path, folder):
    path = tmp_path / "..gz"
    path.write_bytes(gzip.compress(b"text"))
    with pytest.raises(DataError, match="refused"):
        extract(path, {}, folder, limit=100)


@pytest.mark.parametrize("method", [1, 6, 9, 77])
def test_an_unknown_compression_is_named(tmp_path, folder, method):
    archive = make_zip(tmp_path / "a.zip", ("a.txt", b"1"))
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + offset] = method
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: is packed in a way"):
        extract(archive, {}, folder, limit=10)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
@pytest.mark.parametrize("members", [{}, {"a": "p/pipe"}])
def test_a_device_is_refused_in_zip(tmp_path, folder, kind, members):
    info = zipfile.ZipInfo("p/pipe")
    info.external_attr = (kind | 0o644) << 16
    archive = make_zip(tmp_path / "a.zip", ("p/data", b"1"), (info, b""))
    with pytest.raises(DataError, match=r"p/pipe.* is a .*device.*; refused"):
        extract(archive, members, folder, limit=100)
    assert tree(folder) == {}


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_is_refused_in_tar(tmp_path, folder, make_tar, kind):
    info = tarfile.TarInfo("p/pipe")
    info.type = kind
    with pytest.raises(DataError, match="p/pipe is a device or a pipe; refused"):
        extract(make_tar(tmp_path / "a.tgz", ("p/data", b"1"), info), {}, folder, limit=100)


def test_a_full_disk_names_the_target(make, folder):
    (folder / "a").symlink_to("/dev/full")
    with pytest.raises(NoRoomError, match=f"^{folder / 'a'}: the disk is full"):
        extract(make(("a", b"1"), ("b", b"2")), {}, folder, limit=100)
    (folder / "copy").mkdir()
    (folder / "copy/b").symlink_to("/dev/full")
    source = folder.parent / "source"
    source.write_bytes(b"1")
    with pytest.raises(NoRoomError, match=f"^{folder / 'copy/b'}: the disk is full"):
        archives.copy_file(source, folder / "copy/b")
    with pytest.raises(DataError, match=f"^{source / 'below'}: cannot be written"):
        archives.copy_file(source, source / "below")


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
        extract(archive, {}, folder, limit=10**6)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_an_empty_archive_is_refused(make, folder):
    with pytest.raises(DataError, match="holds no file"):
        extract(make(("p/.hidden", b"")), {}, folder, limit=100)


def test_room_is_looked_for_before_anything_is_written(make, folder, monkeypatch):
    usage = archives.shutil.disk_usage(folder)._replace(free=99)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoRoomError, match=r"are needed and 0\.0 GB free"):
        extract(make(("a", b"0" * 50), ("b", b"0" * 50)), {}, folder, limit=10**6)
    assert tree(folder) == {}


def test_an_encrypted_zip_is_refused(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", ("a.txt", b"1"))
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt: is encrypted in the archive; refused"):
        extract(archive, {}, folder, limit=10)
