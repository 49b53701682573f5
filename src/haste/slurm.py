"""Whether jobs of this project can be submitted to the Slurm cluster of this machine, and what stands against it."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from haste.doctor import CheckResult
from haste.errors import ConfigError
from haste.settings import naming, parse, read_settings, settings

PLACEHOLDER = "myaccount"
"""what the profile has before a site edits it"""
PROGRAMS = {
    "sbatch": "nothing can be submitted; run this on a login node of the cluster",
    "squeue": "nobody learns when a job is over",
    "scontrol": "the limits of the cluster are not known",
    "sinfo": "partitions cannot be looked up",
}
FIRST_LOOK = 20
"""seconds after which the profile lets Snakemake look for the first time"""
SHARED = (
    "nfs nfs4 lustre gpfs beegfs ceph cephfs fuse.ceph-fuse cifs 9p panfs wekafs glusterfs fuse.glusterfs pvfs2 "
    "afs smb2"
)
"""file systems, as `stat` calls them, that several machines see"""
GIB_OF_MIB = 1024
ENDED = {
    "TIMEOUT": "the time it asked for was over",
    "OUT_OF_MEMORY": "it used more memory than it asked for",
    "CANCELLED": "scancel ended it",
    "NODE_FAIL": "its node died",
    "FAILED": "its command ended with an error, which its log has",
    "PREEMPTED": "another job took its place",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "it could not end before its deadline",
}
"""what a state of a job that was not completed means"""
Text = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)
]


@settings("default-resources")
class Site:
    """What the profile says of a cluster: its `default-resources`. None where it is silent.

    Numbers may be text there, which Snakemake leaves as it is, and names may be numbers.
    """

    slurm_account: Text | None = None
    slurm_partition: Text | None = None
    gpu_partition: Text | None = None
    max_runtime: Annotated[int, Field(ge=1)] | None = None
    """minutes"""
    max_mem_mb: Annotated[int, Field(ge=1)] | None = None
    """MiB"""

    @classmethod
    def read(cls, profile: Path) -> Site:
        """Of a profile; raises ConfigError or DataError where it cannot be read."""
        path = profile / "config.yaml" if profile.is_dir() else profile
        if not path.is_file():
            raise ConfigError(f"{path} is no file; name the profile: --profile FOLDER.")
        resources = read_settings(path).get("default-resources") or {}
        if isinstance(resources, list):
            # Snakemake's other way to write them: - name=value
            resources = dict(str(resource).partition("=")[::2] for resource in resources)
        if isinstance(resources, Mapping):
            names = {field.name for field in fields(cls)}
            resources = {name: resources[name] for name in resources.keys() & names}
        with naming(path):
            return parse(cls, resources, "default-resources")


def examine_slurm(site: Site, folder: Path) -> Iterator[CheckResult]:
    """A line each of programs, controller, account, partitions with their limits, and the disk of `folder`."""
    for name, consequence in PROGRAMS.items():
        place = shutil.which(name)
        yield CheckResult(name, place or "not there", bool(place), consequence, wrong=not place)
    if not all(map(shutil.which, PROGRAMS)):
        return
    config, error = _ask("scontrol", "show", "config")
    yield CheckResult(
        "controller",
        "answers" if config else error,
        bool(config),
        "slurmctld does not answer; nothing can be submitted until it does",
        wrong=not config,
    )
    if not config:
        return
    if os.environ.get("SLURM_CONF"):
        yield CheckResult(
            "SLURM_CONF",
            os.environ["SLURM_CONF"],
            Path("/etc/slurm/slurm.conf").exists(),
            "the plugin hides it from srun inside a job, which then looks in /etc/slurm, or asks DNS or "
            "slurmd of the node",
        )
    yield _account(site)
    yield _status(config)
    listed, _ = _ask("sinfo", "-h", "-o", "%R|%a|%l|%m|%G")
    partitions = [line.split("|") for line in listed.splitlines()]
    for key in ("slurm_partition", "gpu_partition"):
        yield _partition(site, key, partitions)
    yield _disk(folder)


def ended_jobs(ids: Iterable[str]) -> Iterator[str]:
    """A line for each state in which jobs ended without being completed, as long as Slurm remembers them."""
    listed = ",".join(ids)
    if not listed:
        return
    # without an accounting database sacct fails; squeue has what ended a few minutes ago
    said, _ = _ask("sacct", "-n", "-P", "-X", "-j", listed, "-o", "State,JobID,NodeList")
    if not said:
        said, _ = _ask("squeue", "-h", "-t", "all", "-j", listed, "-o", "%T|%i|%N")
    jobs: dict[str, list[str]] = {}
    for line in said.splitlines():
        state, job, node = line.split("|")
        # sacct adds who cancelled it
        jobs.setdefault(state.split()[0], []).append(f"{job} on {node}" if node else job)
    for state, meaning in ENDED.items():
        if state in jobs:
            yield f"{state}: {meaning}: job {', '.join(jobs[state])}"


def _ask(*command: str) -> tuple[str, str]:
    """What a program says, and what it says where it fails; never both."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    return (done.stdout, "") if done.returncode == 0 else ("", said)


def _account(site: Site) -> CheckResult:
    name = site.slurm_account
    if name == PLACEHOLDER:
        return _wrong(
            "account", name, "default-resources.slurm_account: put your account there, or delete it"
        )
    if name is None and shutil.which("sacct") is None:
        return _wrong(
            "account",
            "none given, and sacct is not there",
            "the plugin asks sacct for one and stops without it; install it (Debian: slurm-client)",
        )
    if name is None:
        return CheckResult("account", "none given", True)
    user = getpass.getuser()
    known, error = _ask("sacctmgr", "-n", "-P", "list", "user", user, "withassoc", "format=account")
    if error and shutil.which("sshare") is None:
        return _wrong(
            "account",
            f"{name}: {error}",
            "the plugin asks sacctmgr and sshare for it and submits nothing without them; install them, or "
            "delete default-resources.slurm_account",
        )
    if error:
        return CheckResult("account", f"{name}, which nothing here can look up: {error}", True)
    names = {line.strip().lower() for line in known.splitlines() if line.strip()}
    if names and name.lower() not in names:
        return _wrong("account", name, f"{user} may charge: {', '.join(sorted(names))}")
    return CheckResult("account", name, True)


def _status(config: str) -> CheckResult:
    match = re.search(r"MinJobAge\s*=\s*(\d+)", config)
    age = int(match[1]) if match else 0
    without = "accounting_storage/none" in config
    return CheckResult(
        "job status",
        f"finished jobs are listed for {age} s, "
        + ("no accounting (slurmdbd)" if without else "accounting is on"),
        age >= 3 * FIRST_LOOK or not without,
        f"without accounting a job that ends is forgotten before Snakemake looks; MinJobAge in "
        f"slurm.conf has to be {3 * FIRST_LOOK} s or more",
        wrong=age < 3 * FIRST_LOOK and without,
    )


def _limit_minutes(text: str) -> int | None:
    """Of sinfo's [days-]hours:minutes:seconds, minutes:seconds or `infinite`."""
    if not re.fullmatch(r"[\d:-]+", text):
        return None
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return (int(days or 0) * 24 + hours) * 60 + minutes


def _partition(site: Site, key: str, listed: Sequence[Sequence[str]]) -> CheckResult:
    """Of `listed`, name, state, limit, memory and gres of each kind of nodes of each partition."""
    name = getattr(site, key)
    setting = f"default-resources.{key}"
    if name is None:
        return CheckResult(key, "none given", True)
    rows = [row for row in listed if row[0] == name]
    if not rows:
        known = ", ".join(dict.fromkeys(row[0] for row in listed))
        return _wrong(key, f"{name}: no such partition", f"{setting}: one of {known}")
    _, states, limits, memories, gres = zip(*rows, strict=True)
    minutes, has_gpus = _limit_minutes(limits[0]), "gpu" in "".join(gres)
    # MiB of its smallest node; 64000+ where its nodes of a kind differ
    memory = min(int(size.rstrip("+")) for size in memories)
    limit = "any time" if minutes is None else f"{minutes} min"
    partition = (
        f"{name}: {limit}, {memory / GIB_OF_MIB:.0f} GiB a node{', GPUs' if has_gpus else ''}"
    )
    faults = []
    if states[0] != "up":
        faults.append("it is down: jobs wait until it is up")
    if key == "gpu_partition" and not has_gpus:
        faults.append(f"no node of it has gres gpu; {setting}: one that has, or delete it")
    if minutes is not None and (site.max_runtime is None or site.max_runtime > minutes):
        faults.append(f"default-resources.max_runtime: at most {minutes}")
    if site.max_mem_mb is None or site.max_mem_mb > memory:
        faults.append(f"default-resources.max_mem_mb: at most {memory}")
    # what no list tells: accounts of a partition, its limits for each user, names of GPUs
    if not faults and (refused := _refused(site, key)):
        faults.append(f"a job is refused: {refused}")
    return CheckResult(key, partition, not faults, "; ".join(faults), wrong=bool(faults))


def _refused(site: Site, key: str) -> str:
    """What sbatch says against the largest job that may be submitted; nothing is."""
    options = {
        "partition": getattr(site, key),
        "account": site.slurm_account,
        "time": site.max_runtime,
        "mem": site.max_mem_mb,
        "gpus": 1 if key == "gpu_partition" else None,
    }
    arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
    _, error = _ask("sbatch", "--test-only", *arguments, "--wrap=true")
    return error


def _disk(folder: Path) -> CheckResult:
    kind, error = _ask("stat", "-f", "-c", "%T", str(folder))
    kind = kind.strip() or error
    nodes, _ = _ask("sinfo", "-h", "-N", "-o", "%n")
    alone = len(set(nodes.split())) <= 1
    return CheckResult(
        "shared file system",
        f"{folder.resolve()} is on {kind}" + (", of the only node" if alone else ""),
        alone or kind in SHARED.split(),
        "if other nodes do not see this folder, jobs fail at once; put the project on a file system "
        "that all share",
    )


def _wrong(what: str, state: str, consequence: str) -> CheckResult:
    return CheckResult(what, state, False, consequence, wrong=True)
