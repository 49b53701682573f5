"""A small grid through sbatch, with what goes wrong on a cluster, against the same grid run locally.

Inside a cluster of this machine alone, which `make test-slurm` starts: tests/slurm/cluster.sh pytest ...
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JOBS = os.environ.get("HASTE_SLURM_JOBS")
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
LONG = "results/cluster/runs/wordnet-smoke/dense/default/seed0"
GRID = {
    "name": "cluster",
    "datasets": ["wordnet-smoke"],
    "methods": ["dense", "haste", "popularity"],
    "seeds": [0],
    "encoder": {"kind": "bag", "model": "all-MiniLM-L6-v2", "max_len": 32},
    "layer": {"fan_in": 32},
    "training": {"epochs": 2, "batch_size": 64, "device": "cpu", "checkpoint_minutes": 0.02},
    # long enough to be found while it trains, several times
    "overrides": {"dense": {"training": {"epochs": 600}}},
}
TARGETS = ("table_main", "table_runs")
PROFILE = {
    "default-resources": {
        "slurm_partition": "cpu",
        "gpu_partition": "gpu",
        # of a run that asks for more the attempts are as many
        "max_runtime": 5,
        "max_mem_mb": 8000,
    },
    # no limit of Slurm's is shorter
    "set-resources": {"train": {"runtime": 1, "slurm_extra": "'--signal=TERM@20'"}},
    "slurm-init-seconds-before-status-checks": 3,
    "latency-wait": 10,
    # runs in jobs of their own, for they are to fail one by one
    "group-components": ["results=20"],
    "cores": 2,
}

pytestmark = [
    pytest.mark.skipif(JOBS is None, reason="needs a Slurm cluster: make test-slurm"),
    pytest.mark.timeout(1000),
]


def project(folder: Path) -> Path:
    """A copy of the workflow with the grid, and what this checkout has fetched already."""
    folder.mkdir()
    for name in ("Snakefile", "envs", "workflow"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    (folder / "config.yaml").write_text(yaml.safe_dump(GRID))
    for fetched in ("data/wordnet/raw", "data/models/all-MiniLM-L6-v2"):
        if (ROOT / fetched).is_dir():
            shutil.copytree(ROOT / fetched, folder / fetched)
    site = folder / "site"
    site.mkdir()
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    (site / "config.yaml").write_text(yaml.safe_dump(profile | PROFILE))
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SNAKEMAKE, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )


@contextlib.contextmanager
def in_background(folder: Path, log: Path) -> Iterator[subprocess.Popen]:
    """Snakemake that submits; killed at the end if it is still there."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [SNAKEMAKE, *TARGETS, "--workflow-profile", "site"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(what: Callable[[], object], seconds: float = 300) -> object:
    """What it gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, what
        time.sleep(0.5)
    return got


def training(run: str) -> list[int]:
    """Processes of `haste train` of a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"train" in words and any(run.encode() in word for word in words):
                found.append(int(path.parent.name))
    return found


def slurm_job(pid: int) -> str:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    values = dict(pair.split(b"=", 1) for pair in environment if b"=" in pair)
    return values[b"SLURM_JOB_ID"].decode()


def metrics(folder: Path) -> dict[str, bytes]:
    found = sorted(folder.glob("results/cluster/runs/**/metrics.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def next_attempt(project: Path, log: Path, before: int) -> Callable[[], int]:
    """A process in a later attempt than `before`, once it trains: with a checkpoint, or resumed from one."""

    def look() -> int:
        attempts = log.read_text().split("== attempt ")[1:] if log.exists() else []
        processes = training(LONG)
        if len(attempts) <= before or not processes:
            return 0
        checkpoint = project / LONG / "checkpoint"
        begun = checkpoint.exists() and any(checkpoint.iterdir())
        return processes[0] if begun and (before == 0 or "resuming" in attempts[-1]) else 0

    return look


def test_a_grid_by_sbatch_is_the_local_one(tmp_path):
    local, remote = project(tmp_path / "local"), project(tmp_path / "remote")
    done = snakemake(local, *TARGETS, "--cores", "2", "--workflow-profile", "none")
    assert done.returncode == 0, done.stdout[-3000:]

    said = tmp_path / "said"
    log = remote / "logs" / f"{LONG[8:].replace('/runs', '')}.log.attempts"
    with in_background(remote, said) as first:
        pid = wait_for(next_attempt(remote, log, 0))
        # the machine that submits is gone
        first.kill()
    subprocess.run(["scancel", slurm_job(pid)], check=True)
    wait_for(lambda: not training(LONG))
    unlocked = snakemake(remote, "--unlock", "--workflow-profile", "site")
    assert unlocked.returncode == 0, unlocked.stdout

    with in_background(remote, said) as second:
        pid = wait_for(next_attempt(remote, log, 1))
        subprocess.run(["scancel", slurm_job(pid)], check=True)
        os.kill(wait_for(next_attempt(remote, log, 2)), signal.SIGKILL)
        # over its time, however fast this machine is
        os.kill(wait_for(next_attempt(remote, log, 3)), signal.SIGSTOP)
        assert second.wait(timeout=400) == 0, said.read_text()[-5000:]

    text = said.read_text()
    states = Path(JOBS).read_text()
    assert "JobState=CANCELLED" in states
    # killed, and over its time: told so before the end, a run ends by itself, with a checkpoint, and has FAILED
    assert len(re.findall("JobState=(?:FAILED|TIMEOUT)", states)) >= 2
    # each attempt after the first went on instead of beginning again
    assert log.read_text().count("resuming") >= 4, log.read_text()[-3000:]
    assert metrics(remote) == metrics(local)
    assert len(metrics(local)) == 3
    assert text.count("/group_data_") == 1, "corpus, tokens, embeddings and orders in one job"
    # what reaches other machines stays here
    assert not re.search(r"rule_(fetch|fetch_model|configure)/", text)
    submitted = text.count("has been submitted with SLURM jobid")
    sys.stdout.write(f"{submitted} submissions\n")


def test_what_a_cluster_refuses_is_said(tmp_path):
    folder = project(tmp_path / "project")
    target = "data/wordnet-smoke/corpus/corpus.json"
    wrong = ("--default-resources", "slurm_partition=nowhere")
    done = snakemake(folder, target, "--workflow-profile", "site", "--retries", "0", *wrong)
    assert done.returncode != 0
    # sbatch's own words are lost for jobs of a group
    assert "nowhere: no such partition" in done.stdout, done.stdout[-3000:]
