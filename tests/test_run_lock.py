import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from haste import run_lock
from haste.run_lock import FILE, RunLockedError, locked

HOLD = """
import sys
from pathlib import Path
from haste.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    mkdir, removed = Path.mkdir, []

    def mkdir_once_in_vain(path, *args, **options):
        mkdir(path, *args, **options)
        if not removed:
            removed.append(path.rmdir())

    monkeypatch.setattr(Path, "mkdir", mkdir_once_in_vain)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run" / FILE).is_file()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), locked(tmp_path / "file"):
        pass


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(RunLockedError) as error, locked(tmp_path):
        pass
    assert f"process {holder.pid} on {socket.gethostname()} works" in str(error.value)
    assert error.value.exit_code == 75
    holder.stdin.close()
    holder.wait()
    with locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / FILE).read_text()


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path):
        pass


def test_where_the_system_has_no_locks_it_is_said(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_lock.fcntl, "flock", unsupported)
    with locked(tmp_path):
        assert "Operation not supported" in caplog.text
