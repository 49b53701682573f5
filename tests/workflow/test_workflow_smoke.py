"""What `make smoke` made: every file, sound, and its report as a browser shows it."""

import base64
import csv
import html
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
REPORT = RESULTS / "report.html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REPORT.exists(), reason="nothing to look at: run `make smoke` first"),
]

# Goes through the report as a reader would and writes what it sees into the page.
WALK = """
<script>
const pause = ms => new Promise(done => setTimeout(done, ms));
async function walk() {
  const seen = {folders: {}, results: {}};
  for (const category of Object.keys(categories)) {
    app.setView({navbarMode: "menu"}); await pause(60);
    app.showCategory(category); await pause(60);
    seen.folders[category] = document.getElementById("app").innerText;
  }
  for (const [path, result] of Object.entries(results)) {
    const picture = result.mime_type.startsWith("image/");
    app.setView({navbarMode: "menu"}); await pause(60);
    app.showResultInfo(path); await pause(60);
    app.setView({content: picture ? "img" : "html", contentPath: result.data_uri});
    await pause(200);
    const shown = document.querySelector(picture ? "#app div.p-3 > img" : "#app iframe");
    seen.results[path] = {
      text: document.getElementById("app").innerText,
      width: picture ? shown.naturalWidth : shown.clientWidth,
      frame: picture ? "" : shown.src,
    };
  }
  return seen;
}
function write(value) {
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(value))));
  document.body.appendChild(out);
}
const start = () => walk().then(write, error => write({error: String(error)}));
window.addEventListener("load", () => setTimeout(start, 300));
</script>
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    """What a reader of the report sees: folders, then each table and figure with its caption."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "walk.html"
    page.write_text(REPORT.read_text(encoding="utf-8") + WALK, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=60000",
        "--dump-dom",
    ]
    result = subprocess.run(
        [CHROMIUM, *options, page.as_uri()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    found = re.search(r'<pre id="seen">([^<]+)</pre>', result.stdout)
    assert found, result.stderr[-2000:]
    value = json.loads(base64.b64decode(found[1]))
    assert "error" not in value, value
    return value


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


def test_report_folders(seen):
    assert set(seen["folders"]) == {"Tables", "Ablations", "Figures"}
    assert "main" in seen["folders"]["Tables"]
    assert "grouping" in seen["folders"]["Ablations"]
    assert "precision by decile" in seen["folders"]["Figures"]


@pytest.mark.parametrize("name", TABLES)
def test_report_shows_table_with_caption(seen, name):
    shown = seen["results"][f"{GRID.layout.table(name)}.html"]
    check_caption(shown["text"], "table", name)
    page = base64.b64decode(shown["frame"].split(",", 1)[1]).decode()
    title = (ROOT / GRID.layout.table(name)).with_suffix(".md").read_text().splitlines()[0]
    assert title.removeprefix("## ") in html.unescape(page)
    assert page.count("<tr") >= 2, "a heading and a row"
    assert shown["width"] > 300


@pytest.mark.parametrize("name", FIGURES)
def test_report_shows_figure_with_caption(seen, name):
    shown = seen["results"][f"{GRID.layout.figure(name)}.png"]
    check_caption(shown["text"], "figure", name)
    assert shown["width"] > 300


def check_caption(text: str, kind: str, name: str) -> None:
    """The caption is on the page."""
    pieces = re.split(r"`+[^`]*`+|\*+|\n\n", entry(kind, name, GRID).caption)
    words = " ".join(max(pieces, key=len).split())
    assert len(words) > 20
    assert words in " ".join(text.split())


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
