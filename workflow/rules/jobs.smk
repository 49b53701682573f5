"""How every job is started and logged, and what is said when one fails or a snakemake was killed."""

import fcntl
import sys

from snakemake.logging import logger

from haste.files import write_yaml
from haste.slurm import PLACEHOLDER, Site, examine_slurm

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


# what Snakemake's plugin says of a job that Slurm ended is its state alone, and of jobs that share a
# submission nothing, also where sbatch refused them
SLURM_STATES = (
    "Slurm's states: TIMEOUT, its time was over (runs go on in the next attempt; default-resources.max_runtime "
    "limits what is asked for); OUT_OF_MEMORY (max_mem_mb); CANCELLED, by scancel: end Snakemake by Ctrl-C "
    "instead, or it submits the job again; NODE_FAIL, its node died; FAILED, see the job's log. Where none is "
    "named, for jobs of a group: `scontrol show job ID`."
)


onerror:
    if workflow.executor_plugin.name == "slurm":
        logger.error(SLURM_STATES)
        given = Site(**{field.name: site(field.name) for field in fields(Site)})
        for finding in examine_slurm(given, Path()):
            if finding.wrong:
                logger.error(
                    f"haste doctor --slurm: {finding.what}: {finding.state}: {finding.consequence}"
                )
    logger.error(
        f"Each job that failed is named above, with its files and its log; all logs: {LOGS}. Once the cause "
        "is mended, the same command makes what is missing, and runs go on from their checkpoints."
    )
