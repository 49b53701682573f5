import dataclasses
from typing import get_type_hints

import pytest

from haste import former_names
from haste.config import SECTIONS, EncoderConfig, RunConfig, build_section, read_run
from haste.errors import ConfigError
from haste.files import write_yaml
from haste.grid import GridConfig, RunKey
from haste.labels.spec import OrderSpec
from haste.presets import ablations, method, methods

GRID = {
    "name": "test",
    "datasets": ["wordnet-mini"],
    "methods": ["dense", "elmo-fp8", "renee", "haste", "popularity"],
    "ablations": ["grouping", "head_tail"],
    "seeds": [0, 1],
    "ablation_seeds": [0],
}


def grid(**changes):
    return GridConfig.from_dict({**GRID, **changes})


def of(config, method="haste", variant="default", seed=0, dataset="wordnet-mini"):
    """A run of a grid."""
    return config.resolve(RunKey(dataset, method, variant, seed))


def test_the_run_table():
    keys = {(k.method, k.variant, k.seed) for k in grid().runs()}
    main = {(m, "default", s) for m in ("dense", "elmo-fp8", "haste") for s in (0, 1)}
    ratios = [f"head_tail-{v}" for v in ("off", "ratio-0.01", "ratio-0.05", "ratio-0.2")]
    variants = [
        "grouping-balanced",
        "grouping-frequency",
        "grouping-frequency-shuffled",
        "grouping-random",
        *ratios,
    ]
    assert keys == main | {("popularity", "default", 0)} | {("haste", v, 0) for v in variants}
    assert len(grid().runs()) == len(keys)


def test_a_model_is_the_one_that_is_given():
    def inputs(model):
        return of(grid(encoder={"model": model})).inputs

    assert inputs("minilm").model == "data/models/minilm"
    given = [inputs(model) for model in ("minilm", "/a/minilm", "/b/minilm", "./minilm")]
    assert [each.model for each in given[1:]] == ["/a/minilm", "/b/minilm", "minilm"]
    assert len({each.tokens for each in given}) == len({each.order for each in given}) == 4
    assert inputs("/a/./minilm/").tokens == given[1].tokens
    with pytest.raises(ConfigError, match="model: '' is not a plain name"):
        inputs("/")


def test_a_run_has_one_model():
    value = of(grid(encoder={"model": "/a/minilm"}), "dense")
    value = value.as_dict()
    RunConfig.from_dict(value)
    value["inputs"]["model"] = "/b/minilm"
    with pytest.raises(ConfigError, match=r"inputs\.model: is not the folder of encoder\.model"):
        RunConfig.from_dict(value)


def test_later_settings_win():
    changed = grid(
        layer={"fan_in": 64, "dropout": 0.5},
        overrides={"haste": {"layer": {"head_ratio": 0.2}, "training": {"epochs": 7}}},
    )
    plain = of(changed)
    assert plain.layer.fan_in == 64  # the grid's section over the default
    assert plain.layer.grouping == "semantic"  # the preset
    assert plain.layer.head_ratio == 0.2  # the override over the preset
    assert plain.training.epochs == 7
    variant = of(changed, "haste", "head_tail-ratio-0.01")
    assert variant.layer.head_ratio == 0.01  # the variant over all
    assert of(changed, "dense").training.epochs == 20


def test_runs_name_their_inputs():
    run = of(grid(), "haste", "default", 1)
    assert run.inputs.corpus == "data/wordnet-mini/corpus"
    assert run.inputs.tokens == "data/wordnet-mini/tokens/all-MiniLM-L6-v2-32"
    assert run.inputs.order == (
        "data/wordnet-mini/labels/semantic-h0.1-g16-train-bag-all-MiniLM-L6-v2-32-s1/order.npz"
    )
    assert run.inputs.clusters is None
    dense = of(grid(), "dense", "default", 1)
    assert dense.inputs.order is None
    spartex = of(grid(methods=["spartex"]), "spartex", "default", 1)
    assert "/semantic-h0-g64-" in spartex.inputs.clusters


def test_a_run_survives_its_file():
    for key in grid(methods=list(methods()), ablations=list(ablations())).runs():
        if method(key.method).kind == "trained":
            run = grid(methods=list(methods()), ablations=list(ablations())).resolve(key)
            assert RunConfig.from_dict(run.as_dict()) == run


def test_the_run_of_a_linear_baseline_is_said_to_be_one(tmp_path):
    key = RunKey("wordnet-mini", "omikuji", "default", 0)
    write_yaml(tmp_path / "config.yaml", grid(methods=["omikuji"]).run_settings(key))
    with pytest.raises(ConfigError, match="linear baseline"):
        read_run(tmp_path / "config.yaml")


def test_every_variant_changes_its_run():
    # of a grid that has none of their values: defaults are some variants'
    whole = grid(
        ablations=list(ablations()), layer={"bias_init": "zero"}, rewire={"interval": 1000}
    )
    for name, chosen in ablations().items():
        plain = of(whole, chosen.method)
        for value in chosen.variants:
            changed = of(whole, chosen.method, chosen.variant_name(value))
            assert dataclasses.replace(changed, variant="default") != plain, (name, value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layr": {}}, r"config: unknown key 'layr'\. Did you mean 'layer'\?"),
        ({"layer": {"fanin": 3}}, r"layer: unknown key 'fanin'\. Did you mean 'fan_in'\?"),
        ({"layer": {"fan_in": 33}}, r"layer\.fan_in: 33"),
        ({"layer": {"group_size": 17}}, r"layer\.group_size: 17"),
        ({"layer": {"dropout": 1.0}}, r"layer\.dropout: 1\.0"),
        ({"layer": {"features": "private"}}, r"layer\.features: 'private' needs a head"),
        ({"layer": {"chunks": 2}}, r"layer\.chunks: 2, but group_fan_in without a head"),
        (
            {"methods": ["lightxml"], "overrides": {"lightxml": {"layer": {"head_ratio": 0.1}}}},
            r"layer\.head_ratio: 0\.1 is not for label_tree; set it 0",
        ),
        ({"methods": ["hast"]}, r"methods: .* 'hast'\. Did you mean 'haste'\?"),
        ({"ablations": ["grouppping"]}, r"ablations: .* Did you mean 'grouping'\?"),
        ({"overrides": {"dens": {}}}, r"'dens'\. Did you mean 'dense'\?"),
        ({"overrides": {"dense": {"lyer": {}}}}, r"overrides\.dense: unknown key 'lyer'"),
        ({"overrides": {"dense": {"layer": {"fan": 1}}}}, r"layer: unknown key 'fan'"),
        ({"name": "../up"}, r"name: '\.\./up' is not a plain name"),
        ({"datasets": ["-rf"]}, r"datasets\[0\]: '-rf' is not a plain name"),
        ({"encoder": {"model": "models/.."}}, r"encoder\.model: '\.\.' is not a plain name"),
        ({"data_dir": "~nobody-of-that-name/x"}, r"data_dir: there is no home folder"),
        ({"per_dataset": {"mini": {}}}, r"per_dataset: 'mini' is not among datasets\. Did"),
        ({"per_dataset": {"wordnet-mini": {"seeds": [1]}}}, r"wordnet-mini: unknown key"),
        ({"per_dataset": {"wordnet-mini": {"layer": {"fan": 1}}}}, r"layer: unknown key 'fan'"),
        ({"ablation_datasets": ["mini"]}, r"ablation_datasets: 'mini' is not among datasets"),
        ({"datasets": {"mine": 5}}, r"datasets\.mine: expected settings"),
        ({"datasets": ["a", "a"]}, "datasets: 'a' is named more than once"),
        ({"methods": ["dense", "dense"]}, "methods: 'dense' is named more than once"),
        ({"ablation_seeds": [1, 1]}, "ablation_seeds: 1 is named more than once"),
        ({"seeds": [2**31]}, r"seeds\[0\]"),
        ({"seeds": []}, "seeds"),
        ({"overrides": {3: {}}}, "3"),
        ({"training": {"learning_rate": 10**400}}, r"training\.learning_rate"),
    ],
)
def test_faults_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        grid(**changes)


def test_keys_as_they_were_called_before_are_read():
    assert grid(only_finished=True).allow_partial


@pytest.mark.parametrize("key", ["short_run_table", "shorter"])
def test_a_comparison_with_fewer_epochs_is_refused(key):
    assert grid(**{key: None}) == grid()
    with pytest.raises(ConfigError, match=f"config.{key}: 'runs.csv' is no longer there"):
        grid(**{key: "runs.csv"})


def test_paths_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    mine = grid(
        data_dir="~/data",
        results_dir="~",
        encoder={"model": "~/models/small"},
    )
    assert (mine.data_dir, mine.results_dir) == ("/home/me/data", "/home/me")
    run = of(mine)
    assert run.encoder.model == "/home/me/models/small"
    value = {**run.as_dict(), "inputs": {**run.as_dict()["inputs"], "corpus": "~/data/corpus"}}
    assert RunConfig.from_dict(value).inputs.corpus == "/home/me/data/corpus"
    assert grid(data_dir="./~").data_dir == "./~"


@pytest.mark.parametrize("key", [each.name for each in dataclasses.fields(GridConfig)])
def test_a_value_of_another_type_is_named(key):
    for value in (3.5, [None], [{}]):
        with pytest.raises(ConfigError, match=key):
            grid(**{key: value})


def test_keys_without_a_value_are_at_their_defaults():
    nothing = dict.fromkeys(["seeds", "data_dir", "overrides", "per_dataset", "layer", "tuning"])
    assert grid(**nothing) == grid(seeds=[0, 1, 2])


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", None), ("seed", -1), ("seed", True), ("dataset", 3), ("inputs", 3), ("layer", 3)],
)
def test_the_values_of_a_run_have_types_and_ranges(key, value):
    with pytest.raises(ConfigError, match=rf"run\.{key}"):
        RunConfig.from_dict({**of(grid()).as_dict(), key: value})


NUMBERS = [
    (section, each.name, hint)
    for section, cls in SECTIONS.items()
    for each in dataclasses.fields(cls)
    if (hint := get_type_hints(cls)[each.name]) in (int, float)
]


@pytest.mark.parametrize(("section", "key", "hint"), NUMBERS)
def test_every_number_has_a_range(section, key, hint):
    wrong = ["-1", "nan", "inf", float("nan"), float("-inf")] if hint is float else [-1]
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
            build_section(section, {key: value})


def test_numbers_without_a_dot_are_numbers():
    # YAML 1.1 reads 1e-3 as text
    assert build_section("encoder", {"learning_rate": "1e-3"}).learning_rate == 0.001
    assert build_section("layer", {"dropout": 0}).dropout == 0.0


def test_an_unknown_variant_is_named():
    with pytest.raises(ConfigError, match=r"haste: no variant 'grouping-semntic'"):
        of(grid(), "haste", "grouping-semntic")


@pytest.mark.parametrize("encoder", ["bag-all-MiniLM-L6-v2-32", "transformer-x-128"])
def test_order_names_can_be_read_back(encoder):
    spec = OrderSpec("semantic", 0.05, 32, "train_and_test", encoder, 7)
    assert OrderSpec.parse(spec.name) == spec
    with pytest.raises(ConfigError, match="'semantic' is not the name of a label order"):
        OrderSpec.parse("semantic")


HEADED = {
    "fixed-fan-in-head": "fixed-fan-in",
    "spartex-head": "spartex",
    "block-sparse-head": "block-sparse",
    "fixed-fan-in-64-head": "fixed-fan-in-64",
    "spartex-64-head": "spartex-64",
    "unstructured-head": "unstructured",
    "haste": "group-fan-in",
}


@pytest.mark.parametrize(("headed", "plain"), HEADED.items())
def test_a_headed_row_adds_the_head_of_haste_and_nothing_else(headed, plain):
    with_head, without = (of(grid(methods=[name]), name) for name in (headed, plain))
    haste = of(grid())
    assert without.layer.head_ratio == 0
    head = dataclasses.replace(without.layer, head_ratio=haste.layer.head_ratio)
    assert with_head.layer == head
    assert with_head.auxiliary == without.auxiliary
    assert with_head.training == without.training


def test_corrections_take_back_all_that_the_released_code_does_otherwise_one_by_one():
    config = grid(methods=["haste", "haste-released"], ablations=["corrections"])
    released, ours = (of(config, name).as_dict() for name in ("haste-released", "haste"))

    def otherwise(run, other):
        return {
            (section, key)
            for section in SECTIONS
            for key, value in run[section].items()
            if other[section][key] != value
        }

    taken_back = []
    for key in config.ablation_runs("corrections"):
        run = config.resolve(key).as_dict()
        assert key.method == "haste-released"
        if key.variant != "default":
            (changed,) = otherwise(run, released)
            assert run[changed[0]][changed[1]] == ours[changed[0]][changed[1]]
            taken_back.append(changed)
    assert len(taken_back) == len(set(taken_back)) == 5
    assert set(taken_back) == otherwise(released, ours)


def test_settings_of_a_data_set():
    changed = grid(
        datasets=["small", "large"],
        layer={"fan_in": 16},
        training={"epochs": 3},
        overrides={"haste": {"layer": {"head_ratio": 0.3}}},
        per_dataset={
            "large": {
                "layer": {"fan_in": 64, "head_ratio": 0.0, "grouping": "balanced"},
                "overrides": {"haste": {"layer": {"head_ratio": 0.02}, "training": {"epochs": 9}}},
            }
        },
    )
    small, large = (of(changed, dataset=name) for name in ("small", "large"))
    assert (small.layer.fan_in, small.layer.head_ratio, small.training.epochs) == (16, 0.3, 3)
    assert large.layer.fan_in == 64  # the data set's section over the grid's
    assert large.layer.grouping == "semantic"  # the preset over the data set's section
    assert large.layer.head_ratio == 0.02  # the data set's override over the grid's
    assert large.training.epochs == 9
    variant = of(changed, "haste", "head_tail-ratio-0.2", dataset="large")
    assert variant.layer.head_ratio == 0.2  # the variant over all
    dense = of(changed, "dense", dataset="large")
    assert (dense.layer.head_ratio, dense.training.epochs) == (0.0, 3)


def test_variants_without_a_head_can_do_with_private_features():
    changed = grid(
        ablations=["head_tail", "auxiliary"],
        overrides={"haste": {"layer": {"features": "private"}}},
    )
    for variant in ("head_tail-off", "auxiliary-auxiliary-loss"):
        run = of(changed, "haste", variant)
        assert (run.layer.head_ratio, run.layer.features) == (0.0, "shared")


def test_data_sets_can_be_described_in_place():
    changed = grid(datasets={"wordnet-mini": None, "mine": {"path": "/data/mine"}})
    assert changed.datasets == changed.ablation_datasets == ("wordnet-mini", "mine")
    assert changed.dataset_settings == {"mine": {"path": "/data/mine"}}
    assert grid().dataset_settings == {}


TUNING = {
    "seeds": [4],
    "epochs": 3,
    "trials": {
        "a": {"training": {"learning_rate": 0.02}},
        "b": {"training": {"learning_rate": 0.05}, "encoder": {"learning_rate": "2e-4"}},
    },
}


def tuned(**changes):
    return grid(tuning={**TUNING, **changes})


SEARCHED = {
    "only": {"dense": ["a"], "elmo-fp8": ["b"], "haste": ["a"]},
    "rule": "The better half of a first look.",
}


def trial(config, name, method_name="haste"):
    return of(config, method_name, f"trial-{name}", 4)


def test_every_trained_method_has_every_trial():
    config = tuned()
    keys = list(config.trial_runs())
    assert [(k.method, k.variant, k.seed) for k in keys] == [
        (name, variant, 4)
        for name in ("dense", "elmo-fp8", "haste")
        for variant in ("trial-a", "trial-b")
    ]
    assert config.all_runs() == [*keys, *config.runs()]
    assert config.runs() == grid().runs()
    assert grid().all_runs() == grid().runs()


def test_a_search_leaves_each_method_its_own_trials():
    keys = list(tuned(**SEARCHED).trial_runs())
    assert [(k.method, k.variant) for k in keys] == [
        ("dense", "trial-a"),
        ("elmo-fp8", "trial-b"),
        ("haste", "trial-a"),
    ]
    whole = {"only": {name: ["b", "a"] for name in SEARCHED["only"]}, "rule": "All."}
    assert list(tuned(**whole).trial_runs()) == list(tuned().trial_runs())


def test_an_untuned_method_has_no_trials_and_no_share_in_the_budget():
    keys = list(tuned(untuned=["elmo-fp8"]).trial_runs())
    assert {k.method for k in keys} == {"dense", "haste"}
    searched = {"only": {"dense": ["a"], "haste": ["b"]}, "rule": "The better half."}
    keys = list(tuned(**searched, untuned=["elmo-fp8"]).trial_runs())
    assert [(k.method, k.variant) for k in keys] == [("dense", "trial-a"), ("haste", "trial-b")]


def test_a_trial_is_its_preset_and_its_delta_measured_on_validation():
    config = tuned()
    a, b = trial(config, "a"), trial(config, "b")
    assert (a.training.learning_rate, b.training.learning_rate) == (0.02, 0.05)
    assert (a.encoder.learning_rate, b.encoder.learning_rate) == (
        EncoderConfig().learning_rate,
        2e-4,
    )
    assert (a.training.epochs, a.training.evaluate, a.seed) == (3, "validation", 4)
    assert a.layer.grouping == "semantic"  # the preset
    plain = of(config)
    assert (plain.training.epochs, plain.training.evaluate) == (20, "test")


def test_overrides_leave_trials_alone():
    override = {"haste": {"training": {"momentum": 0.3}, "layer": {"dropout": 0.5}}}
    plain = tuned()
    changed = GridConfig.from_dict(
        {
            **GRID,
            "tuning": TUNING,
            "overrides": override,
            "per_dataset": {"wordnet-mini": {"overrides": override}},
        }
    )
    assert trial(changed, "a") == trial(plain, "a")
    run = of(changed)
    assert (run.training.momentum, run.layer.dropout) == (0.3, 0.5)


def test_base_comes_before_the_delta_and_scale_after_it():
    config = tuned(
        base={"haste": {"training": {"learning_rate": 0.9, "momentum": 0.1}}},
        scale={"elmo-fp8": {"training.learning_rate": 10, "encoder.learning_rate": "5e-1"}},
    )
    assert (trial(config, "a").training.learning_rate, trial(config, "a").training.momentum) == (
        0.02,
        0.1,
    )
    elmo = {name: trial(config, name, "elmo-fp8") for name in "ab"}
    assert elmo["a"].training.learning_rate == pytest.approx(0.2)
    assert elmo["b"].training.learning_rate == pytest.approx(0.5)
    # of what the trial does not name, the grid's value
    assert elmo["a"].encoder.learning_rate == pytest.approx(EncoderConfig().learning_rate / 2)
    assert elmo["b"].encoder.learning_rate == pytest.approx(1e-4)
    assert trial(config, "a", "dense").training.learning_rate == 0.02
    assert config.tuning.changed("haste", "trial-a") == [
        ("training", "learning_rate"),
        ("training", "momentum"),
    ]
    assert config.tuning.changed("elmo-fp8", "trial-a") == [
        ("encoder", "learning_rate"),
        ("training", "learning_rate"),
    ]


def test_trials_count_no_labels_of_the_test_split():
    config = GridConfig.from_dict({**GRID, "methods": ["haste-released"], "tuning": TUNING})
    assert "-train_and_test-" not in trial(config, "a", "haste-released").inputs.order
    run = of(config, "haste-released")
    assert "-train_and_test-" in run.inputs.order


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trails": {}}, r"tuning: unknown key 'trails'\. Did you mean 'trials'\?"),
        ({"trials": {"a/b": {}}}, r"tuning\.trials: 'a/b' is not a plain name"),
        ({"epochs": 0}, r"tuning\.epochs: 0 is not allowed"),
        ({"seeds": []}, r"tuning\.seeds: \[\] is not allowed"),
        (
            {"trials": {"a": {"training": {"learning_rte": 1}}}},
            r"tuning\.trials\.a\.training: unknown key 'learning_rte'\. Did you mean 'learning_rate'\?",
        ),
        (
            {"trials": {"a": {"training": {"epochs": 9}}}},
            r"tuning\.trials\.a\.training\.epochs: is the same in every trial",
        ),
        (
            {"base": {"dense": {"training": {"evaluate": "test"}}}},
            r"tuning\.base\.dense\.training\.evaluate: is the same in every trial",
        ),
        ({"base": {"dens": {}}}, r"there is no method 'dens'\. Did you mean 'dense'\?"),
        ({"base": {"popularity": {}}}, r"tuning\.base: 'popularity' is not trained here"),
        ({"scale": {"renee": {}}}, r"tuning\.scale: 'renee' is not trained here"),
        (
            {"scale": {"dense": {"training.learning_rte": 10}}},
            r"tuning\.scale\.dense: unknown key 'training\.learning_rte'\. Did you mean "
            r"'training\.learning_rate'\?",
        ),
        ({"scale": {"dense": {"training.epochs": 10}}}, r"unknown key 'training\.epochs'"),
        (
            {
                "base": {"dense": {"training": {"learning_rate": 0.3}}},
                "scale": {"dense": {"training.learning_rate": 10}},
            },
            r"tuning\.scale\.dense\.training\.learning_rate: tuning\.base sets it too",
        ),
        ({**SEARCHED, "only": {"dense": ["c"]}}, r"tuning\.only\.dense: there is no trial 'c'"),
        ({**SEARCHED, "only": {"popularity": ["a"]}}, r"'popularity' is not trained here"),
        (
            {**SEARCHED, "only": {"dense": ["a"]}},
            r"tuning\.only: .* as many trials .* dense 1, elmo-fp8 2, haste 2",
        ),
        ({**SEARCHED, "untuned": ["dense"]}, r"tuning\.untuned: tuning\.only has trials of dense"),
        ({"untuned": ["popularity"]}, r"'popularity' is not trained here"),
        ({"only": SEARCHED["only"]}, r"tuning\.rule: tuning\.only needs the rule"),
        ({"rule": "Any."}, r"tuning\.rule: tuning\.only needs the rule"),
    ],
)
def test_faults_of_tuning_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        tuned(**changes)


def test_an_unknown_trial_is_named():
    with pytest.raises(ConfigError, match=r"tuning\.trials: there is no trial 'c'\. Known: a, b"):
        trial(tuned(), "c")
    with pytest.raises(ConfigError, match=r"trial-a: a trial, but the grid has no `tuning:`"):
        trial(grid(), "a")
    assert not any(value.startswith("trial") for value in ablations())


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"evaluate": "validation"}},
        {"overrides": {"haste": {"training": {"evaluate": "validation"}}}},
    ],
)
def test_runs_of_a_grid_are_measured_on_test(changes):
    with pytest.raises(ConfigError, match=r"training\.evaluate: 'validation' for .* Leave it out"):
        grid(**changes)


def test_files_of_earlier_versions_are_read():
    config = of(grid(), "dense")
    written = config.as_dict()
    for section, names in former_names.SETTINGS.items():
        for old, new in names.items():
            written[section][old] = written[section].pop(new)
    assert RunConfig.from_dict(written) == config
    assert grid(training={"by_length": True}).training == {"group_by_length": True}
