"""Grids through sbatch, with what goes wrong on a cluster, against the same grids run locally.

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
CLUSTER = os.environ.get("HASTE_SLURM")
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
SMOKE = "workflow/configs/smoke.yaml"
RUN = "results/cluster/runs/wordnet-smoke/dense/default/seed0"
CORPUS = "data/wordnet-smoke/corpus/corpus.json"
GRID = {
    "name": "cluster",
    "datasets": ["wordnet-smoke"],
    "methods": ["dense"],
    "seeds": [0],
    "encoder": {"kind": "bag", "model": "all-MiniLM-L6-v2", "max_len": 32},
    # long enough to be found while it trains, several times
    "training": {"epochs": 600, "batch_size": 64, "device": "cpu", "checkpoint_minutes": 0.02},
}
SITE = {"slurm_partition": "cpu", "gpu_partition": "gpu", "max_runtime": 5, "max_mem_mb": 8000}
QUICK = {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 10, "cores": 2}
SIGNAL = "--signal=TERM@20"
# a run in a job of its own, which Slurm does not queue again by itself, as at many sites
ALONE = {
    "group-components": ["results=10"],
    "set-resources": {"train": {"slurm_extra": f"'{SIGNAL} --no-requeue'"}},
    "seconds-between-status-checks": 3,
}

pytestmark = [
    pytest.mark.skipif(CLUSTER is None, reason="needs a Slurm cluster: make test-slurm"),
    pytest.mark.timeout(3000),
]


def project(folder: Path, data: tuple[str, ...] = ("wordnet", "models"), **profile) -> Path:
    """A copy of the workflow with the shipped profile for this cluster, and what has been fetched here."""
    folder.mkdir(exist_ok=True)
    for name in ("Snakefile", "envs", "workflow"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    (folder / "config.yaml").write_text(yaml.safe_dump(GRID))
    for name in data:
        if (ROOT / "data" / name).is_dir():
            shutil.copytree(ROOT / "data" / name, folder / "data" / name)
    site = folder / "site"
    site.mkdir()
    shipped = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    settings = {"default-resources": SITE} | QUICK | profile
    (site / "config.yaml").write_text(yaml.safe_dump(shipped | settings))
    return folder


def snakemake(folder: Path, *arguments: str, seconds: int = 600) -> subprocess.CompletedProcess:
    return subprocess.run(
        [SNAKEMAKE, "--workflow-profile", "site", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
    )


@contextlib.contextmanager
def in_background(folder: Path, log: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Snakemake that submits; killed at the end if it is still there."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [SNAKEMAKE, "--workflow-profile", "site", *arguments],
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


def wait_for(
    what: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 240
) -> object:
    """What it gives as soon as it is true, while the process goes on."""
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, what
        assert process is None or process.poll() is None, "Snakemake has ended"
        time.sleep(0.5)
    return got


def training() -> dict[int, str]:
    """Processes of `haste train` -> their Slurm job."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            job = re.search(rb"\0SLURM_JOB_ID=(\d+)", (folder / "environ").read_bytes())
            if job and b"train" in words and any(RUN.encode() in word for word in words):
                found[int(folder.name)] = job[1].decode()
    return found


def metrics(folder: Path, grid: str) -> dict[str, bytes]:
    found = sorted(folder.glob(f"results/{grid}/runs/**/metrics.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def submissions(said: str) -> int:
    return said.count("has been submitted with SLURM jobid")


def states() -> str:
    """A line of each job that has ended."""
    return Path(CLUSTER, "jobs").read_text()


def next_attempt(log: Path, before: int) -> Callable[[], tuple[int, str] | None]:
    """Process and job of a later attempt than `before`, once it has a checkpoint or resumed from one."""

    def look() -> tuple[int, str] | None:
        attempts = log.read_text().split("== attempt ")[1:] if log.exists() else []
        processes = training()
        if len(attempts) <= before or not processes:
            return None
        checkpoint = log.parents[5] / RUN / "checkpoint"
        begun = checkpoint.exists() and any(checkpoint.iterdir())
        if not begun or (before and "resuming" not in attempts[-1]):
            return None
        return next(iter(processes.items()))

    return look


def test_the_smoke_grid_by_sbatch_is_the_local_one(tmp_path):
    local = metrics(ROOT, "smoke")
    assert local, f"no local runs to compare with: snakemake --cores 2 --configfile {SMOKE}"
    folder = project(tmp_path / "project")
    done = snakemake(folder, "--configfile", SMOKE, seconds=2400)
    assert done.returncode == 0, done.stdout[-5000:]
    remote = metrics(folder, "smoke")
    assert remote.keys() == local.keys()
    # omikuji has no seed
    assert [name for name in local if remote[name] != local[name] and "omikuji" not in name] == []
    assert done.stdout.count("/group_data_") == 1, (
        "corpus, tokens, embeddings and orders in one job"
    )
    # what reaches other machines stays here
    assert not re.search(r"rule_(fetch|fetch_model|configure)/", done.stdout)
    assert submissions(done.stdout) < 12
    sys.stdout.write(f"\n{len(local)} runs, {submissions(done.stdout)} submissions\n")


def test_a_run_that_is_interrupted_is_the_one_that_is_not(tmp_path):
    folder = project(tmp_path / "project", ("wordnet", "models", "wordnet-smoke"), **ALONE)
    said, target = tmp_path / "said", f"{RUN}/metrics.json"
    log = folder / "logs/cluster/wordnet-smoke/dense/default/seed0.log.attempts"
    with in_background(folder, said, target) as first:
        _, job = wait_for(next_attempt(log, 0), first)
        # the machine that submits is gone
        first.kill()
    subprocess.run(["scancel", job], check=True)
    wait_for(lambda: not training())
    unlocked = snakemake(folder, "--unlock")
    assert unlocked.returncode == 0, unlocked.stdout

    with in_background(folder, said, target) as second:
        _, job = wait_for(next_attempt(log, 1), second)
        subprocess.run(["scancel", job], check=True)
        pid, _ = wait_for(next_attempt(log, 2), second)
        os.kill(pid, signal.SIGKILL)
        # its node dies, with all that it runs, and comes back
        pid, _ = wait_for(next_attempt(log, 3), second)
        os.kill(int(Path(CLUSTER, "slurmd.pid").read_text()), signal.SIGKILL)
        node = os.uname().nodename.split(".")[0]
        down = ("scontrol", "update", f"nodename={node}", "state=down", "reason=dead")
        subprocess.run(down, check=True)
        os.kill(pid, signal.SIGKILL)
        # over its time, whatever it does
        pid, job = wait_for(next_attempt(log, 4), second)
        os.kill(pid, signal.SIGSTOP)
        short = ("scontrol", "update", f"jobid={job}", "timelimit=1")
        subprocess.run(short, check=True)
        assert second.wait(timeout=400) == 0, said.read_text()[-5000:]

    text = said.read_text()
    # told so before the end, a run ends by itself, with a checkpoint: FAILED instead of TIMEOUT
    for state in ("CANCELLED", "FAILED", "NODE_FAIL"):
        assert f"JobState={state}" in states()
    for line in re.findall(r"SLURM-job .* failed.*", text):
        sys.stdout.write(f"\n{line}")
    # each attempt after the first went on instead of beginning again
    assert log.read_text().count("resuming") >= 5, log.read_text()[-3000:]
    (remote,) = metrics(folder, "cluster").values()
    shutil.rmtree(folder / "results")
    local = snakemake(folder, target, "--executor", "local", "--cores", "2")
    assert local.returncode == 0, local.stdout[-3000:]
    assert metrics(folder, "cluster") == {target: remote}


def test_a_wrong_partition_is_said(tmp_path):
    site = {"default-resources": SITE | {"slurm_partition": "nowhere"}}
    folder = project(tmp_path / "project", **site)
    done = snakemake(folder, CORPUS, "--retries", "0")
    assert done.returncode != 0
    # sbatch's own words are lost for jobs of a group
    assert "doctor --slurm: slurm_partition: nowhere: no such partition" in done.stdout


def test_wrong_gpus_are_said(tmp_path):
    site = {"set-resources": {"train": {"gpu_model": "h900"}}}
    folder = project(tmp_path / "project", ("wordnet", "models", "wordnet-smoke"), **site)
    on_gpu = GRID | {"training": GRID["training"] | {"device": "cuda"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(on_gpu))
    done = snakemake(folder, f"{RUN}/metrics.json")
    assert done.returncode != 0
    said = re.search(r"SLURM sbatch failed. The error message was '([^']*)", done.stdout)
    assert said, done.stdout[-3000:]
    assert "gres" in said[1] or "Requested node configuration is not available" in said[1]
    sys.stdout.write(f"\n{said[0]}\n")


def test_scancel_by_a_user_is_said(tmp_path):
    held = {"corpus": {"slurm_extra": "'--hold'"}}
    folder = project(tmp_path / "project", **{"set-resources": held})
    said = tmp_path / "said"
    with in_background(folder, said, CORPUS, "--retries", "0") as process:
        wait_for(lambda: submissions(said.read_text()), process)
        job = re.search(r"SLURM jobid (\d+)", said.read_text())[1]
        subprocess.run(["scancel", job], check=True)
        assert process.wait(timeout=120) != 0
    assert f"Slurm: CANCELLED: scancel ended it: job {job}" in said.read_text()


def test_a_full_disk_is_said(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)], check=True)
    try:
        project(folder)
        said = tmp_path / "said"
        held = ("--set-resources", "corpus:slurm_extra='--hold'")
        with in_background(folder, said, CORPUS, "--retries", "0", *held) as process:
            wait_for(lambda: submissions(said.read_text()), process)
            with contextlib.suppress(OSError), (folder / "fill").open("wb") as file:
                while True:
                    file.write(bytes(2**20))
            job = re.search(r"SLURM jobid (\d+)", said.read_text())[1]
            subprocess.run(["scontrol", "release", job], check=True)
            assert process.wait(timeout=120) != 0
        # by whoever was the first to write: Snakemake about the job, or the job
        assert re.search(f"disk full: {folder}|No space left on device", said.read_text())
        # and it does not begin on it
        again = snakemake(folder, CORPUS)
        assert again.returncode != 0
        assert "disk full" in again.stdout
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
