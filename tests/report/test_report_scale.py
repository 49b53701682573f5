"""Table, figure and claims from made-up results of the scale benchmark."""

import shutil

import pandas as pd
import pytest
from fake_grid import FakeGrid, draw, load, make
from fake_scale import write_scale

from haste.errors import DataError
from haste.report.benchmarks import Results
from haste.report.claims import FAILS, HOLDS, findings
from haste.report.render import markdown


@pytest.fixture
def fake(tmp_path):
    return FakeGrid(tmp_path, methods=("haste",))


def table(fake):
    return make(fake.grid, "scale")


def drawn_of(fake, prefix):
    return pd.read_csv(draw(fake.grid, "scale_memory", prefix)[0])


def judged(fake):
    """(claim, place) -> finding."""
    _, sources = load(fake.write(), "claims")
    return {(each.claim.id, each.place): each for each in findings(sources)}


def test_the_papers_numbers_stand_beside_ours(fake):
    write_scale(fake.root / "results")
    found = table(fake)
    rows = {(r["dataset"], r["method"], r["preset"]): r for r in found.rows}
    ours = rows["Amazon-3M", "HASTE", "default"]
    assert ours["device"] == "h200"
    assert (ours["epoch_minutes"], ours["paper_peak_gib"]) == (5.0, 5.67)
    assert ours["paper_epoch_minutes"] == pytest.approx(21.65)  # 21:39
    assert rows["LF-Paper2Keywords-8.6M", "HASTE", "default"]["paper_peak_gib"] == 12.5
    assert rows["Amazon-670K", "ELMO (bf16)", "default"]["paper_peak_gib"] is not None
    assert rows["sweep", "HASTE", "default"]["paper_peak_gib"] is None
    text = markdown("Scale", found)
    assert "20.00" in text  # milliseconds a step
    assert "12.5" in text  # per cent of the layer
    assert "out of memory (140 GiB)" in text
    assert found.notes[0] == "h200: NVIDIA H200, torch 2.11, commit aaaaaaaaaaaa."


def test_a_file_without_what_is_needed(fake):
    path = write_scale(fake.root / "results")
    path.write_text("labels,method,seconds\n1000,dense,0.25\n")
    with pytest.raises(
        DataError,
        match=r"scale\.csv: no results with dataset, .*seconds_per_step",
    ):
        table(fake)


def test_a_value_is_that_of_its_row(tmp_path):
    results = Results.load(write_scale(tmp_path))
    assert results.names("dataset") == ["Amazon-670K", "Amazon-3M", "LF-Paper2Keywords-8.6M"]
    row = results.find(dataset="Amazon-3M", method="spartex", preset="default")
    assert (row["epoch_minutes"], row["busy_share"]) == (25.0, None)
    assert results.find(dataset="Amazon-3M", method="bottleneck") == {}


def test_memory_is_drawn_with_the_papers_numbers(fake, tmp_path):
    write_scale(fake.root / "results")
    drawn = drawn_of(fake, tmp_path / "scale_memory")
    theirs = drawn[drawn["source"] == "paper"].set_index("dataset")
    assert theirs["peak GiB"].to_dict() == {
        "Amazon-670K": 2.1,
        "Amazon-3M": 5.67,
        "LF-Paper2Keywords-8.6M": 12.5,
    }
    assert theirs.loc["Amazon-3M", "labels"] == 2_812_281
    ours = drawn[(drawn["source"] == "measured") & (drawn["method"] == "haste")]
    assert ours["peak GiB"].tolist() == pytest.approx(ours["labels"] * 2 / 1e6)
    assert ours["labels"].max() == 100_000_000
    # what did not fit is not drawn
    assert drawn[drawn["method"] == "spartex"]["labels"].max() == 8_623_847


def test_a_device_on_which_times_alone_were_measured_has_no_panel(fake, tmp_path):
    here = write_scale(fake.root / "results")
    there = here.parents[1] / "h300" / here.name
    shutil.copytree(here.parent, there.parent)
    lines = there.read_text().splitlines(keepends=True)
    there.write_text("".join([lines[0], *(line for line in lines if ",speed," in line)]))
    drawn = drawn_of(fake, tmp_path / "scale_memory")
    assert drawn["device"].unique().tolist() == ["h200"]


def test_without_results_the_figure_says_what_it_needs(fake, tmp_path):
    drawn = drawn_of(fake, tmp_path / "scale_memory")
    assert drawn.to_dict("records") == [{"device": "none", "result": "needs CUDA"}]


def test_claims_about_time_and_memory_are_judged_by_the_benchmark(fake):
    write_scale(fake.root / "results")
    found = judged(fake)
    # memory: three times as much for Spartex; the paper: 13.5 / 5.67 and 18.4 / 12.5
    memory = found["C6", "Amazon-3M, h200"]
    assert memory.comparisons[0].ours == pytest.approx(3.0)
    assert (memory.verdict, memory.reason) == (
        HOLDS,
        "3.00×; the claim needs at least 2.38×; scale benchmark, preset default",
    )
    # time: five times as long; the paper has it for one data set
    epoch = found["C10", "Amazon-3M, h200"]
    assert epoch.comparisons[0].ours == pytest.approx(5.0)
    assert epoch.verdict == HOLDS
    assert [place for claim, place in found if claim == "C10"] == ["Amazon-3M, h200", "tiny"]


def test_a_ratio_below_the_papers_fails(fake, monkeypatch):
    monkeypatch.setattr("fake_scale.PEAK", {"haste": 4.0, "spartex": 6.0, "elmo-bf16": 8.0})
    write_scale(fake.root / "results")
    assert judged(fake)["C6", "Amazon-3M, h200"].verdict == FAILS
