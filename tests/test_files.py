import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from haste.errors import DataError
from haste.files import (
    atomic,
    crc32,
    mapped_array,
    naming_target,
    read_csr,
    read_json,
    read_npz,
    remove_leftovers,
    sha256,
    write_csr,
    write_json,
    write_npz,
)
from haste.tensor_file import save_tensors


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


WRITE = """
import os, signal, sys
from pathlib import Path
from haste.files import atomic
with atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read() if sys.argv[2] == "wait" else os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays(tmp_path):
    path, other = tmp_path / "state.bin", tmp_path / "other.bin"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for target in (path, other):
        subprocess.run([sys.executable, "-c", WRITE, str(target), "die"], stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", WRITE, str(path), "wait"], **pipes) as live:
        written = Path(live.stdout.readline().strip())
        assert len(list(tmp_path.iterdir())) == 2
        with atomic(path) as temporary, atomic(path) as second:
            temporary.write_text("first")
            second.write_text("second")
        assert written.read_text() == "half"
        left = sorted(each for each in tmp_path.iterdir() if each not in (path, written))
        assert [each.name.startswith(".other.") for each in left] == [True]
        live.stdin.close()
    assert path.read_text() == "half"
    assert sorted(tmp_path.iterdir()) == sorted([path, *left])


def test_what_nobody_can_be_asked_about_goes_after_a_day(tmp_path):
    left = tmp_path / ".x.another_host-7-0123abcd-abcd_123.bin"
    left.touch()
    remove_leftovers(tmp_path / "x.bin")
    assert left.exists()
    os.utime(left, (0, 0))
    remove_leftovers(tmp_path / "x.bin")
    assert not left.exists()


def write_savez(path):
    write_npz(path, a=np.random.default_rng(0).random(1 << 16))


def write_raw(path):
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.zeros(1 << 16))


def write_mapped(path):
    with atomic(path) as temporary:
        mapped_array(temporary, np.float32, (1 << 16,))[:] = 1


def write_unnamed(path):
    with naming_target(path), tempfile.TemporaryFile(dir=path.parent) as file:
        mapped_array(file, np.float32, (1 << 16,))[:] = 1


def write_tensors(path):
    save_tensors(path, {"a": torch.zeros(1 << 16)})


def test_a_full_disk_names_the_target(tmp_path):
    path = tmp_path / "target.npz"
    writers = [write_savez, write_raw, write_mapped, write_unnamed, write_tensors]
    code = (
        "import resource, sys; from pathlib import Path; import test_files; "
        "from haste.cli import command\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))\n"
        "for name in sys.argv[2:]:\n"
        "    command.app = lambda *_: getattr(test_files, name)(Path(sys.argv[1]))\n"
        "    try: command.main()\n"
        "    except SystemExit as stopped: print(name, stopped.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, *(write.__name__ for write in writers)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [f"{write.__name__} 2" for write in writers], done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(writers)
    assert all(line.startswith(f"haste: error: disk full while writing {path} (") for line in said)
    assert list(tmp_path.iterdir()) == []


def test_digest(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_crc32_of_the_standard_check_value(tmp_path):
    path = tmp_path / "check.txt"
    path.write_bytes(b"123456789")
    assert crc32(path) == "cbf43926"
