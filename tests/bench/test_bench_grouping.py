import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from haste.bench import grouping
from haste.cli import app
from haste.errors import ConfigError
from haste.labels.embed import load_embeddings


def test_generated_embeddings_are_unit_rows_around_topics(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "BLOCK", 300)
    path = tmp_path / "embeddings.npy"
    grouping.write_embeddings(path, 1000, 64)
    embeddings = np.asarray(load_embeddings(path, 1000), np.float32)
    assert np.load(path, mmap_mode="r").dtype == np.float16
    similar = embeddings @ embeddings.T
    # two labels of a topic have about 1 / (1 + 0.8^2) in common, of other themes nothing
    nearest = np.sort(similar, axis=1)[:, -2]
    assert 0.5 < np.median(nearest) < 0.8
    assert abs(np.median(similar)) < 0.3
    grouping.write_embeddings(path, 1000, 64)
    assert np.array_equal(np.load(path), embeddings)


def test_slope_of_a_power_is_its_exponent():
    labels = np.array([1e5, 1e6, 1e7])
    measured = pd.DataFrame(
        {
            "grouping": ["a"] * 3 + ["b"],
            "labels": [*labels, 5],
            "cpu_seconds": [*(3e-6 * labels**1.5), 7],
        }
    )
    assert grouping.slopes(measured) == {"a": pytest.approx(1.5)}


def test_the_command_measures_each_grouping_at_each_size(tmp_path):
    out = tmp_path / "grouping.csv"
    options = ["--labels", "2000", "--labels", "4000", "--group-size", "16", "--hidden", "32"]
    options += ["--grouping", "semantic", "--grouping", "random"]
    result = CliRunner().invoke(app, ["bench", "grouping", "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    measured = pd.read_csv(out)
    assert measured[["labels", "grouping"]].values.tolist() == [
        [2000, "semantic"],
        [2000, "random"],
        [4000, "semantic"],
        [4000, "random"],
    ]
    by_name = measured.groupby("grouping")["cohesion"].mean()
    assert by_name["semantic"] > by_name["random"] + 0.1
    assert (measured["peak_bytes"] > 10**7).all()
    # the embeddings are gone
    assert [p.name for p in tmp_path.iterdir()] == ["grouping.csv"]


def test_an_unknown_grouping_is_refused_before_anything_is_generated(tmp_path):
    with pytest.raises(ConfigError, match=r"order\.grouping: 'flat' is not allowed"):
        grouping.measure_grouping(["flat"], [10**9], 32, 384, tmp_path)
