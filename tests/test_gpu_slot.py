"""Slots on GPUs that are not there: a name is all that a slot needs."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from haste import gpu_slot
from haste.errors import ConfigError
from haste.gpu_slot import execute, take_slot, visible_gpus

UUIDS = gpu_slot._uuids


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """What tests get is what they name, on a machine with GPUs too."""
    monkeypatch.setattr(gpu_slot, "_uuids", list)


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("0,-1,1", ["0"]),
    ],
)
def test_gpus_are_those_that_cuda_would_show(monkeypatch, listed, names):
    monkeypatch.setattr(gpu_slot, "_uuids", lambda: ["GPU-a", "GPU-b"])
    assert visible_gpus({} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}) == names


@pytest.mark.parametrize(
    ("said", "code", "names"),
    [
        ("GPU-a\nGPU-b", 0, ["0", "1"]),
        ("No devices were found", 0, []),
        ("No devices were found", 6, []),
        (None, 0, []),
    ],
)
def test_gpus_are_what_nvidia_smi_lists_not_what_it_says(monkeypatch, tmp_path, said, code, names):
    monkeypatch.setattr(gpu_slot, "_uuids", UUIDS)
    monkeypatch.setenv("PATH", str(tmp_path))
    if said is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{said}'\nexit {code}\n")
        program.chmod(0o755)
    assert visible_gpus({}) == names


def test_slots_are_spread_over_gpus_and_a_freed_one_is_taken(monkeypatch, tmp_path):
    taken = [take_slot(["a", "b", "c"], 2, tmp_path) for _ in range(6)]
    assert Counter(name for name, _ in taken) == {"a": 2, "b": 2, "c": 2}
    assert {name for name, _ in taken[:3]} == {"a", "b", "c"}, "the freest first"
    freed = iter([descriptor for name, descriptor in taken if name == "b"])
    monkeypatch.setattr(gpu_slot.time, "sleep", lambda _: os.close(next(freed)))
    assert [take_slot(["a", "b", "c"], 2, tmp_path)[0] for _ in range(2)] == ["b", "b"]


def test_the_same_gpu_by_another_name_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_slot, "_uuids", lambda: ["GPU-a1", "GPU-b2"])
    _, held = take_slot(["1"], 1, tmp_path)
    assert take_slot(["GPU-a1", "GPU-b2"], 1, tmp_path)[0] == "GPU-a1"
    slept = []
    monkeypatch.setattr(gpu_slot.time, "sleep", lambda _: slept.append(os.close(held)))
    # CUDA takes the begin of a name for all of it
    assert take_slot(["GPU-b"], 1, tmp_path)[0] == "GPU-b"
    assert slept


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes a link of another user")
def test_a_link_of_another_user_is_not_followed(monkeypatch, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "haste-gpu-slots-0"
    link.symlink_to(elsewhere)
    os.chown(link, 12345, -1, follow_symlinks=False)
    monkeypatch.setattr(gpu_slot.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpu_slot.os, "execvpe", lambda *_: None)
    with pytest.raises(ConfigError, match="belongs to another user"):
        execute(["true"], 1)


def start(tmp_path, *command: str, gpus: str = "fake") -> subprocess.Popen:
    """`haste gpu-slot`, with a folder of the test's own for its slots."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": gpus}
    haste = [sys.executable, "-m", "haste", "gpu-slot", "--runs-per-gpu", "1", "--"]
    return subprocess.Popen([*haste, *command], env=environment, stdout=subprocess.PIPE, text=True)


def test_a_command_sees_its_gpu_and_ends_as_it_ends(tmp_path):
    shown = 'echo "$CUDA_VISIBLE_DEVICES $HASTE_RUNS_AT_ONCE $*"; exit 7'
    process = start(tmp_path, "sh", "-c", shown, "sh", "--", "-x", gpus="fake,other")
    assert process.communicate()[0] == "fake 1 -- -x\n"
    assert process.returncode == 7


def test_without_a_gpu_a_command_just_runs(tmp_path):
    process = start(tmp_path, "sh", "-c", 'echo "[$CUDA_VISIBLE_DEVICES]"', gpus="")
    assert process.communicate()[0] == "[]\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_command_and_its_slot_is_free(monkeypatch, tmp_path, number):
    process = start(tmp_path, "sh", "-c", "echo begun; exec sleep 60")
    assert process.stdout.readline() == "begun\n"
    (folder,) = tmp_path.iterdir()
    waits = []

    def end(_seconds: float) -> None:
        waits.append(time.monotonic())
        process.send_signal(number)
        process.wait()

    monkeypatch.setattr(gpu_slot.time, "sleep", end)
    assert take_slot(["fake"], 1, folder)[0] == "fake"
    assert len(waits) == 1, "it was taken, and then free"
    assert process.returncode == -number
