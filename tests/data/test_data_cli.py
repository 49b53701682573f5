"""haste fetch and haste corpus, as typed."""

import json
from typing import get_args

import pytest
import typer
import yaml
from file_server import serving, whole
from typer.testing import CliRunner

from haste.cli import app
from haste.data.fetch import verify
from haste.data.registry import SynthOption
from haste.errors import ConfigError

REGISTRY = """
sources:
  small:
    licence: none
    terms: none
    origins: [{via: https, url: URL, unpacked: 10000}]
models:
  encoder:
    licence: none
    terms: none
    origins: [{via: https, url: URL, unpacked: 10000}]
datasets:
  small: {source: small}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def register(folder, url="https://example.org/small.tar.gz"):
    path = folder / "datasets.yaml"
    path.write_text(REGISTRY.replace("URL", url))
    return path


def documents(folder):
    """Twenty training documents and five of test as lines of JSON, with four labels."""
    folder.mkdir()
    for name, number in (("trn", 20), ("tst", 5)):
        rows = (
            {"uid": f"{name}{i}", "title": f"word{i}", "content": "more", "target_ind": [i % 4]}
            for i in range(number)
        )
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_fetch_writes_where_the_workflow_reads(here, make_tar):
    archive = make_tar(here / "small.tar.gz", ("base/trn.json", b"{}")).read_bytes()
    with serving() as server:
        server.script["/small.tar.gz"] = [whole(archive)]
        registry = register(here, f"{server.url}/small.tar.gz")
        for name in ("small", "encoder"):
            result = run("fetch", name, "--registry", registry)
            assert result.exit_code == 0, result.output
    assert (here / "data/small/raw/trn.json").read_bytes() == b"{}"
    assert (here / "data/models/encoder/trn.json").read_bytes() == b"{}"
    assert set(yaml.safe_load((here / "data/datasets.lock.yaml").read_text())) == {
        "small",
        "encoder",
    }


def test_fetch_takes_a_copy_and_asks_nobody(here):
    given = documents(here / "copy")
    result = run("fetch", "small", "--from", given, "--registry", register(here))
    assert result.exit_code == 0, result.output
    assert verify(here / "data/small/raw").via == "local"
    result = run(
        *("corpus", "small", "--raw", "data/small/raw", "--out", "corpus"),
        *("--registry", register(here)),
    )
    assert result.exit_code == 0, result.output
    assert json.loads((here / "corpus/corpus.json").read_text())["n_labels"] == 4


def test_a_folder_of_ones_own_becomes_a_corpus(here):
    folder, registry = documents(here / "mine"), register(here)
    grid = {"name": "own", "datasets": {"mine": {"path": str(folder)}}, "methods": ["dense"]}
    (here / "grid.yaml").write_text(yaml.safe_dump(grid))
    arguments = ("corpus", "mine", "--raw", folder, "--out", "corpus", "--registry", registry)
    unknown = run(*arguments)
    assert isinstance(unknown.exception, ConfigError)
    assert "there is no data set 'mine'" in str(unknown.exception)
    result = run(*arguments, "--grid", "grid.yaml")
    assert result.exit_code == 0, result.output
    info = json.loads((here / "corpus/corpus.json").read_text())
    assert (info["dataset"], info["n_labels"]) == ("mine", 4)
    assert sum(info["documents"].values()) == 25


def test_a_generated_data_set_becomes_a_corpus(here):
    synth = {"documents": 60, "labels": 20, "seed": 1}
    grid = {"name": "own", "datasets": {"made": {"synth": synth}}, "methods": ["dense"]}
    (here / "grid.yaml").write_text(yaml.safe_dump(grid))
    options = [f"--{name}={value}" for name, value in synth.items()]
    assert run("synth", "raw", *options).exit_code == 0
    result = run(
        *("corpus", "made", "--raw", "raw", "--out", "corpus", "--grid", "grid.yaml"),
        *("--registry", register(here)),
    )
    assert result.exit_code == 0, result.output
    info = json.loads((here / "corpus/corpus.json").read_text())
    assert info["documents"]["train"] + info["documents"]["validation"] == 60
    assert (info["licence"], info["source"]) == ("none: generated", {"synth": synth})


def test_a_data_set_is_generated_by_any_option_of_haste_synth():
    command = typer.main.get_command(app).commands["synth"]
    assert {each.name for each in command.params} - {"out"} == set(get_args(SynthOption))
