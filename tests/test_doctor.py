import importlib.metadata

import torch
from typer.testing import CliRunner

from haste import doctor
from haste.cli import app


def by_name(folder):
    return {finding.what: finding for finding in doctor.examine(folder)}


def test_what_is_there(tmp_path):
    found = by_name(tmp_path)
    assert found["torch"].found == importlib.metadata.version("torch")
    assert found["torch"].ok
    assert found["GPU"].ok == torch.cuda.is_available()


def test_what_is_missing_and_what_follows(tmp_path, monkeypatch):
    real = importlib.metadata.version

    def version(package):
        if package in ("omikuji", "napkinxc"):
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = by_name(tmp_path)
    assert not found["omikuji"].ok
    assert found["omikuji"].consequence == "the linear row of the main table is not made"
    assert found["napkinxc"].found == "not installed"


def test_no_gpu_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    gpu = by_name(tmp_path)["GPU"]
    assert gpu.found == "none (torch is a CPU build)"
    assert "the benchmarks of kernels and scale need CUDA" in gpu.consequence


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": doctor.GIB})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    (disk,) = (f for name, f in by_name(tmp_path).items() if name.startswith("disk"))
    assert not disk.ok
    assert disk.found == "1.0 GiB free"


def test_the_command_prints_a_line_each(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for word in ("torch", "triton", "GPU", "xclib", "disk"):
        assert word in result.stdout
