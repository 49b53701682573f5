"""How every job is started and logged, and what is said when one fails or a snakemake was killed."""

import fcntl
import sys

from snakemake.logging import logger

from haste.files import write_yaml
from haste.slurm import PLACEHOLDER

PROGRAMS = Path(sys.executable).parent
LOGGED = Path(workflow.basedir, "workflow", "scripts", "logged.sh")
# a lock of this file is held by every snakemake that runs jobs here; its end, by SIGKILL too, frees it
ALIVE = Path(".snakemake", "alive")


# Commands are `logged LOG COMMAND`. Where no environment of a rule's own has it, `haste` is found beside
# the Python that runs Snakemake.
shell.prefix('set -euo pipefail; export PATH="$PATH":{PROGRAMS:q}; source {LOGGED:q}; ')


def gpu_slot(wildcards, resources):
    """What a command is put behind that gets a GPU to itself, or to a few: nothing where it needs none."""
    if not resources.gpu:
        return []
    return ["haste", "gpu-slot", "--runs-per-gpu", resources.runs_per_gpu, "--"]


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
    if site("slurm_account") == PLACEHOLDER:
        raise WorkflowError(
            f"slurm_account: {PLACEHOLDER}: put your account into the profile, or delete the line; "
            "`haste doctor --slurm` looks at the rest of it."
        )
    write_yaml(GRID_FILE, config)
    # a plain descriptor stays open until the process ends
    fcntl.flock(os.open(ALIVE, os.O_RDWR | os.O_CREAT), fcntl.LOCK_SH)


onerror:
    logger.error(
        f"Each job that failed is named above, with its files and its log; all logs: {LOGS}. Once the cause "
        "is mended, the same command makes what is missing, and runs go on from their checkpoints."
    )
