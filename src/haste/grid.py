"""The configuration of a grid of runs, and how the settings of each run are resolved.

A run is resolved in this order, later winning: the defaults of haste.config, the grid's own sections
(`encoder:`, `layer:`, ...), those that `per_dataset:` has for the run's data set, the preset of the
method (`presets/methods.yaml`), the grid's `overrides:` for that method, those of the data set, and
the delta of the ablation's variant (`presets/ablations.yaml`). A trial of `tuning:` leaves `overrides`
out, which hold what trials have chosen, see `Tuning`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import AfterValidator

from haste.config import (
    SECTIONS,
    AuxiliaryConfig,
    EncoderConfig,
    InputsConfig,
    LayerConfig,
    RunConfig,
    build_section,
)
from haste.errors import ConfigError, suggest
from haste.former_names import renamed_grid
from haste.labels.spec import OrderSpec
from haste.paths import GridLayout
from haste.presets import ablation, ablations, method
from haste.settings import (
    FILLED,
    UNIQUE,
    Bool,
    Name,
    PathText,
    Seed,
    naming,
    parse,
    read_settings,
    settings,
)
from haste.tuning import (
    TRIAL_PREFIX,
    AuxiliaryDelta,
    Delta,
    EncoderDelta,
    LayerDelta,
    RewireDelta,
    TrainingDelta,
    Tuning,
)

DEFAULT_VARIANT = "default"
UNTUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("training", "epochs"): {"min_steps": 1000},
    ("training", "learning_rate"): {"stable_step": True},
    ("layer", "dropout"): {"dropout": 0.4},
}
"""section and key that a grid does not set -> what suits most data in its section"""


@dataclass(frozen=True, order=True)
class RunKey:
    """The name of a run within a grid."""

    dataset: str
    method: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """The name in logs and for --only: dataset/method/variant/seedK."""
        return f"{self.dataset}/{self.method}/{self.variant}/seed{self.seed}"

    @property
    def is_trial(self) -> bool:
        """Whether it is one of the trials of `tuning:`."""
        return self.variant.startswith(TRIAL_PREFIX)


MethodName = Annotated[str, AfterValidator(lambda name: method(name).name)]
AblationName = Annotated[str, AfterValidator(lambda name: ablation(name).name)]
Overrides = Mapping[MethodName, Delta]
"""method -> section -> key -> value"""


if TYPE_CHECKING:
    PerDataset: TypeAlias = Mapping[str, Mapping[str, Any]]
else:

    class PerDataset(Delta, total=False):
        """What differs on one data set: sections, and `overrides` of methods."""

        overrides: Overrides


@settings("config")
class GridConfig:
    """config.yaml and its siblings: which runs there are."""

    name: Name
    """results go to `results/NAME/`; if not given, the name of the file without its suffix, of several files
    that of the first"""
    datasets: Annotated[tuple[Name, ...], *FILLED]
    """names of the registry; or a mapping, name -> settings, for data sets of one's own"""
    methods: Annotated[tuple[MethodName, ...], *FILLED]
    """rows of the main table"""
    ablations: Annotated[tuple[AblationName, ...], *UNIQUE] = ()
    """one table each"""
    ablation_datasets: Annotated[tuple[Name, ...], *UNIQUE] = ()
    """where the ablations run; all data sets unless given"""
    seeds: Annotated[tuple[Seed, ...], *FILLED] = (0, 1, 2)
    ablation_seeds: Annotated[tuple[Seed, ...], *FILLED] = (0,)
    data_dir: PathText = "data"
    """like every path of a configuration it may begin with ~, the home folder"""
    results_dir: PathText = "results"
    encoder: EncoderDelta = field(default_factory=dict)
    layer: LayerDelta = field(default_factory=dict)
    rewire: RewireDelta = field(default_factory=dict)
    auxiliary: AuxiliaryDelta = field(default_factory=dict)
    training: TrainingDelta = field(default_factory=dict)
    overrides: Overrides = field(default_factory=dict)
    """method -> section -> key -> value"""
    per_dataset: Mapping[Name, PerDataset] = field(default_factory=dict)
    """data set -> section -> key -> value, and `overrides` as above"""
    dataset_settings: Mapping[Name, Mapping[str, Any]] = field(default_factory=dict)
    """what `datasets:` says of each, see haste.data.registry.Dataset"""
    tuning: Tuning | None = None
    """trials on the validation split, each for every trained method"""
    allow_partial: Bool = False
    """tables and figures are made of the runs that have finished, and say which have not; none is trained for
    them"""

    def __post_init__(self) -> None:
        for setting in ("ablation_datasets", "per_dataset"):
            for name in getattr(self, setting):
                if name not in self.datasets:
                    raise ConfigError(
                        f"{setting}: {name!r} is not among datasets.{suggest(name, self.datasets)}"
                    )
        if not self.ablation_datasets:
            object.__setattr__(self, "ablation_datasets", self.datasets)
        if self.tuning:
            self.tuning.check_equal_budgets(self.methods)
        trials = set(self.trial_runs())
        for key in self.all_runs():
            if method(key.method).kind != "trained":
                continue
            run = self.resolve(key)
            if run.training.evaluate != "test" and key not in trials:
                raise ConfigError(
                    f"training.evaluate: {run.training.evaluate!r} for {key.method}; the runs of a grid "
                    "are measured on test, and only the trials of `tuning:` on validation. Leave it out."
                )

    @classmethod
    def from_dict(cls, value: Any) -> GridConfig:
        """Check a parsed config.yaml; raises ConfigError naming the key and the nearest known one."""
        value = renamed_grid(value)
        if isinstance(value, Mapping):
            if "dataset_settings" in value:
                raise ConfigError(
                    "config: unknown key 'dataset_settings'. Did you mean 'datasets'?"
                )
            # an empty section is written `layer:`
            value = {key: part for key, part in value.items() if part is not None}
            if isinstance(value.get("datasets"), Mapping):
                described = {name: part for name, part in value["datasets"].items() if part}
                for name, part in described.items():
                    if not isinstance(part, Mapping):
                        raise ConfigError(
                            f"datasets.{name}: expected settings (key: value), got {part!r}."
                        )
                value |= {"datasets": tuple(value["datasets"]), "dataset_settings": described}
        return parse(cls, value, "config")

    @property
    def sections(self) -> dict[str, Mapping[str, Any]]:
        """Its own sections, by name."""
        return {name: getattr(self, name) for name in SECTIONS}

    @property
    def layout(self) -> GridLayout:
        """Where the files of the grid lie."""
        return GridLayout(Path(self.data_dir), Path(self.results_dir), self.name)

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
        of_dataset = self.per_dataset.get(key.dataset, {})
        layers: list[Delta] = [self.sections, of_dataset, chosen.settings]
        tuning = self.tuning if key.is_trial else None
        if tuning:
            layers += tuning.layers(key.method, key.variant)
        elif key.is_trial:
            raise ConfigError(f"{key.variant}: a trial, but the grid has no `tuning:`.")
        else:
            layers += [
                overrides.get(key.method, {})
                for overrides in (self.overrides, of_dataset.get("overrides", {}))
            ]
            if key.variant != DEFAULT_VARIANT:
                layers.append(_variant_delta(key))
        changes = {
            name: {key: value for layer in layers for key, value in (layer.get(name) or {}).items()}
            for name in SECTIONS
        }
        for (section, unset), untuned in UNTUNED.items():
            if unset not in changes[section]:
                changes[section] = {**untuned, **changes[section]}
        settings = {name: build_section(name, values) for name, values in changes.items()}
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
            model=str(encoder.model_folder or layout.model(encoder.model_name)),
            order=order,
            clusters=clusters,
        )


def _variant_delta(key: RunKey) -> Mapping[str, Mapping[str, Any]]:
    for chosen in ablations().values():
        for value, delta in chosen.variants.items():
            if chosen.method == key.method and chosen.variant_name(value) == key.variant:
                return delta
    known = [a.variant_name(v) for a in ablations().values() for v in a.variants]
    raise ConfigError(f"{key.method}: no variant {key.variant!r}.{suggest(key.variant, known)}")


def named_after(config: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """The configuration of a grid that was read from files, with the name that these give it where it has
    none of its own."""
    return {**config, "name": config.get("name") or Path(paths[0]).stem} if paths else dict(config)


def read_grid(paths: Sequence[Path]) -> GridConfig:
    """The grid of one file, or of several laid one over the other, as Snakemake's --configfile does it:
    mappings key by key, anything else is replaced. Where no file names it, the first one does.

    Raises DataError for a file that is missing or damaged, ConfigError for what is wrong in it; both name
    the file.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = laid_over(merged, read_settings(path))
    with naming(*paths):
        if {"dataset", "inputs"} <= merged.keys():
            raise ConfigError("the configuration of one run, not of a grid; haste train trains it.")
        return GridConfig.from_dict(named_after(merged, paths))


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `under`: mappings key by key, at any depth, anything else is replaced."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = laid_over(result[key], value) if both else value
    return result
