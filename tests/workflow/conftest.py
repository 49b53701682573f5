"""The workflow in folders of their own: as it is, and with a small grid finished."""

import shutil

import pytest
from filelock import FileLock
from workflow_project import GRID, Project, copy_workflow


@pytest.fixture
def project(tmp_path) -> Project:
    """The workflow as it is, nothing made yet."""
    return copy_workflow(tmp_path / "project")


@pytest.fixture(scope="session")
def finished_session(tmp_path_factory, worker_id) -> Project:
    # made once, also where several workers of pytest-xdist need it
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            project = copy_workflow(folder.with_name("unfinished"))
            project.configure(GRID)
            result = project.snakemake("--cores", "2")
            assert result.returncode == 0, result.stdout[-3000:]
            project.root.rename(folder)
    return Project(folder)


@pytest.fixture
def finished(finished_session, tmp_path) -> Project:
    """A grid of which everything has been made (by the stub), in a folder of the test's own."""
    # times of files kept, for Snakemake compares them
    shutil.copytree(finished_session.root, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    stub = project.root / "stub.log"
    stub.unlink()
    return project
