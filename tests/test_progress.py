"""A bar on a terminal, and nothing in a log."""

import os
import pty
import subprocess
import sys

import pytest

CODE = """
from haste.progress import counting, downloading, working
with counting("Counting", 3) as tick:
    tick(2)
with counting("Hidden", 3, shown=False) as tick:
    tick(2)
with downloading("model") as tick:
    tick(1, 2)
with working("Thinking"):
    pass
"""


def on_terminal() -> str:
    """What CODE writes to stderr where that is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", CODE], stderr=follower, check=True, env=environment)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 1 << 16):
            shown += part
    except OSError:  # the end of a terminal
        pass
    os.close(leader)
    return shown.decode()


def test_a_terminal_shows_what_is_done():
    shown = on_terminal()
    assert "2/3" in shown
    assert "Hidden" not in shown
    for what in ("Counting", "Fetching model", "Thinking"):
        assert what in shown


@pytest.mark.parametrize("place", ["pipe", "file"])
def test_a_log_has_no_bars(tmp_path, place):
    path = tmp_path / "log"
    with path.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", CODE],
            stderr=subprocess.PIPE if place == "pipe" else file,
            text=True,
            check=True,
        )
    assert (done.stderr or "") + path.read_text() == ""
