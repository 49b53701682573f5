import tarfile
import zipfile

import pytest

from haste.data.archives import extract
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
