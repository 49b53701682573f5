import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

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


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(RunLockedError) as error, locked(tmp_path):
        pass
    assert f"process {holder.pid} on {socket.gethostname()}, since 20" in str(error.value)
    assert error.value.exit_code == 75
    holder.stdin.close()
    holder.wait()
    with locked(tmp_path):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / FILE).exists()
    with locked(tmp_path):
        pass


def test_where_the_system_has_no_locks_the_process_decides(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(run_lock.fcntl, "flock", unsupported)
    with locked(tmp_path), pytest.raises(RunLockedError), locked(tmp_path):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    told = {"pid": dead.pid, "host": socket.gethostname(), "since": "then"}
    (tmp_path / FILE).write_text(json.dumps(told))
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("lives", [True, False])
def test_a_lock_of_another_machine_is_watched_for_a_heartbeat(tmp_path, monkeypatch, lives):
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.1)
    path = tmp_path / FILE
    path.write_text(json.dumps({"pid": 7, "host": "another", "since": "then"}))
    if lives:
        done = threading.Event()
        beat = threading.Thread(target=run_lock._heartbeat, args=(path, done))
        beat.start()
        with (
            pytest.raises(RunLockedError, match="process 7 on another, since then"),
            locked(tmp_path),
        ):
            pass
        done.set()
        beat.join()
    else:
        with locked(tmp_path):
            before = path.stat().st_mtime_ns
            deadline = time.monotonic() + 10
            while path.stat().st_mtime_ns == before and time.monotonic() < deadline:
                time.sleep(0.05)
            assert path.stat().st_mtime_ns > before, "it gives signs of life itself"


def test_what_is_half_written_is_nobodys(tmp_path):
    (tmp_path / FILE).write_text("{")
    with locked(tmp_path):
        pass
