"""The page of a grid, made of its tables and figures alone."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fake_grid import FakeGrid, draw, make

from haste.grid import RunKey, read_grid
from haste.report.index import write_index
from haste.report.registry import entry
from haste.report.render import write_table

COMMAND = "snakemake TARGET --configfile my.yaml"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Its tables and a figure are there, its runs are gone; of an ablation only the preset was finished."""
    fake = FakeGrid(
        tmp_path_factory.mktemp("index"),
        methods=("dense", "spartex", "haste"),
        ablations=("grouping", "sampling"),
        seeds=(0, 1),
        resources={"dense": {"machine": {"torch": "2.99", "cuda": "12.10"}}},
        documents=40,
        labels=60,
    )
    grid = replace(fake.write(), allow_partial=True)
    shutil.rmtree(fake.run_dir(RunKey("tiny", "haste", "sampling-with-replacement", 0)).root)
    for name in (
        "main",
        "claims",
        "runs",
        "datasets",
        "ablation_grouping",
        "ablation_sampling",
        "kernel_times",
    ):
        write_table(grid.layout.table(name), entry("table", name, grid).title, make(grid, name))
    grid.layout.figure("x").parent.mkdir()
    draw(fake.grid, "precision_memory", grid.layout.figure("precision_memory"))
    shutil.rmtree(grid.layout.results / "runs")
    return grid


@pytest.fixture(scope="module")
def page(grid):
    path = write_index(grid, COMMAND)
    assert path == grid.layout.results / "index.html"
    return path.read_text()


def section(page, name):
    return re.search(rf'<h2 id="{name}">.*?(?=<h2|</body>)', page, re.S)[0]


def text(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_verdicts_stand_first_once_a_claim_and_place(page):
    assert re.findall(r'<h2 id="(\w+)"', page) == [
        *(
            "verdicts",
            "main",
            "figures",
            "ablations",
            "tables",
            "unfinished",
            "environment",
            "again",
        )
    ]
    shown = text(section(page, "verdicts"))
    assert shown.count("The gap to the dense layer narrows") == 1
    assert "cannot be decided here kernels needs CUDA" in shown


def test_tables_are_those_of_the_grid_with_notes(page, grid):
    main = section(page, "main")
    assert "<strong>" in main
    assert "Bold: the best of the column." in main
    rows = grid.layout.table("main").with_suffix(".md").read_text().count("\n| ")
    assert main.count("<tr>") == rows


def test_what_has_nothing_to_compare_is_a_line(page):
    assert "label grouping" in text(section(page, "ablations")).lower()
    lines = section(page, "unfinished")
    assert "sampling of index sets" not in text(section(page, "ablations")).lower()
    assert "snakemake ablation_sampling --configfile my.yaml" in text(lines)
    # no benchmark is committed
    assert "table_kernel_times" in lines
    assert "<table>" not in lines


def test_a_figure_has_its_caption_and_lies_beside_the_page(page, grid):
    figures = section(page, "figures")
    (source,) = re.findall(r'<img src="([^"]+)"', figures)
    assert (grid.layout.results / source).is_file()
    assert "up and to the left is better" in figures


def test_each_table_and_figure_says_how_it_is_made_again(page):
    shown = text(page)
    for target in ("table_main", "figure_precision_memory", "ablation_grouping", "table_runs"):
        assert f"snakemake {target} --configfile my.yaml" in shown


def test_the_environment_is_that_of_the_runs(page):
    shown = text(section(page, "environment"))
    assert "trained on CPU (test)" in shown
    assert "torch 2.99" in shown
    # a version is no number
    assert "cuda 12.10" in shown


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.findall(r'(?:src|href)="(?:https?:|//|/)', page)
    assert "<script" not in page


def test_a_paragraph_that_captions_share_is_said_once(page):
    assert page.count("each other row changes only what it names") == 1


@pytest.mark.parametrize(
    "files",
    [
        ["workflow/configs/wordnet.yaml"],
        ["workflow/configs/wordnet-tuned.yaml", "workflow/overlays/finished.yaml"],
        ["workflow/configs/wordnet-tuned.yaml", "workflow/overlays/plus.yaml"],
        [
            "workflow/configs/wordnet-tuned.yaml",
            "workflow/overlays/base-encoder.yaml",
            "workflow/overlays/finished.yaml",
        ],
        ["workflow/configs/wikdict.yaml", "workflow/overlays/finished.yaml"],
        ["workflow/configs/debian.yaml", "workflow/overlays/finished.yaml"],
        ["workflow/configs/plus.yaml"],
        ["config.yaml", "workflow/overlays/seeds.yaml"],
        ["config.yaml", "workflow/overlays/rewiring.yaml"],
        ["config.yaml", "workflow/overlays/rivals.yaml"],
        ["config.yaml", "workflow/overlays/formats.yaml"],
        ["config.yaml", "workflow/overlays/wide.yaml", "workflow/overlays/finished.yaml"],
    ],
)
def test_committed_pages_are_those_of_the_committed_tables(tmp_path, monkeypatch, files):
    monkeypatch.chdir(Path(__file__).parents[2])
    grid = read_grid([Path(name) for name in files])
    command = f"snakemake TARGET --configfile {' '.join(files)}"
    made = write_index(grid, command, tmp_path / "index.html")
    committed = grid.layout.results / "index.html"
    assert made.read_text() == committed.read_text(), (
        f"haste index {' '.join(f'--grid {name}' for name in files)} --command {command!r}"
    )
