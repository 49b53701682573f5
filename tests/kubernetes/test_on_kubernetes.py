"""A small grid through Kubernetes' API where no disk is shared, against the same grid run locally.

The API server is this test's own: what it gets is what a cluster would get, what it runs runs here.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from api_server import ApiServer

pytest.importorskip("snakemake_executor_plugin_kubernetes", reason="make test-kubernetes")
pytest.importorskip("snakemake_storage_plugin_fs", reason="make test-kubernetes")

ROOT = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
PROFILE = "workflow/profiles/kubernetes"
GRID = {
    "name": "cluster",
    "datasets": ["wordnet-smoke"],
    "methods": ["haste", "popularity"],
    "seeds": [0],
    "encoder": {"kind": "bag", "model": "all-MiniLM-L6-v2", "max_len": 32},
    "layer": {"fan_in": 32},
    "training": {"epochs": 2, "batch_size": 64, "device": "cpu"},
}
TARGETS = ("table_main", "table_datasets")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def project(tmp_path) -> Path:
    """A clone with what this checkout has fetched; pods get what git has, and nothing else."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("Snakefile", "workflow", "envs", "results/benchmarks"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "config.yaml").write_text(yaml.safe_dump(GRID))
    (folder / ".gitignore").write_text("/data/\n.snakemake/\n")
    for name in ("wordnet", "models"):
        if (ROOT / "data" / name).is_dir():
            shutil.copytree(ROOT / "data" / name, folder / "data" / name)
    for command in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Of Snakemake and of the pods: no pip, for what a pod installs is here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    pip = programs / "pip"
    pip.write_text("#!/bin/sh\nexit 0\n")
    pip.chmod(0o755)
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": os.pathsep.join(path)}


def snakemake(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [SNAKEMAKE, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def metrics(folder: Path) -> dict[str, bytes]:
    found = sorted(folder.glob("results/cluster/runs/**/metrics.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_dry_run_of_every_device(project, environment):
    (project / "config.yaml").write_text(yaml.safe_dump(GRID | {"training": {"device": "auto"}}))
    said = snakemake(project, environment, "-n", "table_main", "--workflow-profile", PROFILE)
    train = said.split("rule train:")[1].split("\n\n")[0]
    assert "gpu=1" in train
    assert "gpu_manufacturer=nvidia" in train


def test_a_grid_without_a_shared_disk_is_the_local_one(project, environment, tmp_path):
    store = tmp_path / "store"
    pods = tmp_path / "pods"
    store.mkdir()
    pods.mkdir()
    server = ApiServer(pods, environment)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        snakemake(
            project,
            environment | {"KUBECONFIG": str(server.kubeconfig)},
            *TARGETS,
            *("--workflow-profile", PROFILE, "--retries", "0"),
            *("--default-storage-prefix", str(store), "--seconds-between-status-checks", "1"),
            *("--kubernetes-persistent-volumes", f"haste:{store}"),
        )
    finally:
        server.shutdown()
        server.server_close()
    for pod in server.pods.values():
        (container,) = pod["containers"]
        assert (
            container["image"]
            == yaml.safe_load((ROOT / PROFILE / "config.yaml").read_text())["container-image"]
        )
        # Kubernetes wants limits for GPUs, and those that are asked for
        assert container["resources"]["limits"]["memory"]
        assert str(project) not in " ".join(container["args"]), "a path that no pod has"
    # tokens, embeddings, order, two runs, two tables; what is fetched and the corpus are made here
    assert len(server.pods) == 7
    remote = metrics(store)
    snakemake(project, environment, *TARGETS, "--cores", "2", "--workflow-profile", "none")
    assert len(remote) == 2
    assert metrics(project) == remote
    assert (store / "results/cluster/tables/main.csv").exists()
