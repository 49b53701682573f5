"""The locked environments: one list of versions, in the forms that pip and conda read."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workflow_project import ROOT

ENVS = ROOT / "envs"


def pins(name: str) -> dict[str, str]:
    """Package -> exact version of a pip file and those that it includes."""
    found: dict[str, str] = {}
    for line in (ENVS / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r "))
        elif line:
            requirement = Requirement(line)
            (version,) = requirement.specifier
            assert version.operator == "==", line
            found[canonicalize_name(requirement.name)] = version.version
    return found


def requirements(file: str) -> list[Requirement]:
    """What a lock must have; few submit to Kubernetes, and fewer look at TensorBoard."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["tensorboard"]
    if file != "kubernetes.txt":
        del extras["kubernetes"]
    return [
        Requirement(text) for part in (project["dependencies"], *extras.values()) for text in part
    ]


@pytest.mark.parametrize("file", ["cpu.txt", "gpu.txt", "kubernetes.txt"])
def test_every_dependency_is_locked_to_a_version_it_allows(file):
    locked = pins(file)
    for requirement in requirements(file):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_versions_that_results_depend_on():
    locked = pins("cpu.txt")
    assert (locked["torch"], locked["triton"]) == ("2.13.0", "3.7.1")
    assert locked["snakemake"] == "9.27.1"
    assert pins("gpu.txt") == locked


def test_report_needs_no_torch():
    assert "torch" not in pins("report.txt")


@pytest.mark.parametrize(("conda", "pip"), [("haste", "cpu"), ("report", "report")])
def test_conda_has_the_versions_of_pip(conda, pip):
    *_, listed = yaml.safe_load((ENVS / f"{conda}.yaml").read_text())["dependencies"]
    # no file is included: Snakemake builds an environment from a copy of its file, elsewhere
    found = dict(text.split("==") for text in listed["pip"])
    assert {canonicalize_name(name): version for name, version in found.items()} == pins(
        f"{pip}.txt"
    )


def test_every_conda_file_is_compared_with_its_lock_and_the_rules_have_no_other():
    assert {path.stem for path in ENVS.glob("*.yaml")} == {"haste", "report"}
    named = {
        name
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"envs/(\S+)\.yaml", path.read_text())
    }
    assert named == {"haste"}


def test_xclib_is_one_commit():
    lines = (ENVS / "xclib.txt").read_text().splitlines()
    (line,) = [line for line in lines if line and not line.startswith("#")]
    assert line.endswith("kunaldahiya/pyxclib@5d130862df91a06d03b296ad264c89b037c33db7")
