import pytest
from fake_grid import FakeGrid, load

from haste.data.corpus import load_corpus
from haste.labels.order import LabelOrder
from haste.metrics.confusions import group_confusions, groups_of
from haste.report.registry import entries
from haste.report.tables import confusions_table


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    fake = FakeGrid(
        tmp_path_factory.mktemp("confusions"),
        methods=("haste",),
        ablations=("grouping",),
        ablation_seeds=(0, 1),
        documents=60,
        hit_rate={"haste/grouping-random": 0.2, "haste": 0.7},
    )
    grid = fake.write()
    fake.write_order("tiny", "semantic")
    return load(grid, "confusions")[1]


def test_rows_are_the_groupings_that_the_claim_compares(sources):
    rows = confusions_table(sources).rows
    assert [row["grouping"] for row in rows] == [
        "semantic (preset)",
        "frequency-shuffled",
        "random",
    ]
    assert {row["seeds"] for row in rows} == {2}
    assert rows[0]["difference"] is None
    assert rows[2]["difference low"] < rows[2]["difference high"]


def test_numbers_are_those_of_the_predictions(sources):
    row = confusions_table(sources).rows[2]
    truth = load_corpus(sources.grid.layout.corpus("tiny")).positives("test")
    groups = groups_of(LabelOrder.load(sources.inputs.orders[0]), truth.shape[1])
    means = [
        group_confusions(run.predictions(), truth, groups, 5).mean()
        for run in sources.of("tiny", "haste", "grouping-random")
    ]
    assert row["confused@5 mean"] == pytest.approx(sum(means) / 2)
    assert row["confused@5 mean"] > 0
    assert row["difference"] == pytest.approx(
        row["confused@5 mean"] - confusions_table(sources).rows[0]["confused@5 mean"]
    )


def test_without_the_ablation_there_is_no_such_table(sources):
    assert "confusions" in entries("table", sources.grid)
    assert "confusions" not in entries("table", FakeGrid(sources.grid.layout.results).grid)
