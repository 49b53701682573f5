"""HasteClassifier on texts, sparse features and dense embeddings in memory."""

import numpy as np
import pytest
import scipy.sparse as sp

from haste import HasteClassifier
from haste.data.arrays import NamedLabels
from haste.errors import ConfigError, DataError

TOPICS = 80
TRAINING = {"epochs": 12, "batch_size": 32}


def problem(documents=600):
    """Documents of one or two of TOPICS, each with words and a direction of its own."""
    random = np.random.default_rng(0)
    topics = [random.choice(TOPICS, random.integers(1, 3), replace=False) for _ in range(documents)]
    texts = [" ".join(f"w{t} x{t} common" for t in row) for row in topics]
    directions = random.standard_normal((TOPICS, 128)).astype(np.float32)
    embeddings = np.stack([directions[row].sum(0) for row in topics])
    counts = sp.csr_matrix(np.stack([np.bincount(row, minlength=TOPICS) for row in topics]))
    return texts, embeddings, counts, topics


TEXTS, EMBEDDINGS, COUNTS, LABELS = problem()
NAMES = [[f"topic {label}" for label in row] for row in LABELS]


@pytest.mark.parametrize(
    ("documents", "labels"),
    [
        (TEXTS, NAMES),
        (EMBEDDINGS, COUNTS),
        (sp.csr_matrix(EMBEDDINGS * (EMBEDDINGS > 0.5)), [row.tolist() for row in LABELS]),
    ],
    ids=["texts", "embeddings", "sparse"],
)
def test_learns_what_there_is_to_learn(documents, labels):
    model = HasteClassifier(training=TRAINING, device="cpu").fit(documents[:500], labels[:500])
    assert model.evaluate(documents[500:], labels[500:])["P@1"] > 80
    found, scores = model.predict(documents[500:], k=3)
    assert found.shape == scores.shape == (100, 3)
    assert (np.diff(scores) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()
    truth = NAMES[500:] if isinstance(found[0, 0], str) else LABELS[500:]
    assert np.mean([row[0] in own for row, own in zip(found, truth, strict=True)]) > 0.8


def test_few_labels_take_a_dense_layer_and_the_rest_is_nobodys():
    labels = ["even" if row[0] % 2 == 0 else "odd" for row in LABELS]
    model = HasteClassifier(training={"epochs": 1}, device="cpu").fit(TEXTS, labels)
    found, scores = model.predict(TEXTS[:2], k=3)
    assert set(found[0, :2]) == {"even", "odd"}
    assert found[0, 2] is None
    assert scores[0, 2] == 0


@pytest.mark.parametrize(
    ("documents", "labels", "message"),
    [
        (TEXTS[:3], NAMES[:2], "X has 3 documents, Y has 2"),
        ([1, 2], [["a"], ["b"]], "document 0 is int"),
        (np.zeros(4), [[0]] * 4, "expected .documents, features"),
        (np.full((4, 2), np.nan), [[0]] * 4, "not finite"),
        (TEXTS[:2], [["a"], [1]], "some labels are names, others numbers"),
        ("about w3", [["a"]] * 8, "X is str"),
        (None, [["a"]], "X is NoneType"),
        (TEXTS[:2], "ab", "Y is str"),
        (TEXTS[:2], None, "Y is NoneType"),
        (TEXTS[:2], {"a": 1, "b": 2}, "Y is dict"),
        (TEXTS[:2], [None, None], "document 0 has the label None"),
        (TEXTS[:2], [["a"], [None]], "document 1 has the label None"),
        (TEXTS[:2], [[1.5], [2.5]], "document 0 has the label 1.5"),
        (TEXTS[:2], [[True], [False]], "document 0 has the label True"),
        (TEXTS[:2], [[5], [-1]], "document 1 has the label -1"),
        (TEXTS[:2], np.array([0.0, 1.0]), "document 0 has the label 0.0"),
        (TEXTS[:2], np.full((2, 2), np.nan), "Y: has values that are not finite"),
        ([*TEXTS[:3], "half \ud800"], ["a", "b"] * 2, "document 3 has half of a character"),
        (TEXTS[:2], [["a"], ["half \ud800"]], "document 1 has the label"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(documents, labels, message):
    with pytest.raises(DataError, match=message):
        HasteClassifier().fit(documents, labels)


def test_a_data_frame_is_not_taken_for_a_list():
    frame = pytest.importorskip("pandas").DataFrame({"text": TEXTS[:3]})
    with pytest.raises(DataError, match="X is DataFrame"):
        HasteClassifier().fit(frame, NAMES[:3])
    with pytest.raises(DataError, match="Y is DataFrame"):
        HasteClassifier().fit(TEXTS[:3], frame)


@pytest.mark.parametrize("labels", [["ab", "c"], [["ab"], ["c"]]])
@pytest.mark.parametrize("dtype", [str, object])
def test_an_array_of_names_is_read_as_the_list_that_it_was(labels, dtype):
    assert NamedLabels.of(np.array(labels, dtype)).names == ["ab", "c"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"epoch": 3}}, "unknown key 'epoch'"),
        ({"training": {"epochs": "three"}}, "training.epochs: 'three'"),
        ({"layer": "sparse"}, "layer: expected settings"),
        ({"device": "gpu"}, "device: 'gpu'"),
        ({"seed": None}, "seed: None"),
        ({"features": 0}, "features: 0"),
    ],
)
def test_settings_that_there_are_not_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        HasteClassifier(**settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "hast"}, "no method 'hast'"),
        ({"method": "omikuji"}, "'omikuji' is not trained"),
        ({"encoder": {"model": "all-MiniLM-L6-v2"}}, "encoder.model: there is no folder"),
    ],
)
def test_a_method_or_model_that_there_is_not_is_refused_with_few_labels_too(settings, message):
    labels = [row[0] % 3 for row in LABELS]
    with pytest.raises(ConfigError, match=message):
        HasteClassifier(device="cpu", **settings).fit(TEXTS, labels)


def test_what_does_not_fit_the_training_is_refused():
    model = HasteClassifier(training={"epochs": 1}, device="cpu").fit(TEXTS, NAMES)
    with pytest.raises(DataError, match="was trained on texts, and cannot read features"):
        model.predict(EMBEDDINGS)
    with pytest.raises(DataError, match="X has 2 documents, Y has 3"):
        model.evaluate(TEXTS[:2], NAMES[:3])
    for k in (0, True, "5", 2.5, None):
        with pytest.raises(ConfigError, match="k: "):
            model.predict(TEXTS[:1], k)
    assert model.predict(TEXTS[:1], np.int64(2))[0].shape == (1, 2)


def test_what_is_not_trained_predicts_nothing():
    with pytest.raises(DataError, match="call fit first"):
        HasteClassifier().predict(TEXTS)


def test_a_folder_with_files_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="has files in it"):
        HasteClassifier(folder=tmp_path).fit(TEXTS, NAMES)
    model = HasteClassifier(folder=tmp_path)
    with pytest.raises(ConfigError, match="has files in it"):
        model.tune(TEXTS, NAMES, trials=1)
    # and that before any trial
    assert not model.trials


def test_a_fit_that_fails_leaves_the_former_model_whole(tmp_path):
    model = HasteClassifier(training={"epochs": 1}, device="cpu").fit(TEXTS, NAMES)
    with pytest.raises(DataError):
        model.fit(TEXTS, [["one"]] * len(TEXTS))
    model.save_pretrained(tmp_path / "saved")
    again = HasteClassifier.from_pretrained(tmp_path / "saved", device="cpu")
    assert (again.predict(TEXTS[:5])[0] == model.predict(TEXTS[:5])[0]).all()


def test_tuning_ends_in_a_fit_with_the_best_trial():
    few = {"epochs": 2, "batch_size": 64}
    model = HasteClassifier(training=few, device="cpu", features=128)
    assert model.tune(TEXTS, NAMES, trials=2) is model
    assert [trial.name for trial in model.trials] == ["000", "001"]
    best = max(model.trials, key=lambda trial: trial.score)
    for key, value in best.changed.items():
        section, name = key.split(".")
        assert model.sections[section][name] == value
    assert model.sections["training"]["epochs"] == 2
    assert len(model.predict(TEXTS[:3])[0]) == 3


def test_patience_ends_training_when_validation_gets_no_better(tmp_path):
    training = {"epochs": 200, "batch_size": 64, "patience": 2}
    layer = {"dropout": 0.0}
    model = HasteClassifier(
        training=training, layer=layer, device="cpu", features=128, folder=tmp_path
    )
    model.fit(TEXTS, NAMES)
    (history,) = tmp_path.rglob("history.csv")
    rows = [line.split(",") for line in history.read_text().splitlines()]
    scores = [
        sum(float(row[rows[0].index(k)]) for k in ("P@1", "P@5", "PSP@5")) for row in rows[1:]
    ]
    assert len(scores) < 200
    assert len(scores) - 1 - scores.index(max(scores)) == 2


def test_labels_are_not_told_by_a_name_that_several_have():
    assert NamedLabels.of([["b", "new"]], ["a", "b"]).rows.values.tolist() == [1, 2]
    with pytest.raises(DataError, match="called 'a'"):
        NamedLabels.of([["b"]], ["a", "a", "b"])
