import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_grid import FakeGrid, draw, load
from fake_kernels import write_kernels
from fake_scale import write_scale

from haste.config import GROUPINGS
from haste.data.corpus import load_corpus
from haste.presets import methods
from haste.report.load import build
from haste.report.registry import entries
from haste.report.style import MARKER_STYLES, marker_style, write_figure

PUBLISHED = Path(__file__).parents[2] / "src/haste/report/published.csv"
METHODS = ("dense", "spartex", "haste", "haste-released", "omikuji", "popularity")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    fake = FakeGrid(
        tmp_path_factory.mktemp("figures"),
        methods=METHODS,
        ablations=("grouping", "head_tail", "sampling"),
        hit_rate={"haste": 0.7, "haste/grouping-random": 0.4, "popularity": 0.05},
        documents=60,
        labels=80,
    )
    fake.write()
    for grouping in GROUPINGS:
        fake.write_order("tiny", grouping)
    write_kernels(fake.root / "results", lambda row: row.shape.fan_in / 64, share_of_copy=0.5)
    write_scale(fake.root / "results")
    return fake


@pytest.fixture(scope="module")
def shown(fake, tmp_path_factory):
    """Every figure of the grid, drawn: name -> (paths of csv, pdf and png; what its axes say)."""
    out, shown = tmp_path_factory.mktemp("drawn"), {}

    def draw_and_note(name):
        figure, frame = build(*load(fake.grid, name, "figure"))
        words[name] = [
            {
                "title": axes.get_title(loc="left"),
                "y": axes.get_ylabel(),
                "x": axes.get_xlabel(),
                "zero": axes.get_yscale() == "log" or min(axes.get_ylim()) <= 0,
            }
            for axes in figure.axes
        ]
        return figure, frame

    words = {}
    for name in entries("figure", fake.grid):
        paths = write_figure(out / name, lambda name=name: draw_and_note(name))
        shown[name] = (paths, words[name])
    return shown


@pytest.fixture(scope="module")
def drawn(shown):
    return {name: paths for name, (paths, _) in shown.items()}


def read(paths):
    return pd.read_csv(paths[0])


def measured(fake, method, get):
    runs = [key for key in fake.grid.main_runs() if key.method == method]
    return [get(json.loads(fake.run_dir(key).metrics.read_text())) for key in runs]


def test_every_figure_is_drawn(drawn):
    from matplotlib.image import imread

    assert len(drawn) == 8
    for name, (table, pdf, png) in drawn.items():
        assert len(pd.read_csv(table)) >= 5, name
        # type 42 is an embedded TrueType font
        assert b"/FontFile2" in pdf.read_bytes(), name
        assert b"/Type3" not in pdf.read_bytes(), name
        pixels = imread(png)[..., :3]
        ink = (pixels < 0.9).any(axis=-1)
        assert 0.005 < ink.mean() < 0.6, name
        colours = (pixels * 255).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1])
        assert len(np.unique(colours)) > 50, name
        # nothing is cut off at the edges
        edges = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
        assert not edges.any(), name


def test_figures_are_the_same_each_time(fake, drawn, tmp_path):
    for first, again in zip(
        drawn["precision_memory"], draw(fake.grid, "precision_memory", tmp_path / "x"), strict=True
    ):
        assert first.read_bytes() == again.read_bytes()


def test_precision_and_memory_are_the_runs(fake, drawn):
    frame = read(drawn["precision_memory"]).set_index("method")
    values = measured(fake, "haste", lambda m: m["metrics"]["P@1"])
    assert frame.loc["haste", "P@1 mean"] == pytest.approx(statistics.mean(values))
    assert frame.loc["haste", "P@1 std"] == pytest.approx(statistics.stdev(values))
    # what the fixture writes: 1 MiB a letter
    assert frame.loc["haste", "layer_bytes mean"] == 5 * 2**20
    assert np.isnan(frame.loc["omikuji", "layer_bytes mean"])


def test_a_linear_method_far_below_all_others_has_no_level_line(fake):
    chart, _ = build(*load(fake.grid, "precision_memory", "figure"))
    said = {each.get_text() for each in chart.axes[0].texts}
    assert "TF-IDF + omikuji (linear)" in said
    assert "Popularity (linear)" not in said


def test_a_method_below_half_of_the_median_is_named_at_the_edge(tmp_path):
    fake = FakeGrid(
        tmp_path,
        methods=("dense", "spartex", "haste", "spartex-released"),
        hit_rate={"spartex-released": 0.1},
        documents=60,
        labels=80,
    )
    fake.write()
    chart, frame = build(*load(fake.grid, "precision_memory", "figure"))
    axes = chart.axes[0]
    value = frame.set_index("method").loc["spartex-released", "P@1 mean"]
    assert [each.get_text() for each in axes.texts] == [f"Spartex (released code): {value:.1f}"]
    assert axes.get_ylim()[0] > value
    named = [each.get_text() for each in chart.legends[0].get_texts()]
    # R@100 is not so low: there it has a marker
    assert len(chart.axes[3].collections[0].get_offsets()) == 4
    assert named == ["Dense", "Spartex", "HASTE", "Spartex (released code)"]


def test_accuracy_is_drawn_on_early_and_on_late_ranks(shown):
    _, axes = shown["precision_memory"]
    assert [each["y"].split()[0] for each in axes] == ["P@1", "P@5", "PSP@5", "R@100"]


def test_axes_start_at_zero_or_say_so(shown):
    for name, (_, axes) in shown.items():
        assert all(each["zero"] or "axis from" in each["y"] for each in axes), name


def test_deciles_are_the_runs_and_sum_to_precision(fake, drawn):
    frame = read(drawn["precision_by_decile"])
    haste = frame[frame["method"] == "haste"].set_index("decile")
    for decile in (1, 7, 10):
        values = measured(fake, "haste", lambda m, d=decile: m["deciles"][d - 1]["P@5"])
        assert haste.loc[decile, "P@5 mean"] == pytest.approx(statistics.mean(values))
        values = measured(fake, "haste", lambda m, d=decile: m["deciles"][d - 1]["recall"])
        assert haste.loc[decile, "recall mean"] == pytest.approx(statistics.mean(values))
    precision = statistics.mean(measured(fake, "haste", lambda m: m["metrics"]["P@5"]))
    assert haste["P@5 mean"].sum() == pytest.approx(precision)
    assert set(frame["method"]) == set(METHODS)


def test_ablation_bars_are_differences_to_the_preset(drawn):
    frame = read(drawn["ablations"])
    assert list(frame["ablation"].unique()) == ["grouping", "head_tail", "sampling"]
    part = frame[frame["ablation"] == "grouping"].set_index("variant")
    preset, random = part.loc["semantic"], part.loc["random"]
    assert bool(preset["preset"])
    assert random["difference"] == pytest.approx(random["P@1 mean"] - preset["P@1 mean"])
    assert random["low"] < random["difference"] < random["high"]
    assert preset["difference"] == 0


def test_curves_are_the_histories(drawn):
    frame = read(drawn["training_curves"]).set_index(["method", "epoch"])
    # the fixture's losses differ by the seed: 0, 1, 2
    last = frame.loc[("haste", 20)]
    assert last["loss low"] == pytest.approx(10.0)
    assert last["loss mean"] == pytest.approx(11.0)
    assert last["loss high"] == pytest.approx(12.0)
    assert last["seeds"] == 3
    assert set(frame.index.get_level_values("method")) == {
        "dense",
        "spartex",
        "haste",
        "haste-released",
    }


def test_label_frequencies_by_rank(fake, drawn):
    frame = read(drawn["label_frequency"])
    corpus = load_corpus(fake.grid.layout.corpus("tiny"))
    counts = np.sort(corpus.label_frequencies()[:80])[::-1]
    assert list(frame["documents"]) == list(counts[frame["rank"] - 1])
    # the corners of a falling staircase give back every label
    assert np.array_equal(
        np.interp(np.arange(1, 81), frame["rank"], frame["documents"]).round().astype(int), counts
    )
    assert set(frame["head"]) == {32}


def test_several_data_sets_stand_beside_each_other(tmp_path):
    from matplotlib.image import imread

    fake = FakeGrid(
        tmp_path,
        methods=("dense", "haste"),
        ablations=("sampling",),
        seeds=(0,),
        datasets=("one", "two"),
        documents=20,
        labels=40,
        epochs=4,
    )
    fake.write()
    for dataset in fake.datasets:
        for grouping in GROUPINGS:
            fake.write_order(dataset, grouping)
    for name, entry in entries("figure", fake.grid).items():
        if entry.benchmark:
            continue
        paths = draw(fake.grid, name, tmp_path / name)
        assert list(read(paths)["dataset"].unique()) == ["one", "two"]
        height, width = imread(paths[2]).shape[:2]
        assert width > 0.8 * height, name


@pytest.mark.parametrize("name", ["precision_memory", "precision_by_decile", "training_curves"])
@pytest.mark.parametrize(
    "unfinished",
    [
        # neither data set has all methods
        {("one", "spartex"), ("two", "dense")},
        {("one", "dense"), ("one", "spartex"), ("one", "haste")},
        {("two", "dense"), ("two", "spartex"), ("two", "haste")},
    ],
)
def test_the_legend_names_every_method_of_a_grid_in_part(tmp_path, name, unfinished):
    fake = FakeGrid(
        tmp_path,
        methods=("dense", "spartex", "haste"),
        seeds=(0,),
        datasets=("one", "two"),
        documents=20,
        labels=40,
        epochs=4,
    )
    grid = replace(fake.write(), allow_partial=True)
    for key in grid.main_runs():
        if (key.dataset, key.method) in unfinished:
            shutil.rmtree(fake.run_dir(key).root)
    chart, _ = build(*load(grid, name, "figure"))
    titles = [text.get_text() for text in chart.legends[0].get_texts()]
    assert sorted(titles) == ["Dense", "HASTE", "Spartex"]


def test_nothing_is_drawn_of_a_data_set_without_a_finished_run(tmp_path):
    fake = FakeGrid(
        tmp_path,
        methods=("haste", "omikuji"),
        seeds=(0,),
        datasets=("one", "two"),
        documents=20,
        labels=40,
        epochs=4,
    )
    grid = replace(fake.write(), allow_partial=True)
    for key in grid.main_runs():
        if key.dataset == "two":
            shutil.rmtree(fake.run_dir(key).root)
    chart, _ = build(*load(grid, "precision_memory", "figure"))
    for axes in (chart.axes[i] for i in (2, 3, 6, 7)):
        assert [*axes.lines, *axes.collections, *axes.texts] == []


def test_methods_differ_in_more_than_colour():
    trained = [name for name, row in methods().items() if row.kind != "published"]
    assert set(trained) == set(MARKER_STYLES)
    assert len({marker_style(name).marker for name in trained}) == len(trained)
    assert marker_style("a method of later") == marker_style("another")


def test_haste_figure_writes_the_files(fake, tmp_path):
    from typer.testing import CliRunner

    from haste.cli import app

    arguments = ["figure", "label_frequency", "--grid", fake.file, "--out", tmp_path / "f"]
    done = CliRunner().invoke(app, list(map(str, [*arguments, "--published", PUBLISHED])))
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"f.csv", "f.pdf", "f.png"}
