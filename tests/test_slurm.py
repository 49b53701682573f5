"""What is said of a Slurm cluster, by programs that answer as Slurm's do."""

import os
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from haste.cli import app
from haste.errors import ConfigError
from haste.files import write_yaml
from haste.slurm import ENDED, PLACEHOLDER, Site, ended_jobs, examine_slurm

ANSWERS = {
    "sbatch": "",
    "squeue": "",
    "sacct": "",
    "scontrol": "MinJobAge = 300 sec\nAccountingStorageType = accounting_storage/slurmdbd",
    "sinfo": "cpu|up|1-00:00:00|64000+|(null)\ngpu|up|8:00:00|128000|gpu:h100:4\ndead|down|infinite|1|gpu:1",
    "sacctmgr": "mine\nother",
}
SITE = Site("mine", "cpu", "gpu", 480, 64000)


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Slurm's programs in a folder that is all of PATH, but for what they are written in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("stat", "cat"):
        found = next(Path(p, name) for p in os.environ["PATH"].split(":") if Path(p, name).exists())
        (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, said: str | None, code: int = 0) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        if said is not None:
            stream = 2 if code else 1
            path.write_text(f"#!/bin/sh\ncat >&{stream} <<'END'\n{said}\nEND\nexit {code}\n")
            path.chmod(0o755)

    for name, said in ANSWERS.items():
        write(name, said)
    return write


def wrong(site: Site, folder: Path) -> dict[str, str]:
    return {each.what: each.consequence for each in examine_slurm(site, folder) if each.wrong}


@pytest.mark.usefixtures("answer")
def test_a_cluster_that_fits(tmp_path):
    assert wrong(SITE, tmp_path) == {}


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize(
    ("site", "what", "named"),
    [
        (Site(PLACEHOLDER, "cpu", "gpu", 480, 64000), "account", "slurm_account"),
        (Site("hers", "cpu", "gpu", 480, 64000), "account", "mine, other"),
        (Site("mine", "cpus", "gpu", 480, 64000), "slurm_partition", "cpu, gpu, dead"),
        (Site("mine", "cpu", "cpu", 480, 64000), "gpu_partition", "gres gpu"),
        (Site("mine", "cpu", "gpu", 481, 64000), "gpu_partition", "max_runtime: at most 480"),
        (Site("mine", "cpu", "gpu", 480, 64001), "slurm_partition", "max_mem_mb: at most 64000"),
        (Site("mine", "cpu", "dead", 480, 1), "gpu_partition", "down"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, site, what, named):
    faults = wrong(site, tmp_path)
    assert set(faults) == {what}
    assert named in faults[what]


def test_what_sbatch_says_against_a_job_is_named(tmp_path, answer):
    answer("sbatch", "allocation failure: Invalid account or account/partition combination", 1)
    faults = wrong(SITE, tmp_path)
    assert set(faults) == {"slurm_partition", "gpu_partition"}
    assert all("Invalid account" in fault for fault in faults.values())


@pytest.mark.parametrize("name", ["sbatch", "squeue", "scontrol", "sinfo"])
def test_a_missing_program_is_named(tmp_path, answer, name):
    answer(name, None)
    assert set(wrong(SITE, tmp_path)) == {name}


def test_a_controller_that_does_not_answer(tmp_path, answer):
    answer("scontrol", "Unable to contact slurm controller", 1)
    assert set(wrong(SITE, tmp_path)) == {"controller"}


def test_without_accounting(tmp_path, answer):
    answer("sacctmgr", "You are not running a supported accounting_storage plugin", 1)
    answer("scontrol", "MinJobAge = 300 sec\nAccountingStorageType = accounting_storage/none")
    assert set(wrong(SITE, tmp_path)) == {"account"}
    answer("sshare", "")
    assert wrong(SITE, tmp_path) == {}
    none = Site(None, "cpu", "gpu", 480, 64000)
    assert wrong(none, tmp_path) == {}
    answer("scontrol", "MinJobAge = 10 sec\nAccountingStorageType = accounting_storage/none")
    assert set(wrong(none, tmp_path)) == {"job status"}
    # the plugin would look for an account with it
    answer("sacct", None)
    assert "sacct" in wrong(none, tmp_path)["account"]


def test_jobs_that_ended_are_listed_by_their_state(answer):
    answer("sacct", "TIMEOUT|3|n1\nCOMPLETED|4|n1\nCANCELLED by 0|5|\nNODE_FAIL|6|n2\nTIMEOUT|7|n2")
    lines = list(ended_jobs(["3", "4", "5", "6", "7"]))
    assert lines == [
        f"TIMEOUT: {ENDED['TIMEOUT']}: job 3 on n1, 7 on n2",
        f"CANCELLED: {ENDED['CANCELLED']}: job 5",
        f"NODE_FAIL: {ENDED['NODE_FAIL']}: job 6 on n2",
    ]
    answer("sacct", "Slurm accounting storage is disabled", 1)
    answer("squeue", "OUT_OF_MEMORY|8|n1\nRUNNING|9|n1")
    assert [line.split(":")[0] for line in ended_jobs(["8", "9"])] == ["OUT_OF_MEMORY"]
    answer("squeue", "slurm_load_jobs error: Invalid job id specified", 1)
    assert list(ended_jobs(["8"])) == []
    assert list(ended_jobs([])) == []


@pytest.mark.parametrize(
    "resources",
    [
        {"slurm_account": 12, "slurm_partition": "cpu", "max_runtime": "480", "mem_mb": 1},
        ["slurm_account=12", "slurm_partition=cpu", "max_runtime=480", "mem_mb=1"],
    ],
)
def test_a_profile_in_any_spelling(tmp_path, resources):
    write_yaml(tmp_path / "config.yaml", {"default-resources": resources})
    assert Site.read(tmp_path) == Site("12", "cpu", None, 480, None)


@pytest.mark.parametrize(
    ("profile", "named"),
    [
        ({"default-resources": {"max_runtime": "1d"}}, "default-resources.max_runtime: '1d'"),
        ({"default-resources": {"max_mem_mb": "128GB"}}, "default-resources.max_mem_mb: '128GB'"),
        ({"default-resources": 5}, "default-resources: expected settings"),
        ([], "no configuration in it"),
    ],
)
def test_what_a_profile_cannot_say_is_named(tmp_path, profile, named):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(profile))
    with pytest.raises(ConfigError, match=re.escape(named)):
        Site.read(tmp_path)


@pytest.mark.usefixtures("answer")
def test_the_command_reads_a_profile(tmp_path):
    resources = {"slurm_account": PLACEHOLDER, "slurm_partition": "cpu", "max_runtime": 60}
    write_yaml(tmp_path / "config.yaml", {"default-resources": resources | {"max_mem_mb": 10}})
    result = CliRunner().invoke(app, ["doctor", "--slurm", "--profile", str(tmp_path)])
    assert result.exit_code == 1
    assert PLACEHOLDER in result.output
    with pytest.raises(ConfigError, match="no file"):
        Site.read(tmp_path / "nowhere")
