"""The locked environments: one list of versions, in the forms that pip and conda read."""

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


def conda_pins(name: str) -> list[str]:
    value = yaml.safe_load((ENVS / name).read_text())
    return value["dependencies"][-1]["pip"]


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for part in (project["dependencies"], *extras) for text in part]


@pytest.mark.parametrize("file", ["cpu.txt", "gpu.txt"])
def test_every_dependency_is_locked_to_a_version_it_allows(file):
    locked = pins(file)
    for requirement in requirements():
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_versions_that_results_depend_on():
    locked = pins("cpu.txt")
    assert (locked["torch"], locked["triton"]) == ("2.13.0", "3.7.1")
    assert locked["snakemake"] == "9.27.1"
    assert pins("gpu.txt") == locked


def test_report_needs_no_torch():
    assert "torch" not in pins("report.txt")


def test_conda_has_the_versions_of_pip():
    listed = dict(text.split("==") for text in conda_pins("cpu.yaml"))
    assert {canonicalize_name(name): version for name, version in listed.items()} == pins("cpu.txt")
    assert conda_pins("gpu.yaml") == ["-r gpu.txt"]
    assert conda_pins("report.yaml") == ["-r report.txt"]


def test_xclib_is_one_commit():
    lines = (ENVS / "xclib.txt").read_text().splitlines()
    (line,) = [line for line in lines if line and not line.startswith("#")]
    assert line.endswith("kunaldahiya/pyxclib@5d130862df91a06d03b296ad264c89b037c33db7")
