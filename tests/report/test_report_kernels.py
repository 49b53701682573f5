"""Tables, figures and claims from made-up results of the kernel benchmark."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_grid import FakeGrid, draw, load, make
from fake_kernels import write_kernels

from haste.bench.kernels import COLUMNS
from haste.files import write_rows
from haste.grid import read_grid
from haste.report.benchmarks import Results
from haste.report.claims import findings
from haste.report.load import build
from haste.report.render import markdown, write_table

OURS = {"group_fan_in": 2.0, "haste": 5.0, "fixed_fan_in": 6.0, "bottleneck": 1.6, "dense768": 12.0}
"""milliseconds of each layer in every direction"""


def plain(row):
    return OURS.get(row.layer, 30.0 if row.layer == "released_cuda" else 1.0)


@pytest.fixture
def fake(tmp_path):
    return FakeGrid(tmp_path, methods=("haste",))


def drawn_of(fake, name, prefix):
    return pd.read_csv(draw(fake.grid, name, prefix)[0])


def judged(fake):
    """By claim, of those about kernels."""
    _, sources = load(replace(fake.grid, allow_partial=True), "claims")
    return {each.claim.id: each for each in findings(sources) if each.claim.evidence == "kernels"}


# times


def test_times_stand_by_shape_layer_and_direction(fake):
    def own(row):
        return {"forward": 0.125, "step": 0.5}.get(row.direction, 1.0)

    write_kernels(fake.root / "results", own, peak_mib=12.0)
    found = make(fake.grid, "kernel_times")
    rows = {(row["shape"], row["layer"]): row for row in found.rows}
    row = rows["amazon3m-g32", "group fan in"]
    assert (row["forward"], row["step"], row["step_momentum"]) == (0.125, 0.5, 1.0)
    assert (row["group_size"], row["peak_mib"]) == (32, 12.0)
    assert rows["amazon670k", "naive dense"]["forward"] is None
    assert not any(str(shape).startswith("sweep") for shape, _ in rows)
    text = markdown("Times", found)
    assert "NVIDIA H200, 2026-11-22, copies at 4.27 TB/s" in text
    assert "| 0.125 | 1.000 |" in text


def test_devices_stand_apart(fake):
    for device, factor in (("a100", 2.0), ("h200", 1.0)):
        write_kernels(fake.root / "results", lambda row, f=factor: f * plain(row), device=device)
    assert [title for title, _ in make(fake.grid, "kernel_times").sections()] == ["a100", "h200"]
    row = next(row for row in make(fake.grid, "kernel_times").rows if row["layer"] == "haste")
    assert (row["device"], row["step"]) == ("a100", 10.0)


def test_a_row_without_a_time_is_named(fake):
    def broken(row):
        wrong = (row.layer, row.direction) == ("bottleneck", "forward")
        return None if wrong and row.shape.name == "amazon3m" else plain(row)

    write_kernels(fake.root / "results", broken)
    (note,) = [n for n in make(fake.grid, "kernel_times").notes if "no time" in n]
    assert note.endswith("not able to run: amazon3m/bottleneck/forward.")


# claims


def test_a_time_that_is_missing_decides_nothing(fake):
    def own(row):
        return None if row.layer == "fixed_fan_in" and row.direction == "forward" else plain(row)

    write_kernels(fake.root / "results", own)
    assert "no problem that both were timed on" in judged(fake)["C1"].reason


# figures


def test_speedup_is_drawn_along_each_sweep(fake, tmp_path):
    def own(row):
        if row.layer != "fixed_fan_in":
            return 2.0
        return row.shape.fan_in / 8 if row.direction == "forward" else row.shape.batch / 4

    write_kernels(fake.root / "results", own)
    drawn = drawn_of(fake, "kernel_speedup", tmp_path / "f")
    found = drawn.set_index(["swept", "direction", "value"])["speedup"].sort_index()
    assert found["fan_in", "forward"].to_dict() == {16: 1, 32: 2, 64: 4, 128: 8, 256: 16}
    assert set(found["fan_in", "backward"]) == {16.0}
    assert set(found["batch", "forward"]) == {4.0}
    assert found["batch", "backward"].to_dict() == {
        16: 2, 32: 4, 64: 8, 128: 16, 256: 32, 512: 64,
    }  # fmt: skip


def test_bandwidth_shows_each_shape_and_what_has_no_time(fake, tmp_path):
    def own(row):
        return None if row.name == "amazon3m/group_fan_in/step" else 1.0

    write_kernels(fake.root / "results", own, share_of_copy=0.75)
    drawn = drawn_of(fake, "copy_bandwidth", tmp_path / "f")
    assert len(drawn) == 5 * 4 * 2
    missing = drawn[drawn["share of copy"].isna()]
    assert missing[["shape", "direction", "layer"]].to_numpy().tolist() == [
        ["amazon3m", "step", "group_fan_in"]
    ]
    assert set(drawn["share of copy"].dropna()) == {0.75}


@pytest.mark.parametrize("name", ["kernel_speedup", "copy_bandwidth"])
def test_two_devices_and_none(fake, tmp_path, name):
    assert drawn_of(fake, name, tmp_path / "none").to_dict("records") == [
        {"device": "none", "result": "needs CUDA"}
    ]
    for device in ("a100", "h200"):
        write_kernels(fake.root / "results", plain, device=device, share_of_copy=0.5)
    assert set(drawn_of(fake, name, tmp_path / "two")["device"]) == {"a100", "h200"}


def test_results_without_sweeps_give_an_empty_figure(fake, tmp_path):
    path = write_kernels(fake.root / "results", plain)
    own = [row for row in Results.load(path).rows if not str(row["shape"]).startswith("sweep")]
    write_rows(path, COLUMNS, own)
    assert drawn_of(fake, "kernel_speedup", tmp_path / "f").empty


@pytest.mark.parametrize("name", ["kernel_times", "scale"])
def test_committed_benchmarks_make_the_committed_tables(tmp_path, monkeypatch, name):
    monkeypatch.chdir(Path(__file__).parents[2])
    grid = read_grid([Path("workflow/configs/wordnet-tuned.yaml")])
    chosen, sources = load(grid, name)
    for path in write_table(tmp_path / name, chosen.title, build(chosen, sources))[:3]:
        assert path.read_text() == Path(f"{grid.layout.table(name)}{path.suffix}").read_text()
