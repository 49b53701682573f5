import os
import subprocess
from pathlib import Path

import pytest

from haste import commit
from haste.commit import code_commit


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    found = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"GIT_CONFIG_GLOBAL": os.devnull},
    )
    return found.stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a checkout, with one commit, in the place of haste."""
    folder = tmp_path / "src" / "haste"
    folder.mkdir(parents=True)
    for name in ("__init__.py", "commit.py"):
        (folder / name).write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.delenv("HASTE_COMMIT", raising=False)
    monkeypatch.setattr(commit, "__file__", str(folder / "commit.py"))
    return folder


def test_commit_is_that_of_the_checkout(package):
    assert code_commit() == git(package, "rev-parse", "HEAD")


def test_edited_code_is_told_from_its_commit(package):
    (package / "commit.py").write_text("edited")
    assert code_commit() == git(package, "rev-parse", "HEAD") + "+changes"


def test_other_files_of_the_checkout_do_not_count_as_edits(package):
    (package.parents[1] / "results.csv").write_text("1")
    assert code_commit() == git(package, "rev-parse", "HEAD")


def test_package_in_somebody_elses_repository_has_no_commit(package, monkeypatch):
    installed = package.parents[1] / "site-packages" / "haste"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(commit, "__file__", str(installed / "commit.py"))
    assert code_commit() is None


@pytest.mark.usefixtures("package")
def test_environment_names_the_commit_of_copied_code(monkeypatch):
    monkeypatch.setenv("HASTE_COMMIT", "abc")
    assert code_commit() == "abc"


def test_no_git_no_commit(package, monkeypatch):
    monkeypatch.setenv("PATH", str(package))
    assert code_commit() is None
