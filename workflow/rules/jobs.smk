"""How every job is started and logged, and what is said when one fails or a snakemake was killed."""

import fcntl
import shutil
import sys

from snakemake.logging import logger

from haste.files import write_yaml
from haste.slurm import PLACEHOLDER, ended_jobs, examine_slurm

PROGRAMS = Path(sys.executable).parent
# its text, not its path: a job may run where this folder is not
LOGGED = Path(workflow.basedir, "workflow", "scripts", "logged.sh").read_text()
# a lock of this file is held by every snakemake that runs jobs here; its end, by SIGKILL too, frees it
ALIVE = Path(".snakemake", "alive")
# MiB of disk below which a job that failed is told of it
LEAST_DISK = 16


# Commands are `logged LOG COMMAND`. Where no environment of a rule's own has it, `haste` is found beside
# the Python that runs Snakemake.
shell.prefix('set -euo pipefail; export PATH="$PATH":{PROGRAMS:q}\n{LOGGED}\n')


def gpu_slot(wildcards, resources):
    """What a command is put behind that gets a GPU to itself, or to a few: nothing where it needs none."""
    if not resources.gpu:
        return []
    return ["haste", "gpu-slot", "--runs-per-gpu", resources.runs_per_gpu, "--"]


def stand_in_for_the_disk():
    """Where no disk is shared, let a job find the grid, and by their names the files that it was given."""
    if not GRID_FILE.exists():
        write_yaml(GRID_FILE, config)
    provider = workflow.storage_registry.default_storage_provider
    prefix = workflow.storage_settings.default_storage_prefix
    for folder in (LAYOUT.data_dir, LAYOUT.results / "runs"):
        given = provider.object(f"{prefix.rstrip('/')}/{folder}").local_path()
        given.mkdir(parents=True, exist_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            folder.symlink_to(given.absolute())


if STORED and not workflow.is_main_process:
    stand_in_for_the_disk()


def stale_lock():
    """Whether Snakemake's locks are there and no snakemake is that could have them."""
    if not ALIVE.exists() or not any(Path(".snakemake", "locks").glob("*.lock")):
        return False
    with ALIVE.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


if workflow.is_main_process and stale_lock():
    logger.warning(
        "A snakemake was killed here and its locks were left. End jobs of it that still run, if any; then "
        "`snakemake --unlock` (or `make unlock`) removes the locks, and the next call goes on from there."
    )


# The grid as commands read it. No rule's output: behind a job that must run, Snakemake stops looking
# for reasons of the jobs that wait for it, even if they take its file as `ancient`.
onstart:
    if SITE.slurm_account == PLACEHOLDER:
        raise WorkflowError(
            f"slurm_account: {PLACEHOLDER}: put your account into the profile, or delete the line; "
            "`haste doctor --slurm` looks at the rest of it."
        )
    write_yaml(GRID_FILE, config)
    # a plain descriptor stays open until the process ends
    fcntl.flock(os.open(ALIVE, os.O_RDWR | os.O_CREAT), fcntl.LOCK_SH)


def full_disk():
    """What is wrong with the disk of this folder; empty where it has room for a log and a table."""
    free = shutil.disk_usage(".").free // 2**20
    if free >= LEAST_DISK:
        return ""
    return f"disk full: {Path.cwd()} has {free} MiB left; free space, then the same command goes on"


# here, for Snakemake's own locks are the first that cannot be written
if workflow.is_main_process and full_disk():
    logger.error(full_disk())


onerror:
    if full_disk():
        logger.error(full_disk())
    # of jobs that share a submission Snakemake says neither their state nor that sbatch refused them
    if workflow.executor_plugin.name == "slurm":
        said = "".join(Path(file).read_text() for file in log)
        submitted = re.findall(r"SLURM jobid (\d+)", said)
        for line in ended_jobs(submitted):
            logger.error(f"Slurm: {line}")
        for finding in examine_slurm(SITE, Path()):
            if finding.wrong:
                logger.error(
                    f"haste doctor --slurm: {finding.what}: {finding.state}: {finding.consequence}"
                )
    logger.error(
        f"Each job that failed is named above, with its files and its log; all logs: {LOGS}. Once the cause "
        "is mended, the same command makes what is missing, and runs resume from their checkpoints."
    )
