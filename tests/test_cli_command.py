import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from haste.cli import command as cli
from haste.errors import ConfigError

REGISTRY = Path(__file__).parents[1] / "src/haste/data/datasets.yaml"


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
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(text)


def test_a_bug_keeps_its_trace(monkeypatch):
    def fail(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli.main()


GRID = "{name: mine, datasets: [wordnet-mini], methods: [dense, haste], seeds: [0]}"
CONFIGURE = ["configure", "--grid", "grid.yaml", "--dataset", "wordnet-mini", "--method", "dense"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*CONFIGURE, "--out", "file/config.yaml"], ["file"]),
        ([*CONFIGURE, "--out", "folder"], ["folder"]),
        (["synth", "file/set", "--documents=50", "--labels=30"], ["file"]),
        (["predict", "--run", "folder", "--input", "folder"], ["folder"]),
        (["train", "folder"], ["folder"]),
        (["plan", "--grid", "folder"], ["folder"]),
        (["train", "grid.yaml"], ["grid.yaml", "grid", "haste configure"]),
        (["plan", "--grid", "run.yaml"], ["run.yaml", "haste train"]),
        (["plan", "--grid", "list.yaml"], ["list.yaml"]),
        (["plan", "--grid", "absent.yaml"], ["absent.yaml", "data/absent"]),
        ([*CONFIGURE[:-1], "hast", "--out", "x.yaml"], ["grid.yaml: ", "hast", "'haste'"]),
        ([*CONFIGURE, "--seed", "7", "--out", "x.yaml"], ["grid.yaml: ", "seed 7", "Known: 0"]),
        (["train", "wrong.yaml"], ["wrong.yaml", "seed"]),
    ],
    ids=" ".join,
)
def test_slips_are_one_line_that_names_the_file(monkeypatch, tmp_path, capsys, words, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "absent.yaml").write_text(
        "{name: mine, datasets: {toys: {path: data/absent}}, methods: [dense]}"
    )
    run = "{dataset: a, method: b, variant: c, seed: %s, inputs: {corpus: d, tokens: e, model: f}}"
    (tmp_path / "run.yaml").write_text(run % 0)
    (tmp_path / "wrong.yaml").write_text(run % -1)
    monkeypatch.setattr(sys, "argv", ["haste", *words])
    if words[0] == "plan":
        sys.argv += ["--registry", str(REGISTRY)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("haste: error: ")
    for part in said:
        assert part in line


def test_a_reader_that_has_enough_is_no_fault():
    code = "import sys; print('x' * 9, flush=True)\nfor _ in range(10**6): print('x')"
    run = f"from haste.cli import command; command.app = lambda *_: exec({code!r}); command.main()"
    with subprocess.Popen(
        [sys.executable, "-c", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("words", [[], ["bench"]], ids=" ".join)
def test_a_command_without_a_subcommand_prints_its_help(words):
    done = haste(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage:" in done.stdout
    assert done.stdout == haste(*words, "-h").stdout


@pytest.mark.parametrize(
    "option",
    [
        "--scale=inf",
        "--scale=nan",
        "--scale=-1",
        "--seed=-1",
        "--words=-1",
        "--labels-per-document=nan",
    ],
)
def test_numbers_of_the_command_line_have_ranges_too(monkeypatch, tmp_path, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["haste", "synth", "set", "--like=eurlex-4k", option])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert not (tmp_path / "set").exists()
