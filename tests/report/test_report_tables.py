import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_grid import FakeGrid, make

from haste.config import GROUPINGS
from haste.errors import DataError
from haste.files import read_csr
from haste.report.render import markdown

METHODS = ("dense", "elmo-fp8", "spartex", "renee", "haste", "omikuji", "popularity")


def rows_by(table, key):
    return {row[key]: row for row in table.rows}


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    fake = FakeGrid(
        tmp_path_factory.mktemp("tables"),
        # the grid's own order does not matter
        methods=METHODS[::-1],
        ablations=("grouping",),
        datasets=("tiny", "amazon-670k"),
        hit_rate={"haste": 0.8, "haste/grouping-random": 0.4, "popularity": 0.05},
        rising=("spartex",),
        documents=60,
        labels=160,
    )
    fake.write()
    return fake


@pytest.fixture(scope="module")
def main(fake):
    return make(fake.grid, "main")


def measured(fake, method, dataset="tiny"):
    """What metrics.json of each seed says, straight from the files."""
    runs = [k for k in fake.grid.main_runs() if (k.method, k.dataset) == (method, dataset)]
    return [json.loads(fake.run_dir(key).metrics.read_text()) for key in runs]


def test_main_has_every_method_in_the_order_of_the_presets(main):
    titles = [row["method"] for row in main.rows if row["dataset"] == "tiny"]
    assert titles == [
        "Dense",
        "ELMO (fp8)",
        "Spartex",
        "Renee",
        "HASTE",
        "TF-IDF + omikuji",
        "Popularity",
    ]


def test_main_shows_mean_and_deviation_of_what_the_runs_measured(fake, main):
    row = next(r for r in main.rows if (r["dataset"], r["method"]) == ("tiny", "HASTE"))
    for name in ("P@1", "P@5", "PSP@3", "nDCG@5", "R@100"):
        values = [each["metrics"][name] for each in measured(fake, "haste")]
        assert len(set(values)) > 1
        assert row[f"{name} mean"] == pytest.approx(statistics.mean(values))
        assert row[f"{name} std"] == pytest.approx(statistics.stdev(values))
    values = [each["without_reciprocal_pairs"]["P@3"] for each in measured(fake, "haste")]
    assert row["P@3 without reciprocal pairs mean"] == pytest.approx(statistics.mean(values))
    assert (row["epoch_seconds mean"], row["epoch_seconds std"]) == (3.0, 1.0)
    assert row["peak_train_bytes mean"] == 2**30
    assert row["loss mean"] == pytest.approx(11.0, abs=1e-6)


def test_main_says_what_was_not_run_and_why(main):
    runs = {row["method"]: row["runs"] for row in main.rows}
    assert runs["Renee"] == "not trained here"
    assert runs["HASTE"] == "3 seeds"
    assert runs["Popularity"] == "1 run"
    assert rows_by(main, "method")["Renee"]["P@1 mean"] is None


def test_seconds_of_runs_that_shared_a_gpu_are_marked(tmp_path):
    def notes(name, **resources):
        root = tmp_path / name
        fake = FakeGrid(root, methods=("haste",), documents=20, labels=30, device="NVIDIA H200")
        return " ".join(make(replace(fake, resources=resources).write(), "main").notes)

    assert "Seconds are of runs that are not known to" in notes("shared", haste={"runs_at_once": 2})
    assert "Seconds are of" not in notes("alone", haste={"runs_at_once": 1})


@pytest.mark.parametrize(("points", "mark"), [(2.0, "yes"), (3.0, "no")])
def test_a_row_of_several_seeds_is_marked_by_the_mean_of_their_late_gains(tmp_path, points, mark):
    seeds = (0, 1, 2)
    fake = FakeGrid(
        tmp_path,
        methods=("haste", "popularity"),
        ablations=("sampling",),
        seeds=seeds,
        ablation_seeds=seeds,
        documents=20,
        labels=30,
    )
    grid = fake.write()
    path = fake.run_dir(next(grid.main_runs())).history
    *before, last = path.read_text().splitlines()
    cells = last.split(",")
    # P@1 is a third of the score, and this seed a third of the mean
    cells[5] = str(float(cells[5]) + points)
    path.write_text("\n".join([*before, ",".join(cells)]) + "\n")
    haste, popularity = make(grid, "main").rows
    assert haste["late_gain mean"] == pytest.approx(points / 9, abs=1e-3)
    assert (haste["converged"], popularity["converged"]) == (mark, None)
    assert make(grid, "ablation_sampling").rows[0]["converged"] == mark
    runs = [row for row in make(grid, "runs").rows if row["method"] == "haste"]
    assert [row["converged"] for row in runs if row["variant"] == "default"] == ["no", "yes", "yes"]


def test_the_papers_numbers_stand_only_beside_the_papers_data_sets(main):
    paper = {(row["dataset"], row["method"]): row.get("P@1 paper") for row in main.rows}
    assert paper["amazon-670k", "HASTE"] == 48.1
    assert paper["amazon-670k", "Renee"] == 50.6
    assert paper["amazon-670k", "ELMO (fp8)"] == 50.34
    assert paper["amazon-670k", "TF-IDF + omikuji"] is None
    assert not any(paper[key] for key in paper if key[0] == "tiny")
    memory = {
        (row["dataset"], row["method"]): row.get("peak_train_bytes paper") for row in main.rows
    }
    assert memory["amazon-670k", "Spartex"] == 3.7 * 2**30
    assert memory["tiny", "Spartex"] is None
    keys = [column.key for column in main.columns]
    assert keys.index("P@1 paper") == keys.index("P@1") + 1
    assert "R@100 paper" not in keys


def test_main_says_what_a_row_must_not_hide(tmp_path):
    methods = ("haste", "haste-released-private")
    fake = FakeGrid(tmp_path, methods=methods, seeds=(0,), documents=20, labels=30)
    leak = [note for note in make(fake.write(), "main").notes if "test documents too" in note]
    assert len(leak) == 1
    assert leak[0].startswith("HASTE (released code, private halves): ")


def test_main_bolds_the_best_accuracy(main):
    part = markdown("All", main).split("### ")[1]
    bold = [line for line in part.splitlines() if "**" in line]
    assert len(bold) == 1
    assert bold[0].startswith("| HASTE |")
    assert bold[0].count("**") == 2 * 11  # accuracy and P@k without reciprocal


def test_columns_without_reciprocal_pairs_go_where_no_corpus_has_them(tmp_path):
    fake = FakeGrid(tmp_path, methods=("haste",), seeds=(0,), documents=20, labels=30)
    grid = fake.write()
    path = fake.run_dir(next(grid.main_runs())).metrics
    path.write_text(json.dumps(json.loads(path.read_text()) | {"without_reciprocal_pairs": None}))
    found = make(grid, "main")
    assert not [column for column in found.columns if "reciprocal" in column.key]
    assert not [note for note in found.notes if "reciprocal" in note]


def test_ablation_compares_with_the_preset_on_the_same_seeds_and_documents(fake):
    found = make(fake.grid, "ablation_grouping")
    rows = [row for row in found.rows if row["dataset"] == "tiny"]
    assert [row["variant"] for row in rows] == [
        "semantic (preset)",
        "balanced",
        "frequency",
        "frequency-shuffled",
        "random",
    ]
    preset, random = rows[0], rows[4]
    assert preset["difference"] is None
    assert [row["seeds"] for row in rows] == [1] * 5
    assert random["difference"] == pytest.approx(random["P@1 mean"] - preset["P@1 mean"])
    assert random["difference low"] < random["difference"] < random["difference high"] < 0
    assert any("one seed" in note for note in found.notes)
    # balanced predicts exactly what the preset does
    assert rows[1]["difference"] == rows[1]["difference low"] == rows[1]["difference high"] == 0.0


def test_an_ablation_compares_with_the_preset_of_its_own_method(tmp_path):
    fake = FakeGrid(
        tmp_path,
        methods=("haste", "haste-released"),
        seeds=(0,),
        ablations=("corrections",),
        hit_rate={"haste": 0.9, "haste-released": 0.3, "haste-released/corrections-semantic": 0.8},
        documents=40,
        labels=60,
    )
    found = make(fake.write(), "ablation_corrections")
    rows = rows_by(found, "variant")
    assert list(rows) == [
        "as released (preset)",
        "distinct",
        "momentum-reset",
        "fp32-loss",
        "train-frequencies",
        "semantic",
    ]
    preset = measured(fake, "haste-released")[0]["metrics"]["P@1"]
    assert rows["as released (preset)"]["P@1 mean"] == pytest.approx(preset)
    assert rows["as released (preset)"]["difference"] is None
    better = rows["semantic"]
    assert better["difference"] == pytest.approx(better["P@1 mean"] - preset)
    assert better["difference low"] > 0
    assert found.notes[0].startswith("Variants of haste-released;")


def test_stale_predictions_are_found(tmp_path):
    fake = FakeGrid(
        tmp_path, methods=("haste",), seeds=(0,), ablations=("sampling",), documents=20, labels=30
    )
    grid = fake.write()
    path = fake.run_dir(next(grid.main_runs())).metrics
    value = json.loads(path.read_text())
    value["metrics"]["P@1"] += 5.0
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"predictions.npz gives P@1 .* haste evaluate"):
        make(grid, "ablation_sampling")


def test_datasets_are_counted(fake):
    row = rows_by(make(fake.grid, "datasets"), "dataset")["tiny"]
    corpus = fake.grid.layout.corpus("tiny")
    train, test = read_csr(corpus.positives("train")), read_csr(corpus.positives("test"))
    counts = np.asarray(train.sum(axis=0)).ravel()
    assert (row["train"], row["validation"], row["test"]) == (120, 20, 60)
    assert (row["labels"], row["extra_labels"]) == (160, 5)
    assert row["labels_per_document"] == pytest.approx(train.nnz / 120)
    assert row["documents_per_label"] == pytest.approx(train.nnz / 160)
    assert row["rare_labels_percent"] == pytest.approx(100 * np.mean(counts[:160] <= 5))
    assert row["seen_positives_percent"] == pytest.approx(100 * np.mean(counts[test.indices] > 0))
    assert row["reciprocal_percent"] == pytest.approx(
        100 * read_csr(corpus.reciprocal("test")).nnz / test.nnz
    )
    assert row["words_per_document"] == 3.0
    assert row["propensity"] == "0.55 / 1.5"


def test_cohesion_by_hand(fake):
    for dataset in fake.datasets:
        for grouping in GROUPINGS:
            values = [0.2, 0.4, 0.9, 0.9, 0.4, 0.2, 0.5, 0.5] if grouping == "semantic" else []
            fake.write_order(dataset, grouping, np.array(values))
    rows = [row for row in make(fake.grid, "grouping_cohesion").rows if row["dataset"] == "tiny"]
    assert [row["grouping"] for row in rows] == list(GROUPINGS)
    assert rows[0]["cohesion mean"] == pytest.approx(0.5)
    assert rows[0]["cohesion std"] == pytest.approx(
        (0.52 / 7) ** 0.5
    )  # twice .09 + .01 + .16, over n - 1
    assert rows[0]["percentile_50"] == pytest.approx(0.45)
    # 160 labels less a head of 32 in groups of 16
    assert (rows[0]["groups"], rows[0]["group_size"], rows[0]["head"]) == (8, 16, 32)
    assert rows[1]["cohesion mean"] is None


@pytest.mark.parametrize(
    ("name", "command"),
    [("kernel_times", "kernels"), ("scale", "scale")],
)
def test_benchmarks_that_were_not_run_say_what_they_need(fake, name, command):
    found = make(fake.grid, name)
    assert found.rows == [{"device": "none", "result": "needs CUDA"}]
    assert f"`haste bench {command}` writes" in found.notes[0]


def test_an_empty_benchmark_is_refused(tmp_path):
    fake = FakeGrid(tmp_path, methods=("haste",))
    path = tmp_path / "results/benchmarks/h200/scale.csv"
    path.parent.mkdir(parents=True)
    path.write_text("labels,method,seconds\n")
    with pytest.raises(DataError, match=r"scale.csv: no results with dataset"):
        make(fake.grid, "scale")


def test_haste_table_writes_the_files(fake, tmp_path):
    from typer.testing import CliRunner

    from haste.cli import app

    published = Path(__file__).parents[2] / "src/haste/report/published.csv"
    out = tmp_path / "tables/main"
    arguments = ["table", "main", "--grid", fake.file, "--out", out, "--published", published]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    with (tmp_path / "tables/main.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    haste = next(r for r in rows if (r["dataset"], r["method"]) == ("tiny", "HASTE"))
    values = [each["metrics"]["P@1"] for each in measured(fake, "haste")]
    assert float(haste["P@1 mean"]) == pytest.approx(statistics.mean(values))
    assert float(haste["P@1 std"]) == pytest.approx(statistics.stdev(values))
    assert {path.name for path in out.parent.iterdir()} == {
        "main.csv",
        "main.md",
        "main.tex",
    }
