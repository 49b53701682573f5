import numpy as np
import pytest

from haste import resources as measure
from haste.resources import Meter, machine, peak_bytes


def test_a_phases_peak_is_its_own():
    meter = Meter("cpu")
    with meter.phase("large"):
        block = np.ones(40 << 20, np.uint8)
        del block
    with meter.phase("small"):
        pass
    if meter.peak_bytes["small"] == meter.peak_bytes["large"]:
        pytest.skip("this system does not let a process reset its peak")
    assert meter.peak_bytes["large"] - meter.peak_bytes["small"] > 30 << 20
    assert peak_bytes("cpu") < meter.peak_bytes["large"]


def test_seconds_of_a_phase_add_up(monkeypatch):
    ticks = iter([0.0, 2.0, 10.0, 13.0])
    monkeypatch.setattr("haste.resources.time.perf_counter", lambda: next(ticks))
    meter = Meter("cpu")
    for _ in range(2):
        with meter.phase("train"):
            pass
    assert meter.seconds == {"train": 5.0}


def test_machine_names_the_commit_where_there_is_one(monkeypatch):
    monkeypatch.setenv("HASTE_COMMIT", "abc")
    assert machine()["commit"] == "abc"
    monkeypatch.setattr(measure, "code_commit", lambda: None)
    assert "commit" not in machine()


def test_resources_hold_the_median_epoch_and_the_machine():
    meter = Meter("cpu")
    with meter.phase("train"):
        pass
    found = meter.resources(
        parameters=3, layer_bytes=4, state_bytes=5, steps=6, epoch_seconds=[1, 9, 2], threads=1
    )
    assert found["seconds"]["epoch"] == 2
    assert found["completed"] is True
    assert found["runs_at_once"] == 1
    assert found["machine"] == machine()
    assert {"python", "system", "cpu", "torch"} <= set(found["machine"])
