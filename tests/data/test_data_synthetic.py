"""Generated data: as many and as frequent as planned, and learnable."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from typer.testing import CliRunner

from haste.cli import app
from haste.data.build import build_corpus
from haste.data.corpus import load_corpus
from haste.data.readers import detect
from haste.data.registry import Dataset
from haste.data.synthetic import LIKE, Plan, generate, published, sample_documents
from haste.data.synthetic import _Words as Words
from haste.errors import ConfigError

PLAN = Plan(documents=300, test_documents=80, labels=60, labels_per_document=3.5, words=9, seed=4)
EXPECTED = {"train_all": 300, "test": 80, "labels": 60, "train": 270, "validation": 30}


def drawn(plan, split):
    """(uid, text, labels) of each document."""
    return {
        uid: (text, labels.tolist())
        for block in sample_documents(plan, split, Words(plan))
        for uid, text, labels in zip(block.uids, block.texts, block.labels, strict=True)
    }


def test_it_comes_back_as_a_corpus_with_the_same_documents_and_labels(tmp_path):
    generate(PLAN, tmp_path / "raw")
    dataset = Dataset(name="made", path="raw", validation=0.1, expected=EXPECTED)
    info = build_corpus(dataset, tmp_path / "raw", tmp_path / "corpus")
    corpus = load_corpus(tmp_path / "corpus")
    wanted = {"train": drawn(PLAN, "train"), "test": drawn(PLAN, "test")}
    wanted["validation"] = wanted["train"]
    names = corpus.labels["uid"].to_pylist()
    for split in ("train", "validation", "test"):
        uids = corpus.documents(split)["uid"].to_pylist()
        assert len(uids) == info.documents[split]
        assert corpus.texts(split) == [wanted[split][uid][0] for uid in uids]
        positives = corpus.positives(split)
        for row, uid in enumerate(uids):
            labels = sorted(int(names[column]) for column in positives[row].indices)
            assert labels == wanted[split][uid][1]
    assert corpus.labels["text"].null_count == 0


def test_a_seed_says_it_all():
    assert drawn(PLAN, "test") == drawn(PLAN, "test")
    assert drawn(PLAN, "test") != drawn(replace(PLAN, seed=5), "test")


plans = st.builds(
    lambda documents, tests, labels, share, words, seed: Plan(
        documents,
        tests,
        labels,
        (low := max(1.0, labels / documents)) + share * max(0.0, labels / 2 - low),
        words,
        seed,
    ),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(2, 40),
    st.floats(0, 1),
    st.integers(1, 5),
    st.integers(0, 3),
)


@settings(deadline=None)
@given(plans)
def test_labels_are_in_range_each_once_and_each_has_a_training_document(plan):
    found = {split: drawn(plan, split) for split in ("train", "test")}
    assert len(found["train"]) == plan.documents
    assert len(found["test"]) == plan.test_documents
    for documents in found.values():
        for text, labels in documents.values():
            assert text
            assert labels
            assert labels == sorted(set(labels))
            assert 0 <= labels[0] <= labels[-1] < plan.labels
    met = {label for _, labels in found["train"].values() for label in labels}
    assert met == set(range(plan.labels))


@pytest.mark.parametrize("name", ["amazon-3m", "wiki10-31k", "eurlex-4k"])
def test_averages_are_the_published(name):
    plan = published(name).scaled(0.5 if name != "amazon-3m" else 0.01)
    for split in ("train", "test"):
        documents = list(drawn(plan, split).values())
        labels = np.mean([len(labels) for _, labels in documents])
        assert labels == pytest.approx(LIKE[name].labels_per_document, rel=0.03)
        words = np.mean([len(text.split()) for text, _ in documents])
        assert words == pytest.approx(LIKE[name].words, rel=0.03)


def test_frequencies_fall_as_zipf_says():
    plan = Plan(20_000, 1, 5_000, 20.0, 1)
    labels = np.concatenate([labels for _, labels in drawn(plan, "train").values()])
    falling = np.sort(np.bincount(labels, minlength=plan.labels))[::-1]
    # 0.9 of the labels come by rank: the frequency is about c / (rank + 5), and then 1 / 10 evenly
    share = falling / falling.sum()
    even = 0.1 / plan.labels
    for rank in (10, 30, 100, 300):
        zipf = 0.9 / (rank + 5) / np.log(5005 / 5)
        window = share[rank - rank // 5 : rank + rank // 5].mean()
        assert window == pytest.approx(zipf + even, rel=0.25)


def test_labels_can_be_learnt_from_the_words():
    plan = Plan(2_000, 500, 50, 2.0, 20)
    vectorizer = CountVectorizer().fit(Words(plan).of_labels())
    parts = {}
    for split in ("train", "test"):
        texts, labels = zip(*drawn(plan, split).values(), strict=True)
        parts[split] = vectorizer.transform(texts), labels
    features, labels = parts["train"]
    # nearest centroid: nothing is trained but the mean of each label's documents
    truth = np.zeros((len(labels), plan.labels), np.float32)
    for row, each in enumerate(labels):
        truth[row, each] = 1 / len(each)
    centroids = truth.T @ features.toarray()
    centroids -= centroids.mean(axis=0)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    features, labels = parts["test"]
    first = np.argmax(features.toarray() @ centroids.T, axis=1)
    precision = np.mean([best in each for best, each in zip(first, labels, strict=True)])
    assert precision > 0.8  # a guess is right in 4% of cases


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"documents": 0}, "documents: 0 is not allowed"),
        ({"labels": 1}, "labels: 1 is not allowed"),
        ({"words": 0}, "words: 0 is not allowed"),
        ({"labels": 2000}, "must lie between 6.667, so that each of 2000 labels has one of 300"),
        ({"labels_per_document": 31.0}, "must lie between 1, .* and 30"),
    ],
)
def test_plans_that_cannot_be_kept(numbers, text):
    with pytest.raises(ConfigError, match=text):
        replace(PLAN, **numbers)


@pytest.mark.parametrize("name", LIKE)
@pytest.mark.parametrize("scale", [0, 1e-6, 1e-3])
def test_published_sets_can_be_made_small(name, scale):
    plan = published(name).scaled(scale)
    assert plan.labels >= 2
    assert plan.labels_per_document <= max(published(name).labels_per_document, plan.labels)


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "X.trn.txt").touch()
    with pytest.raises(ConfigError, match=r"holds X\.trn\.txt already. Give an empty folder"):
        generate(PLAN, tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["synth", *map(str, arguments)])


def test_the_command(tmp_path):
    numbers = ["--documents", 40, "--labels", 10, "--labels-per-document", 2, "--words", 4]
    result = run(tmp_path, *numbers, "--seed", 3)
    assert result.exit_code == 0, result.output
    layout = detect(tmp_path)
    assert (layout.name, layout.count("train"), layout.count("test")) == ("JSON lines", 40, 10)
    assert layout.n_labels == 10


def test_the_command_like_a_published_set(tmp_path):
    result = run(tmp_path, "--like", "eurlex-4k", "--scale", 0.01, "--test-documents", 5)
    assert result.exit_code == 0, result.output
    layout = detect(tmp_path)
    assert (layout.count("train"), layout.count("test"), layout.n_labels) == (154, 5, 40)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--like", "amazon-3mm"], "Did you mean 'amazon-3m'"),
        (["--documents", "5"], "--documents and --labels are needed, or --like"),
        (["--documents", "5", "--labels", "4", "--scale", "2"], "--scale: means nothing without"),
    ],
)
def test_the_command_refuses(tmp_path, arguments, text):
    result = run(tmp_path, *arguments)
    assert isinstance(result.exception, ConfigError)
    assert text in str(result.exception)
