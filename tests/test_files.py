import re

import numpy as np
import pytest
import scipy.sparse as sp

from haste.errors import DataError
from haste.files import (
    atomic,
    crc32,
    read_csr,
    read_json,
    read_npz,
    sha256,
    write_csr,
    write_json,
    write_npz,
)


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def write_half():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_file_appears_only_when_whole(tmp_path):
    path = tmp_path / "new" / "value.txt"
    with atomic(path) as temporary:
        temporary.write_text("text")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "text"


def test_permissions_follow_the_umask(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_json(tmp_path / "value.json", 1)
    assert (tmp_path / "value.json").stat().st_mode == plain.stat().st_mode


def test_matrix_round_trip_with_int32_ids(tmp_path):
    matrix = sp.random(7, 9, 0.3, format="csr", random_state=0)
    write_csr(tmp_path / "m.npz", matrix)
    back = read_csr(tmp_path / "m.npz")
    assert (back != matrix).nnz == 0
    assert back.indices.dtype == np.int32


def test_missing_and_damaged_files_are_named(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(DataError, match=r"x.json: no such file"):
        read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(DataError, match=r"x.json: not a JSON file \(JSONDecodeError"):
        read_json(path)
    short = tmp_path / "x.npz"
    write_npz(short, a=np.arange(1000))
    short.write_bytes(short.read_bytes()[:200])
    with pytest.raises(DataError, match=r"x.npz: not an .npz file"):
        read_npz(short)


@pytest.mark.parametrize("damage", ["missing", "damaged", "a folder"])
def test_advice_is_given_only_where_a_command_makes_the_file(tmp_path, damage):
    path = tmp_path / "x.json"
    if damage == "damaged":
        path.write_text('{"a": ')
    elif damage == "a folder":
        path.mkdir()
    with pytest.raises(DataError) as by_hand:
        read_json(path)
    with pytest.raises(DataError, match=r"make it.*: haste corpus"):
        read_json(path, "haste corpus")
    assert not re.search("snakemake|[Dd]elete|haste ", str(by_hand.value).replace(str(path), ""))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        read_npz(path)


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_digest(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_crc32_of_the_standard_check_value(tmp_path):
    path = tmp_path / "check.txt"
    path.write_bytes(b"123456789")
    assert crc32(path) == "cbf43926"
