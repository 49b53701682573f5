"""What a run and a grid of runs are: frozen dataclasses, checked when made, with no torch in sight.

A run is resolved in this order, later winning: the defaults below, the grid's own sections
(`encoder:`, `layer:`, ...), those that `per_dataset:` has for the run's data set, the preset of the
method (`presets/methods.yaml`), the grid's `overrides:` for that method, those of the data set, and
the delta of the ablation's variant (`presets/ablations.yaml`). A trial of `tuning:` leaves `overrides`
out, which hold what trials have chosen, see `Tuning`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from haste.errors import ConfigError, suggest
from haste.paths import Layout
from haste.strict_yaml import parse_yaml

GROUP_SIZES = (16, 32, 64, 128)
FAN_INS = (16, 32, 64, 128, 256)
PATTERNS = ("dense", "bottleneck", "fixed_fan_in", "group_fan_in", "block_sparse", "unstructured")
GROUPINGS = ("semantic", "balanced", "frequency", "random")
DEFAULT_VARIANT = "default"
TRIAL_PREFIX = "trial-"
"""of the variants that are trials"""
TRIAL_SETTINGS = ("training.epochs", "training.evaluate", "layer.frequencies")
"""what `tuning:` itself sets, the same for every trial"""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE)


def _choice(where: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{where}: {value!r} is not allowed; choose one of {', '.join(map(str, allowed))}."
        )


def _between(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(
            f"{where}: {value} is out of range; it must lie between {low} and {high}."
        )


def expand_home(where: str, config: Any, *names: str) -> None:
    """Put the home folder in the place of a leading ~ in fields of a frozen dataclass that hold paths."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, str) and value.startswith("~"):
            try:
                object.__setattr__(config, name, str(Path(value).expanduser()))
            except RuntimeError as error:
                raise ConfigError(
                    f"{where}{name}: there is no home folder for {value!r}."
                ) from error


@dataclass(frozen=True)
class EncoderConfig:
    """What turns a document into features h in R^H."""

    kind: str = "bag"
    """bag (token embedding bag, for CPU) or transformer"""
    model: str = "all-MiniLM-L6-v2"
    """a name of `models` in datasets.yaml, a folder, or a hub name (transformer only)"""
    max_len: int = 32
    """tokens kept of a document, special tokens included"""
    pooling: str = "mean"
    """mean (over the tokens) or cls"""
    label_embeddings: str = "documents"
    """what embeds a label for the grouping: its training `documents`, or its own `label_text`"""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    """not on biases and norms"""
    dtype: str = "float32"
    attention: str = "auto"
    """transformer: auto, with a kernel of our own for short documents on a GPU, or torch"""
    recompute: bool = False
    """transformer: activations inside its blocks are computed again for the backward pass, not kept;
    less memory, a third more work"""
    fused_optimizer: bool = False
    """each weight is updated in the backward pass, as soon as its gradient is there, which is not kept"""

    def __post_init__(self) -> None:
        expand_home("encoder.", self, "model")
        _check_name("encoder.model", self.model_name)
        _choice("encoder.kind", self.kind, ("bag", "transformer"))
        _choice("encoder.pooling", self.pooling, ("mean", "cls"))
        _choice("encoder.label_embeddings", self.label_embeddings, ("documents", "label_text"))
        _choice("encoder.dtype", self.dtype, ("float32", "bfloat16"))
        _choice("encoder.attention", self.attention, ("auto", "torch"))
        _between("encoder.max_len", self.max_len, 4, 4096)
        _between("encoder.learning_rate", self.learning_rate, 0.0, 1.0)

    @property
    def model_name(self) -> str:
        """The model's name as part of a file name."""
        return Path(self.model).name


@dataclass(frozen=True)
class LayerConfig:
    """The output layer: its sparsity pattern, its head, its numbers."""

    pattern: str = "group_fan_in"
    """dense, bottleneck, fixed_fan_in, group_fan_in, block_sparse or unstructured; with a head, that of the tail"""
    fan_in: int = 32
    """F: features each label reads (weights a label; for `unstructured` on average)"""
    group_size: int = 16
    """G: labels that share an index set"""
    run: int = 8
    """block_sparse: length of a contiguous run of features"""
    head_ratio: float = 0.0
    """share of labels, most frequent first, in a dense head; 0 for no head"""
    grouping: str = "random"
    """semantic, balanced, frequency or random order of the tail"""
    frequencies: str = "train"
    """labels are counted over `train`, or over `train_and_test` as the released code does (a leak)"""
    features: str = "shared"
    """head and tail read the same h, `private` halves of it, or learned `projections`"""
    dropout: float = 0.0
    """on the features each part of the layer reads, drawn for each part"""
    sampling: str = "without_replacement"
    """of index sets; with_replacement as in the released code"""
    bias_init: str = "zero"
    """zero, or log_prior: the log odds of each label"""
    chunks: int = 1
    """of dense rows, a head's included: the step takes the labels in at least so many chunks, so it holds
    at most B x L / chunks logits; kernels on a GPU also bound their chunks to some 32 MiB themselves"""
    dtype: str = "float32"
    """of the weights: float32, bfloat16, float16, float8_e4m3"""
    rounding: str = "stochastic"
    """of weights narrower than float32 after an update: stochastic or nearest"""
    loss_dtype: str = "float32"
    """in which the loss and its gradient are evaluated; bfloat16 as in the released code"""

    def __post_init__(self) -> None:
        _choice("layer.pattern", self.pattern, PATTERNS)
        _choice("layer.fan_in", self.fan_in, FAN_INS)
        _choice("layer.group_size", self.group_size, GROUP_SIZES)
        _choice("layer.grouping", self.grouping, GROUPINGS)
        _choice("layer.frequencies", self.frequencies, ("train", "train_and_test"))
        _choice("layer.features", self.features, ("shared", "private", "projections"))
        _choice("layer.sampling", self.sampling, ("without_replacement", "with_replacement"))
        _choice("layer.bias_init", self.bias_init, ("zero", "log_prior"))
        _choice("layer.dtype", self.dtype, ("float32", "bfloat16", "float16", "float8_e4m3"))
        _choice("layer.rounding", self.rounding, ("stochastic", "nearest"))
        _choice("layer.loss_dtype", self.loss_dtype, ("float32", "bfloat16"))
        _choice("layer.run", self.run, (4, 8, 16, 32))
        _between("layer.head_ratio", self.head_ratio, 0.0, 0.9)
        _between("layer.dropout", self.dropout, 0.0, 0.95)
        _between("layer.chunks", self.chunks, 1, 4096)
        if self.chunks > 1 and self.sparse and self.head_ratio == 0:
            raise ConfigError(
                f"layer.chunks: {self.chunks}, but {self.pattern} without a head has no dense rows to take "
                "in chunks; remove it, or set it for dense, bottleneck or a layer.head_ratio above 0."
            )
        if self.features != "shared" and self.head_ratio == 0:
            raise ConfigError(
                f"layer.features: {self.features!r} needs a head; set layer.head_ratio above 0."
            )
        if self.fan_in % self.run and self.pattern == "block_sparse":
            raise ConfigError(f"layer.run: {self.run} does not divide layer.fan_in, {self.fan_in}.")

    @property
    def grouped(self) -> bool:
        """Whether the order of labels matters to the pattern."""
        return self.pattern in ("group_fan_in", "block_sparse")

    @property
    def sparse(self) -> bool:
        """Whether the layer has connections to rewire."""
        return self.pattern not in ("dense", "bottleneck")


@dataclass(frozen=True)
class RewireConfig:
    """Dynamic sparse training: when and how connections move."""

    growth: str = "random"
    """none, random, or gradient (RigL at the granularity of the pattern)"""
    scope: str = "global"
    """the weakest are pruned over the whole layer, or in each `group`"""
    fraction: float = 0.2
    """share of slots pruned and regrown each time"""
    interval: int = 100
    """steps between rewirings"""
    until: float = 0.66
    """share of the training steps after which the pattern stays"""
    reset_momentum: bool = True
    """momentum of a regrown connection starts at 0; false as in the released code"""

    def __post_init__(self) -> None:
        _choice("rewire.growth", self.growth, ("none", "random", "gradient"))
        _choice("rewire.scope", self.scope, ("global", "group"))
        _between("rewire.fraction", self.fraction, 0.0, 0.9)
        _between("rewire.interval", self.interval, 1, 10**9)
        _between("rewire.until", self.until, 0.0, 1.0)


@dataclass(frozen=True)
class AuxiliaryConfig:
    """Spartex's auxiliary loss on label clusters."""

    scale: float = 0.0
    """weight at the start, cosine-decayed; 0 for none"""
    cutoff: float = 0.3
    """share of the training steps after which it is off"""
    cluster_size: int = 64
    """labels a cluster"""

    def __post_init__(self) -> None:
        _between("auxiliary.scale", self.scale, 0.0, 100.0)
        _between("auxiliary.cutoff", self.cutoff, 0.0, 1.0)
        _choice("auxiliary.cluster_size", self.cluster_size, GROUP_SIZES)


@dataclass(frozen=True)
class TrainingConfig:
    """The loop and the classifier's optimiser (SGD; the loss is summed over batch and labels)."""

    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.05
    """share of steps of linear warm-up, for encoder and classifier alike; cosine to 0 after"""
    by_length: bool = False
    """batches of documents of like length, so that little of a batch is padding"""
    label_texts: bool = False
    """label texts are training documents too, each with its own label as its positive"""
    validate_every: int = 1
    """epochs between looks at the validation split"""
    calibrate: bool = False
    """after training, one number is added to all scores of the tail, the one with which the validation
    split scores best; with layer.head_ratio above 0 alone"""
    evaluate: str = "test"
    """the split that is read at the end, `validation` or `test`: predictions and metrics are of it"""
    checkpoint_minutes: float = 5.0
    device: str = "auto"
    """auto, cpu or cuda"""
    backend: str = "auto"
    """kernels of the output layer: auto (triton on a GPU where there is one), torch or triton"""
    graphs: bool = True
    """on a GPU, steps of a transformer are replayed as CUDA graphs, for which lengths are rounded up; off,
    the host launches each kernel. Not with recompute, fused_optimizer or the torch backend"""
    deterministic: bool = False
    """repeat runs on a GPU are bit-equal, at some cost; on a CPU they always are"""
    threads: int = 1
    """of one run on a CPU"""

    def __post_init__(self) -> None:
        _between("training.epochs", self.epochs, 1, 100_000)
        _between("training.batch_size", self.batch_size, 1, 1_000_000)
        _between("training.learning_rate", self.learning_rate, 0.0, 100.0)
        _between("training.momentum", self.momentum, 0.0, 0.9999)
        _between("training.weight_decay", self.weight_decay, 0.0, 1.0)
        _between("training.warmup", self.warmup, 0.0, 1.0)
        _between("training.validate_every", self.validate_every, 1, 10**9)
        _between("training.threads", self.threads, 1, 4096)
        _choice("training.evaluate", self.evaluate, ("validation", "test"))
        _choice("training.device", self.device, ("auto", "cpu", "cuda"))
        _choice("training.backend", self.backend, ("auto", "torch", "triton"))


SECTIONS = {
    "encoder": EncoderConfig,
    "layer": LayerConfig,
    "rewire": RewireConfig,
    "auxiliary": AuxiliaryConfig,
    "training": TrainingConfig,
}


@dataclass(frozen=True)
class InputsConfig:
    """Where a run finds what it reads."""

    corpus: str
    tokens: str
    model: str
    order: str | None = None
    """None: labels in their own order"""
    clusters: str | None = None
    """label clusters of the auxiliary loss, in the same format as `order`"""

    def __post_init__(self) -> None:
        expand_home("inputs.", self, *(f.name for f in dataclasses.fields(self)))


@dataclass(frozen=True)
class RunConfig:
    """All that one run depends on."""

    dataset: str
    method: str
    variant: str
    seed: int
    inputs: InputsConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    layer: LayerConfig = field(default_factory=LayerConfig)
    rewire: RewireConfig = field(default_factory=RewireConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.training.calibrate and self.layer.head_ratio == 0:
            raise ConfigError(
                f"training.calibrate: {self.method} {self.variant} has no head to shift its tail against; "
                "set layer.head_ratio above 0, or leave it out."
            )

    def is_of(self, written: Any) -> bool:
        """Whether a parsed config.yaml says the same; keys that it is too old to have are at their
        defaults, which stand for what there was before them."""
        try:
            return RunConfig.from_dict(written) == self
        except ConfigError:
            return False

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as written to config.yaml."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RunConfig:
        """The inverse of `as_dict`; raises ConfigError on unknown or missing keys."""
        known = {f.name for f in dataclasses.fields(cls)}
        check_keys("run", value, known)
        missing = {"dataset", "method", "variant", "seed", "inputs"} - set(value)
        if missing:
            raise ConfigError(f"run: {', '.join(sorted(missing))} missing.")
        sections = {name: build_section(name, value.get(name) or {}) for name in SECTIONS}
        inputs = build_dataclass(InputsConfig, "inputs", value["inputs"])
        keys = ("dataset", "method", "variant", "seed")
        return cls(**{key: value[key] for key in keys}, inputs=inputs, **sections)


@dataclass(frozen=True, order=True)
class RunKey:
    """The name of a run within a grid."""

    dataset: str
    method: str
    variant: str
    seed: int

    @property
    def is_trial(self) -> bool:
        """Whether it is one of the trials of `tuning:`."""
        return self.variant.startswith(TRIAL_PREFIX)


@dataclass(frozen=True)
class Method:
    """A row of presets/methods.yaml."""

    name: str
    title: str
    kind: str
    """trained (an OutputLayer), linear (haste baseline ...) or published (numbers from papers only)"""
    published_as: tuple[str, str] | None
    """(paper, method) in published.csv"""
    settings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Ablation:
    """A row of presets/ablations.yaml: variants of one method, each a delta on its preset."""

    name: str
    title: str
    method: str
    default: str
    """what the preset itself is called in the ablation's table"""
    variants: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def variant_name(self, value: str) -> str:
        """The variant's name in run paths."""
        return f"{self.name}-{value}"


@dataclass(frozen=True)
class Tuning:
    """Trials that choose hyper-parameters on the validation split, as many for every trained method.

    All of `trials` are made for every method, unless `only` names those of a method: a search that looks
    at a method's trials before it makes the next ones ends in other trials for each, by one `rule`.
    A trial is resolved as the grid's sections, those of its data set, the method's preset, `base` and
    the trial's own delta. It never reads the test split, nor counts labels over it.
    """

    epochs: int
    """of a trial"""
    trials: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """name -> section -> key -> value"""
    seeds: tuple[int, ...] = (0,)
    """each trial is trained with each of them, and chosen by its mean"""
    base: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """method -> section -> key -> value: what makes a method comparable, in each of its trials"""
    scale: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """method -> section.key -> factor on that value in each of its trials"""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """method -> the names of its trials"""
    rule: str = ""
    """by which `only` came about, in a sentence that the table of trials shows"""

    def __post_init__(self) -> None:
        _between("tuning.epochs", self.epochs, 1, 100_000)
        if not self.seeds:
            raise ConfigError("tuning.seeds: is empty; name at least one seed.")
        for seed in self.seeds:
            _between("tuning.seeds", seed, 0, 2**31 - 1)
        for key in ("trials", "base", "scale", "only"):
            if not isinstance(getattr(self, key), Mapping):
                raise ConfigError(f"tuning.{key}: expected names with settings.")
        if not self.trials:
            raise ConfigError("tuning.trials: is empty; name at least one trial.")
        for name, delta in self.trials.items():
            _check_name("tuning.trials", name)
            _check_trial(f"tuning.trials.{name}", delta)
        for name, settings in self.base.items():
            _check_trained("tuning.base", name)
            _check_trial(f"tuning.base.{name}", settings)
        for name, factors in self.scale.items():
            _check_trained("tuning.scale", name)
            check_keys(f"tuning.scale.{name}", factors, _scalable())
            for key, factor in factors.items():
                _coerce(f"tuning.scale.{name}.{key}", factor, float)
                if key in _dotted(self.base.get(name, {})):
                    raise ConfigError(
                        f"tuning.scale.{name}.{key}: tuning.base sets it too; keep one of the two."
                    )
        for name, names in self.only.items():
            _check_trained("tuning.only", name)
            for trial in _several(f"tuning.only.{name}", names):
                check_keys(f"tuning.only.{name}", {trial: None}, self.trials)
        if bool(self.only) != bool(self.rule):
            raise ConfigError(
                "tuning.rule: tuning.only needs the rule by which its trials were chosen, and nothing else "
                "does; give both or neither."
            )

    def variants(self, method_name: str) -> tuple[str, ...]:
        """The names in run paths of a method's trials, in the order of `trials`."""
        names = self.only.get(method_name, self.trials)
        return tuple(f"{TRIAL_PREFIX}{name}" for name in self.trials if name in names)

    def trial(self, variant: str) -> Mapping[str, Mapping[str, Any]]:
        """The delta of a trial by its name in run paths; raises ConfigError with the nearest name."""
        name = variant.removeprefix(TRIAL_PREFIX)
        if name not in self.trials:
            raise ConfigError(
                f"tuning.trials: there is no trial {name!r}.{suggest(name, self.trials)}"
            )
        return self.trials[name]

    def layers(self, method_name: str, variant: str) -> list[Mapping[str, Mapping[str, Any]]]:
        """What a trial changes of its method's preset, later winning; `scale` comes after it."""
        own = {
            "training": {"epochs": self.epochs, "evaluate": "validation"},
            # the released code counts labels over test documents too
            "layer": {"frequencies": "train"},
        }
        return [self.base.get(method_name, {}), self.trial(variant), own]

    def scaled(self, method_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Resolved sections with the factors of the method applied."""
        found = dict(settings)
        for key, factor in self.scale.get(method_name, {}).items():
            section, _, name = key.partition(".")
            value = getattr(found[section], name) * float(factor)
            found[section] = dataclasses.replace(found[section], **{name: value})
        return found

    def changed(self, method_name: str, variant: str) -> list[tuple[str, str]]:
        """(section, key) of what a trial sets for a method: its delta, `base` and `scale`, sorted."""
        keys = {*_dotted(self.trial(variant)), *_dotted(self.base.get(method_name, {}))}
        keys |= set(self.scale.get(method_name, {}))
        return sorted(tuple(key.split(".")) for key in keys)


@dataclass(frozen=True)
class GridConfig:
    """config.yaml and its siblings: which runs there are."""

    name: str
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    ablations: tuple[str, ...] = ()
    ablation_datasets: tuple[str, ...] = ()
    """where the ablations run; all data sets unless given"""
    seeds: tuple[int, ...] = (0, 1, 2)
    ablation_seeds: tuple[int, ...] = (0,)
    data_dir: str = "data"
    """like every path of a configuration it may begin with ~, the home folder"""
    results_dir: str = "results"
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """method -> section -> key -> value"""
    per_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """data set -> section -> key -> value, and `overrides` as above"""
    dataset_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """data sets that the grid describes itself, see haste.data.registry.Dataset; `datasets:` is then a
    mapping from names to settings"""
    tuning: Tuning | None = None
    shorter: str | None = None
    """csv of the table `runs` of the same grid with fewer epochs (what else differs is said beside it): a
    claim about runs whose training loss still falls is judged only if its differences have the same signs
    there"""
    only_finished: bool = False
    """tables and figures are made of the runs that have finished, and say which have not; none is trained for
    them"""

    def __post_init__(self) -> None:
        expand_home("config: ", self, "data_dir", "results_dir", "shorter")

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> GridConfig:
        """Check a parsed config.yaml; raises ConfigError naming the key and the nearest known one."""
        fields = {f.name for f in dataclasses.fields(cls)} - {"sections", "dataset_settings"}
        check_keys("config", value, fields | set(SECTIONS))
        for key in ("name", "datasets", "methods"):
            if not value.get(key):
                raise ConfigError(f"config: '{key}' is missing or empty.")
        plain = {k: v for k, v in value.items() if k in fields}
        for key, hint in get_type_hints(cls).items():
            if key in plain and get_origin(hint) is tuple:
                plain[key] = _several(f"config: {key}", plain[key] or ())
        sections = {name: value.get(name) or {} for name in SECTIONS}
        for name, settings in sections.items():
            build_section(name, settings)
        for name in plain["methods"]:
            method(name)
        for name in plain.get("ablations", ()):
            ablation(name)
        _check_overrides("overrides", value.get("overrides"))
        per_dataset = value.get("per_dataset") or {}
        check_keys("per_dataset", per_dataset, value["datasets"])
        for name, settings in per_dataset.items():
            check_keys(f"per_dataset.{name}", settings, (*SECTIONS, "overrides"))
            _check_overrides(f"per_dataset.{name}.overrides", settings.get("overrides"))
        for name in plain.get("ablation_datasets", ()):
            if name not in value["datasets"]:
                known = suggest(str(name), value["datasets"])
                raise ConfigError(f"ablation_datasets: {name!r} is not among datasets.{known}")
        if isinstance(value["datasets"], Mapping):
            described = {name: entry for name, entry in value["datasets"].items() if entry}
            plain["dataset_settings"] = described
        plain["ablation_datasets"] = plain.get("ablation_datasets") or plain["datasets"]
        for key in ("name", "datasets"):
            for text in (plain[key],) if key == "name" else plain[key]:
                _check_name(f"config: {key}", text)
        if plain.get("tuning") is not None:
            plain["tuning"] = build_dataclass(Tuning, "tuning", plain["tuning"])
        grid = cls(**plain, sections=sections)
        if grid.tuning:
            _check_equal_budgets(grid.methods, grid.tuning)
        trials = set(grid.trial_runs())
        for key in grid.all_runs():
            if method(key.method).kind != "trained":
                continue
            run = grid.resolve(key)
            if run.training.evaluate != "test" and key not in trials:
                raise ConfigError(
                    f"training.evaluate: {run.training.evaluate!r} for {key.method}; the runs of a grid "
                    "are measured on test, and only the trials of `tuning:` on validation. Leave it out."
                )
        return grid

    @property
    def layout(self) -> Layout:
        """Where the files of the grid lie."""
        return Layout(Path(self.data_dir), Path(self.results_dir), self.name)

    def main_runs(self) -> Iterator[RunKey]:
        """Every method with its preset; linear methods have one seed, published ones no run."""
        for dataset in self.datasets:
            for name in self.methods:
                kind = method(name).kind
                if kind == "published":
                    continue
                for seed in self.seeds if kind == "trained" else self.seeds[:1]:
                    yield RunKey(dataset, name, DEFAULT_VARIANT, seed)

    def ablation_runs(self, name: str) -> Iterator[RunKey]:
        """The runs of one ablation: the preset (same seeds) and each variant."""
        chosen = ablation(name)
        for dataset in self.ablation_datasets:
            for seed in self.ablation_seeds:
                yield RunKey(dataset, chosen.method, DEFAULT_VARIANT, seed)
                for value in chosen.variants:
                    yield RunKey(dataset, chosen.method, chosen.variant_name(value), seed)

    def runs(self) -> list[RunKey]:
        """All runs of the grid that are measured on the test split, each once."""
        keys = dict.fromkeys(self.main_runs())
        for name in self.ablations:
            keys.update(dict.fromkeys(self.ablation_runs(name)))
        return list(keys)

    def trial_runs(self) -> Iterator[RunKey]:
        """The trials of `tuning:`, every one for each trained method on each data set."""
        if self.tuning is None:
            return
        for dataset in self.datasets:
            for name in self.methods:
                if method(name).kind == "trained":
                    for variant in self.tuning.variants(name):
                        for seed in self.tuning.seeds:
                            yield RunKey(dataset, name, variant, seed)

    def all_runs(self) -> list[RunKey]:
        """The trials, then the runs that are measured on the test split."""
        return [*self.trial_runs(), *self.runs()]

    def resolve(self, key: RunKey) -> RunConfig:
        """The full configuration of one trained run, or of a trial; raises ConfigError."""
        chosen = method(key.method)
        own = self.per_dataset.get(key.dataset, {})
        layers = [self.sections, own, chosen.settings]
        tuning = self._tuning_of(key)
        if tuning:
            layers += tuning.layers(key.method, key.variant)
        else:
            layers += [
                (overrides or {}).get(key.method, {})
                for overrides in (self.overrides, own.get("overrides"))
            ]
            if key.variant != DEFAULT_VARIANT:
                layers.append(_variant_delta(key))
        settings = {
            name: build_section(name, _merge(*(layer.get(name) or {} for layer in layers)))
            for name in SECTIONS
        }
        if tuning:
            settings = tuning.scaled(key.method, settings)
        return RunConfig(
            dataset=key.dataset,
            method=key.method,
            variant=key.variant,
            seed=key.seed,
            inputs=self._inputs(key, settings["encoder"], settings["layer"], settings["auxiliary"]),
            **settings,
        )

    def run_settings(self, key: RunKey) -> dict[str, Any]:
        """What the config.yaml of a run says: all of it, or for a linear row what names it."""
        if method(key.method).kind == "trained":
            return self.resolve(key).as_dict()
        corpus = str(self.layout.corpus(key.dataset).root)
        return {**dataclasses.asdict(key), "inputs": {"corpus": corpus}}

    def _tuning_of(self, key: RunKey) -> Tuning | None:
        """`tuning` where the run is a trial; ConfigError where the grid has no trials."""
        if not key.is_trial:
            return None
        if self.tuning is None:
            raise ConfigError(f"{key.variant}: a trial, but the grid has no `tuning:`.")
        return self.tuning

    def _inputs(
        self, key: RunKey, encoder: EncoderConfig, layer: LayerConfig, auxiliary: AuxiliaryConfig
    ) -> InputsConfig:
        layout = self.layout
        order = clusters = None
        if layer.grouped or layer.head_ratio > 0:
            order = str(
                layout.order(key.dataset, OrderSpec.of_layer(layer, encoder, key.seed).name)
            )
        if auxiliary.scale > 0:
            spec = OrderSpec.of_clusters(auxiliary, encoder, key.seed)
            clusters = str(layout.order(key.dataset, spec.name))
        return InputsConfig(
            corpus=str(layout.corpus(key.dataset).root),
            tokens=str(layout.tokens(key.dataset, encoder.model_name, encoder.max_len).root),
            model=str(layout.model(encoder.model_name)),
            order=order,
            clusters=clusters,
        )


@dataclass(frozen=True)
class OrderSpec:
    """What an order of labels depends on; its name is a folder below `labels/`."""

    grouping: str
    head_ratio: float
    group_size: int
    frequencies: str
    encoder: str
    seed: int

    PATTERN: ClassVar[str] = (
        r"(?P<grouping>[a-z]+)-h(?P<head_ratio>\d+(\.\d+)?(e-\d+)?)-g(?P<group_size>\d+)"
        r"-(?P<frequencies>train|train_and_test)-(?P<encoder>.+)-s(?P<seed>\d+)"
    )

    def __post_init__(self) -> None:
        _choice("order.grouping", self.grouping, GROUPINGS)
        _choice("order.group_size", self.group_size, GROUP_SIZES)
        _between("order.head_ratio", self.head_ratio, 0.0, 0.9)

    @classmethod
    def of_layer(cls, layer: LayerConfig, encoder: EncoderConfig, seed: int) -> OrderSpec:
        """The order a layer needs; ungrouped patterns only need the head."""
        grouping = layer.grouping if layer.grouped else "frequency"
        return cls(
            grouping,
            layer.head_ratio,
            layer.group_size,
            layer.frequencies,
            encoder_id(encoder),
            seed,
        )

    @classmethod
    def of_clusters(
        cls, auxiliary: AuxiliaryConfig, encoder: EncoderConfig, seed: int
    ) -> OrderSpec:
        """Clusters of the auxiliary loss: the semantic grouping with large groups and no head."""
        return cls("semantic", 0.0, auxiliary.cluster_size, "train", encoder_id(encoder), seed)

    @property
    def name(self) -> str:
        """The folder's name."""
        return (
            f"{self.grouping}-h{self.head_ratio:g}-g{self.group_size}"
            f"-{self.frequencies}-{self.encoder}-s{self.seed}"
        )

    @classmethod
    def parse(cls, name: str) -> OrderSpec:
        """The inverse of `name`; raises ConfigError."""
        match = re.fullmatch(cls.PATTERN, name)
        if not match:
            raise ConfigError(
                f"{name!r} is not the name of a label order, such as "
                "semantic-h0.1-g16-train-bag-all-MiniLM-L6-v2-32-s0."
            )
        found = match.groupdict()
        return cls(
            found["grouping"],
            float(found["head_ratio"]),
            int(found["group_size"]),
            found["frequencies"],
            found["encoder"],
            int(found["seed"]),
        )


def encoder_id(encoder: EncoderConfig) -> str:
    """The name of an untrained encoder in file names: kind, model, length, and the pooling and what it
    embeds labels by unless these are the usual ones."""
    usual = EncoderConfig()
    parts = [encoder.kind, encoder.model_name, str(encoder.max_len)]
    for field_name in ("pooling", "label_embeddings"):
        value = getattr(encoder, field_name)
        if value != getattr(usual, field_name):
            parts.append(value)
    return "-".join(parts)


def build_section(name: str, settings: Mapping[str, Any]) -> Any:
    """One section (`encoder`, `layer`, ...) from plain values, checked."""
    return build_dataclass(SECTIONS[name], name, settings)


def method(name: str) -> Method:
    """A method of the preset table; raises ConfigError with the nearest name."""
    table = methods()
    if name not in table:
        raise ConfigError(f"methods: there is no method {name!r}.{suggest(name, table)}")
    return table[name]


def ablation(name: str) -> Ablation:
    """An ablation of the preset table; raises ConfigError with the nearest name."""
    table = ablations()
    if name not in table:
        raise ConfigError(f"ablations: there is no ablation {name!r}.{suggest(name, table)}")
    return table[name]


@cache
def methods() -> Mapping[str, Method]:
    """The preset table of methods, in the order of the paper's tables."""
    table = {}
    for name, row in _preset("methods").items():
        settings = {key: row[key] for key in SECTIONS if key in row}
        published = row.get("published_as")
        table[name] = Method(
            name=name,
            title=row["title"],
            kind=row.get("kind", "trained"),
            published_as=tuple(published) if published else None,
            settings=settings,
        )
    return table


@cache
def ablations() -> Mapping[str, Ablation]:
    """The preset table of ablations."""
    return {name: Ablation(name=name, **row) for name, row in _preset("ablations").items()}


def _preset(name: str) -> dict[str, Any]:
    text = resources.files("haste.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, f"presets/{name}.yaml")


def _variant_delta(key: RunKey) -> Mapping[str, Mapping[str, Any]]:
    for chosen in ablations().values():
        for value, delta in chosen.variants.items():
            if chosen.method == key.method and chosen.variant_name(value) == key.variant:
                return delta
    known = [a.variant_name(v) for a in ablations().values() for v in a.variants]
    raise ConfigError(f"{key.method}: no variant {key.variant!r}.{suggest(key.variant, known)}")


def _check_overrides(where: str, overrides: Any) -> None:
    for name, override in (overrides or {}).items():
        method(name)
        check_keys(f"{where}.{name}", override, SECTIONS)


def _check_name(where: str, name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: {name!r} is not a plain name; letters, digits, '.', '_' and '-' make one, and the "
            "first is a letter or digit."
        )


def _check_trained(where: str, name: str) -> None:
    if method(name).kind != "trained":
        raise ConfigError(f"{where}: {name!r} is not trained here, so it has no trials.")


def _check_trial(where: str, delta: Mapping[str, Mapping[str, Any]]) -> None:
    check_keys(where, delta, SECTIONS)
    for section, settings in delta.items():
        check_keys(f"{where}.{section}", settings, get_type_hints(SECTIONS[section]))
    for key in _dotted(delta):
        if key in TRIAL_SETTINGS:
            raise ConfigError(
                f"{where}.{key}: is the same in every trial, see `tuning:`; leave it out."
            )


def _check_equal_budgets(methods: Iterable[str], tuning: Tuning) -> None:
    trained = [name for name in methods if method(name).kind == "trained"]
    numbers = {name: len(tuning.variants(name)) for name in trained}
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise ConfigError(
            f"tuning.only: every method needs as many trials as the others, but there are {said}."
        )


def _dotted(delta: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{section}.{key}" for section, settings in delta.items() for key in settings]


def _scalable() -> list[str]:
    """section.key of the settings that a factor makes sense for."""
    return [
        f"{section}.{key}"
        for section, cls in SECTIONS.items()
        for key, hint in get_type_hints(cls).items()
        if hint is float
    ]


def _merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def check_keys(where: str, value: Mapping[str, Any], known: Any) -> None:
    """Refuse (ConfigError) a `value` that is no mapping or has keys besides `known`."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected settings (key: value), got {value!r}.")
    for key in value:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}.{suggest(str(key), known)}")


def build_dataclass(cls: type, where: str, settings: Mapping[str, Any]) -> Any:
    """`cls` from plain values of a YAML file; a ConfigError says `where` and which key is wrong."""
    hints = get_type_hints(cls)
    check_keys(where, settings, hints)
    values = {k: _coerce(f"{where}.{k}", v, hints[k]) for k, v in settings.items()}
    required = (f.name for f in dataclasses.fields(cls) if _required(f))
    missing = [name for name in required if name not in values]
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} missing.")
    return cls(**values)


def _required(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _several(where: str, value: Any) -> tuple:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{where}: expected a list, got {value!r}; write [{value}].")
    return tuple(value)


def _coerce(where: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        of_each = get_args(hint)[0]
        return tuple(_coerce(where, each, of_each) for each in _several(where, value))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 (without a dot) as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint in (int, float, str, bool) and (
        not isinstance(value, hint) or (hint is int and isinstance(value, bool))
    ):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}.")
    return value
