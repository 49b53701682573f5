"""The linear rows and `haste evaluate` on a corpus of a dozen words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

from haste.checksums import read_description
from haste.cli import app
from haste.data.corpus import Corpus
from haste.errors import ConfigError, DataError
from haste.files import read_json, read_npz, read_yaml
from haste.metrics.label_trees import LabelTrees
from haste.metrics.linear_baselines import Popularity, run_baseline
from haste.metrics.truth import load_truth
from haste.paths import RunDir
from small_corpus import one_hot, write_small_corpus

WORDS = ("oak", "elm", "ash", "fir", "yew", "bay", "box", "fig")
LABELS = len(WORDS)


def labelled(columns: list[list[int]]) -> sp.csr_matrix:
    """Labels 0..7 have training documents, label 8 has none."""
    return one_hot(columns, LABELS + 1)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "corpus"


@pytest.fixture
def make_corpus(folder):
    """A document's middle word names its label; word 0 is the most frequent. Texts may be replaced."""

    def make(**replaced: dict[int, str]) -> Corpus:
        words = {"train": [w for w in range(LABELS) for _ in range(20 - w)]}
        words["validation"] = words["test"] = list(range(LABELS))
        texts = {split: [f"a {WORDS[w]} leaf" for w in ws] for split, ws in words.items()}
        for split, changes in replaced.items():
            for row, text in changes.items():
                texts[split][row] = text
        test = [[w, LABELS] if w == 7 else [w] for w in range(LABELS)]
        return write_small_corpus(
            folder,
            {split: labelled([[w] for w in ws]) for split, ws in words.items()}
            | {"test": labelled(test)},
            texts=texts,
            reciprocal={
                "validation": labelled([[]] * LABELS),
                "test": labelled([[0], *[[]] * (LABELS - 1)]),
            },
            names=[*WORDS, "new"],
            dataset="trees",
        )

    return make


@pytest.fixture
def corpus(make_corpus) -> Corpus:
    return make_corpus()


def test_popularity_by_hand(corpus, tmp_path):
    run = RunDir(tmp_path / "run")
    metrics = run_baseline("popularity", corpus, run, seed=3, threads=1)
    predictions = read_npz(run.predictions)
    assert predictions["ids"].dtype == np.int32
    assert predictions["scores"].dtype == np.float32
    assert predictions["ids"].shape == (LABELS, 100)
    assert predictions["ids"][5].tolist() == [*range(LABELS), *[-1] * (100 - LABELS)]
    assert predictions["scores"][0, :LABELS].tolist() == list(range(20, 12, -1))
    # one document in eight has each of the first five labels; the unseen label 8 costs recall
    assert metrics["metrics"]["P@1"] == 12.5
    assert metrics["metrics"]["P@5"] == pytest.approx(100 * 5 / 40)
    assert metrics["metrics"]["R@100"] == pytest.approx(100 * 7.5 / 8)
    # document 0 is left without a positive
    assert metrics["without_reciprocal_pairs"] == pytest.approx(
        {"P@1": 0.0, "P@3": 100 * 2 / 21, "P@5": 100 * 4 / 35}
    )
    assert read_description(run.metrics, "it") == metrics
    assert read_yaml(run.config) == {
        "dataset": "trees",
        "method": "popularity",
        "variant": "default",
        "seed": 3,
        "inputs": {"corpus": str(corpus.directory.root)},
    }


def test_a_config_made_beforehand_is_left_alone(corpus, tmp_path):
    run = RunDir(tmp_path / "run")
    run_baseline("popularity", corpus, run, seed=0, threads=1)
    text = "# from a workflow\n" + run.config.read_text()
    run.config.write_text(text)
    run_baseline("popularity", corpus, run, seed=0, threads=1)
    assert run.config.read_text() == text
    with pytest.raises(ConfigError, match=r"config\.yaml: is of another run \(seed is 0 there"):
        run_baseline("popularity", corpus, run, seed=1, threads=1)
    assert run.config.read_text() == text


def test_popularity_breaks_ties_by_id_and_never_predicts_the_unseen():
    ids, scores = Popularity(np.array([1, 3, 0, 3])).predict(["text"], 5)
    assert ids.tolist() == [[1, 3, 0, -1, -1]]
    assert scores.tolist() == [[3, 3, 1, -1, -1]]


def test_omikuji_and_popularity_take_sparse_features():
    labels = np.arange(160) % LABELS
    positives = sp.csr_matrix(np.eye(LABELS, LABELS + 1, dtype=np.float32)[labels])
    # label j has the feature 7 - j
    features = sp.csr_matrix(np.eye(LABELS, dtype=np.float32)[LABELS - 1 - labels])
    ids, scores = LabelTrees(features, positives, threads=1).predict(features[:LABELS], 3)
    assert ids[:, 0].tolist() == list(range(LABELS))
    assert ids.shape == scores.shape == (LABELS, 3)
    assert Popularity(np.array([1, 2])).predict(features, 2)[0].shape == (160, 2)


def test_omikuji_learns_the_words(corpus, tmp_path, capfd):
    run = RunDir(tmp_path / "run")
    metrics = run_baseline("omikuji", corpus, run, seed=0, threads=1)
    assert metrics["metrics"]["P@1"] == 100.0
    scores = read_npz(run.predictions)["scores"]
    assert (np.diff(scores, axis=1) <= 0).all()
    resources = read_json(run.resources)
    assert resources["completed"] is True
    assert resources["parameters"] is None
    assert resources["layer_bytes"] > 0
    assert {"setup", "train", "evaluate"} <= set(resources["seconds"])
    assert set(resources["peak_bytes"]) >= {"train", "evaluate"}
    assert tuple(capfd.readouterr()) == ("", ""), "omikuji draws a progress bar a document"


def test_omikuji_skips_documents_it_cannot_take(make_corpus, tmp_path):
    corpus = make_corpus(train={0: "?"}, test={0: ""})
    metrics = run_baseline("omikuji", corpus, RunDir(tmp_path / "run"), seed=0, threads=1)
    assert metrics["metrics"]["P@1"] >= 87.5


def test_texts_without_words_are_refused(make_corpus, tmp_path):
    corpus = make_corpus(train=dict.fromkeys(range(132), "?"))
    with pytest.raises(DataError, match="omikuji: the training texts have no words"):
        run_baseline("omikuji", corpus, RunDir(tmp_path / "run"), seed=0, threads=1)
    assert not (tmp_path / "run").exists(), "half a run is left"


def test_evaluate_writes_the_same_metrics_again(corpus, tmp_path):
    run = RunDir(tmp_path / "run")
    run_baseline("popularity", corpus, run, seed=0, threads=1)
    before = run.metrics.read_bytes()
    run.metrics.unlink()
    result = CliRunner().invoke(app, ["evaluate", str(run.root)])
    assert result.exit_code == 0, result.output
    assert run.metrics.read_bytes() == before


def test_the_command_trains_a_baseline(corpus, tmp_path):
    out = tmp_path / "run"
    arguments = [
        "baseline",
        "popularity",
        "--corpus",
        str(corpus.directory.root),
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, [*arguments, "--seed", "2", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml",
        "metrics.json",
        "predictions.npz",
        "resources.json",
    ]


def test_truth_comes_from_the_training_split_and_the_corpus_constants(corpus):
    truth = load_truth(corpus.directory, "test")
    assert truth.train_frequency.tolist() == [*range(20, 12, -1), 0]
    c = (np.log(132) - 1) * 2.5**0.55
    assert truth.inverse_propensity[[0, 8]] == pytest.approx(
        [1 + c * 21.5**-0.55, 1 + c * 1.5**-0.55]
    )
    assert truth.reciprocal.nnz == 1
