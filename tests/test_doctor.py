import importlib.metadata

import pytest
import torch
from typer.testing import CliRunner

from haste import doctor
from haste.bench import check
from haste.bench.check import Check, Judgement
from haste.cli import app


def by_name(folder, **options):
    return {finding.what: finding for finding in doctor.examine(folder, **options)}


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as the doctor asks."""
    properties = type("Properties", (), {"name": "Some GPU", "total_memory": 80 * doctor.GIB})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


RIGHT = Check("group_linear", "group", Judgement("values", 1e-3, 5e-3))
WRONG = Check(
    "packed attention with dropout, 16 tokens", "packed", Judgement("gradient of key", 0.5, 5e-3)
)
BROKEN = Check("dense_fused_step", "dense", None, "OutOfResources: shared memory")


def doctor_says(monkeypatch, *checks):
    monkeypatch.setattr(check, "checks", lambda _: iter(checks))
    monkeypatch.setenv("COLUMNS", "400")
    return CliRunner().invoke(app, ["doctor", "--kernels"])


def test_what_is_there(tmp_path):
    found = by_name(tmp_path)
    assert found["torch"].state == importlib.metadata.version("torch")
    assert found["torch"].ok
    assert found["GPU"].ok == torch.cuda.is_available()


def test_what_is_missing_and_what_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "omikuji" else "1")
    found = by_name(tmp_path)
    assert not found["omikuji"].ok
    assert found["omikuji"].consequence == "the linear row of the main table is not made"
    assert found["omikuji"].state == "not installed"


def test_no_gpu_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    gpu = by_name(tmp_path)["GPU"]
    assert gpu.state == "none (torch is a CPU build)"
    assert "the benchmarks of kernels and scale need CUDA" in gpu.consequence


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": doctor.GIB})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    (disk,) = (f for name, f in by_name(tmp_path).items() if name.startswith("disk"))
    assert not disk.ok
    assert disk.state == "1.0 GiB free"


def test_the_command_prints_a_line_each(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for word in ("torch", "triton", "GPU", "xclib", "disk"):
        assert word in result.stdout


@pytest.mark.usefixtures("gpu")
def test_a_gpu_s_kernels_are_checked_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "checks", lambda _: pytest.fail("not asked"))
    kernels = by_name(tmp_path)["kernels"]
    assert kernels.ok
    assert "haste doctor --kernels" in kernels.state


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_kernels_are_not_spoken_of(tmp_path):
    assert "kernels" not in by_name(tmp_path)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_kernels_are_not_checked(tmp_path, monkeypatch):
    kernels = by_name(tmp_path, kernels=True)["kernels"]
    assert not kernels.ok
    assert not kernels.wrong
    assert kernels.state.startswith("not checked; GPU: none (")
    assert doctor_says(monkeypatch).exit_code == 0


@pytest.mark.usefixtures("gpu")
def test_without_triton_kernels_are_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "triton" else "1")
    kernels = by_name(tmp_path, kernels=True)["kernels"]
    assert kernels.state == "not checked without triton"
    assert kernels.consequence == "the Triton kernels do not run; the torch backend does"


@pytest.mark.usefixtures("gpu")
def test_interpreted_kernels_say_nothing_of_compiled_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    kernels = by_name(tmp_path, kernels=True)["kernels"]
    assert not kernels.ok
    assert kernels.consequence == "unset TRITON_INTERPRET and check again"


@pytest.mark.usefixtures("gpu")
def test_right_kernels(monkeypatch):
    result = doctor_says(monkeypatch, RIGHT)
    assert result.exit_code == 0
    assert "kernel: group_linear" in result.stdout
    assert "values: error 1.0e-03, at most 5.0e-03" in result.stdout
    assert "not checked" not in result.stdout
    assert "training.backend: torch" not in result.stdout


@pytest.mark.usefixtures("gpu")
def test_wrong_kernels_and_what_follows(monkeypatch):
    result = doctor_says(monkeypatch, RIGHT, WRONG, BROKEN)
    assert result.exit_code == 1
    assert "gradient of key: error 5.0e-01, at most 5.0e-03" in result.stdout
    assert "only with encoder.attention: torch" in result.stdout
    assert "does not run: OutOfResources: shared memory" in result.stdout
    assert "patterns dense and bottleneck" in result.stdout
    assert "update Triton" in result.stdout


def test_every_family_of_kernels_has_a_consequence():
    assert set(doctor.KERNELS) == set(check.FAMILIES)
