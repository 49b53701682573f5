"""What `make smoke` made: every file, sound, and its page as a browser shows it."""

import base64
import csv
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from workflow_project import ROOT, SNAKEMAKE

from haste.grid import GridConfig
from haste.presets import method
from haste.report.registry import entries, entry

CONFIG = ROOT / "workflow/configs/smoke.yaml"
GRID = GridConfig.from_dict(yaml.safe_load(CONFIG.read_text()))
TABLES, FIGURES = entries("table", GRID), entries("figure", GRID)
RESULTS = ROOT / GRID.layout.results
PAGE = RESULTS / "index.html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGE.exists(), reason="nothing to look at: run `make smoke` first"),
]

# Opens everything and writes what a reader sees into the page.
WALK = """
<script>
window.addEventListener("load", async () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  const images = [...document.images];
  for (const image of images) image.loading = "eager";
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  const seen = {
    text: document.body.innerText,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    images: Object.fromEntries(images.map(i => [i.getAttribute("src"), i.naturalWidth])),
  };
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(seen))));
  document.body.appendChild(out);
});
</script>
"""


@pytest.fixture(scope="module", params=[1300, 400], ids=["wide", "phone"])
def seen(request, tmp_path_factory) -> dict:
    """What a reader of the page sees."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "walk.html"
    page.write_text(PAGE.read_text(encoding="utf-8") + WALK, encoding="utf-8")
    (folder / "figures").symlink_to(RESULTS / "figures")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [
        f"--window-size={request.param},1000",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]
    # on a busy machine its virtual time may end before the pictures are there
    for attempt in range(3):
        result = subprocess.run(
            [CHROMIUM, f"--user-data-dir={folder / f'profile{attempt}'}", *options, page.as_uri()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
        found = re.search(r'<pre id="seen">([^<]+)</pre>', result.stdout)
        if found:
            break
    assert found, result.stderr[-2000:]
    return json.loads(base64.b64decode(found[1]))


def test_every_run_is_complete():
    for key in GRID.runs():
        run = GRID.layout.run(key.dataset, key.method, key.variant, key.seed)
        metrics = json.loads((ROOT / run.metrics).read_text())["metrics"]
        assert 0 <= metrics["P@5"] <= 100
        assert json.loads((ROOT / run.resources).read_text())["completed"]
        if method(key.method).kind == "trained":
            assert not (ROOT / run.checkpoint).exists(), "a finished run needs no checkpoint"


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_rows_in_all_formats(name):
    prefix = ROOT / GRID.layout.table(name)
    with prefix.with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows
    assert "\\toprule" in prefix.with_suffix(".tex").read_text(encoding="utf-8")
    assert "| --" in prefix.with_suffix(".md").read_text(encoding="utf-8").replace("|--", "| --")


def test_tables_of_benchmarks_show_what_is_committed_or_that_they_need_a_gpu():
    benchmarks = {name: entry.benchmark for name, entry in TABLES.items() if entry.benchmark}
    assert benchmarks
    for name, file in benchmarks.items():
        shown = (ROOT / GRID.layout.table(name)).with_suffix(".md").read_text(encoding="utf-8")
        committed = sorted((ROOT / GRID.layout.benchmarks).glob(f"*/{file}.csv"))
        for expected in [path.parent.name for path in committed] or ["needs CUDA"]:
            assert expected in shown


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_its_numbers_and_both_formats(name):
    prefix = ROOT / GRID.layout.figure(name)
    assert prefix.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert prefix.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(prefix.with_suffix(".csv").read_text(encoding="utf-8").splitlines()) > 1


def test_a_second_call_does_nothing():
    result = subprocess.run(
        [str(SNAKEMAKE), "-n", "--configfile", str(CONFIG)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = result.stdout + result.stderr
    assert "Nothing to be done" in said, "results/smoke is out of date: run `make smoke`"


def test_the_page_fits_the_screen(seen):
    assert seen["overflow"] <= 0


def test_the_page_shows_every_figure_with_its_caption(seen):
    assert seen["images"].keys() == {f"figures/{name}.png" for name in FIGURES}
    assert min(seen["images"].values()) > 300
    for name in FIGURES:
        assert words_of_caption("figure", name) in " ".join(seen["text"].split())


def test_the_page_has_every_table_that_has_finished(seen):
    shown = " ".join(seen["text"].split())
    for name, each in TABLES.items():
        assert each.target in shown, name
    assert words_of_caption("table", "main") in shown
    assert "What of the paper holds here" in shown


def test_the_page_and_its_figures_are_small():
    files = [PAGE, *(ROOT / GRID.layout.figure(name).with_suffix(".png") for name in FIGURES)]
    assert sum(path.stat().st_size for path in files) < 1_000_000


def words_of_caption(kind: str, name: str) -> str:
    """The longest piece of a caption without markup."""
    pieces = re.split(r"`+[^`]*`+|\*+|\n\n", entry(kind, name, GRID).caption)
    return " ".join(max(pieces, key=len).split())


def test_the_triton_kernel_gives_the_same_loss_curve(tmp_path):
    run = GRID.layout.run("wordnet-smoke", "haste", "default", 0)
    config = yaml.safe_load((ROOT / run.config).read_text())
    config["training"]["backend"] = "triton"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    subprocess.run(
        [sys.executable, "-m", "haste", "train", str(tmp_path / "config.yaml")],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=True,
        timeout=240,
    )
    curves = []
    for path in (ROOT / run.history, tmp_path / "history.csv"):
        with path.open() as stream:
            curves.append([float(row["loss"]) for row in csv.DictReader(stream)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
