import errno
import subprocess
import sys

import pytest

from haste.cli import command as cli
from haste.errors import ConfigError


def haste(*words):
    return subprocess.run(
        [sys.executable, "-m", "haste", *words], capture_output=True, text=True, timeout=120
    )


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path):
    done = haste("train", str(tmp_path / "config.yaml"))
    assert done.returncode == 2
    assert done.stderr.startswith("haste: error: ")
    assert "config.yaml: no such file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_needs_no_heavy_package():
    code = (
        "import sys; from haste.cli import app; "
        "heavy = {'torch', 'pandas', 'seaborn', 'faiss', 'sklearn', 'transformers'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("layer: wrong"), "haste: error: layer: wrong\n"),
        (
            OSError(errno.ENOSPC, "No space left", "model.npz"),
            "haste: error: disk full while writing model.npz",
        ),
    ],
)
def test_expected_errors_become_messages(monkeypatch, capsys, error, text):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(text)


def test_a_bug_keeps_its_trace(monkeypatch):
    def fail():
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError, match="denied"):
        cli.main()
