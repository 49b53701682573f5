"""The trials of a grid: which hyper-parameters are tried for each method, and what a trial is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from haste.config import (
    SECTIONS,
    AuxiliaryConfig,
    EncoderConfig,
    LayerConfig,
    RewireConfig,
    TrainingConfig,
)
from haste.errors import ConfigError, suggest
from haste.presets import method
from haste.settings import FILLED, Float, Int, Name, Seed, SettingError, partial_settings, settings

TRIAL_PREFIX = "trial-"
"""of the variants that are trials"""
TRIAL_SETTINGS = ("training.epochs", "training.evaluate", "layer.frequencies")
"""what `tuning:` itself sets, the same for every trial"""

if TYPE_CHECKING:
    # pydantic has a class of any of a section's settings, made when run; the type checker sees mappings
    EncoderDelta: TypeAlias = Mapping[str, Any]
    LayerDelta: TypeAlias = Mapping[str, Any]
    RewireDelta: TypeAlias = Mapping[str, Any]
    AuxiliaryDelta: TypeAlias = Mapping[str, Any]
    TrainingDelta: TypeAlias = Mapping[str, Any]
    Delta: TypeAlias = Mapping[str, Mapping[str, Any]]
else:
    EncoderDelta = partial_settings(EncoderConfig)
    LayerDelta = partial_settings(LayerConfig)
    RewireDelta = partial_settings(RewireConfig)
    AuxiliaryDelta = partial_settings(AuxiliaryConfig)
    TrainingDelta = partial_settings(TrainingConfig)

    class Delta(TypedDict, total=False):
        """section -> key -> value, of any sections and keys."""

        __pydantic_config__ = ConfigDict(extra="forbid")
        encoder: EncoderDelta
        layer: LayerDelta
        rewire: RewireDelta
        auxiliary: AuxiliaryDelta
        training: TrainingDelta


def _trained_method(name: str) -> str:
    if method(name).kind != "trained":
        raise ValueError(f"{name!r} is not trained here, so it has no trials")
    return name


def _scaled_key(key: str) -> str:
    known = [
        f"{section}.{name}"
        for section, cls in SECTIONS.items()
        for name, hint in get_type_hints(cls).items()
        if hint is float
    ]
    if key not in known:
        raise ValueError(f"unknown key {key!r}.{suggest(key, known).rstrip('.')}")
    return key


TrainedName = Annotated[str, AfterValidator(_trained_method)]


@settings("tuning")
class Tuning:
    """Trials that choose hyper-parameters on the validation split, as many for every trained method.

    Every method but those `untuned` has all of `trials`, unless `only` names those of a method: a search that
    reads the results of trials before it chooses the next ones ends in different trials per method, by one
    `rule`.
    A trial is resolved as the grid's sections, those of its data set, the method's preset, `base` and
    the trial's own delta. It never reads the test split, nor counts labels over it.
    """

    epochs: Annotated[Int, Field(ge=1, le=100_000)]
    """of a trial"""
    trials: Annotated[Mapping[Name, Delta], Field(min_length=1)]
    """name -> section -> key -> value"""
    seeds: Annotated[tuple[Seed, ...], *FILLED] = (0,)
    """each trial is trained with each of them, and chosen by its mean"""
    base: Mapping[TrainedName, Delta] = field(default_factory=dict)
    """method -> section -> key -> value: what makes a method comparable, in each of its trials"""
    scale: Mapping[TrainedName, Mapping[Annotated[str, AfterValidator(_scaled_key)], Float]] = (
        field(default_factory=dict)
    )
    """method -> section.key -> factor on that value in each of its trials"""
    only: Mapping[TrainedName, Annotated[tuple[str, ...], *FILLED]] = field(default_factory=dict)
    """method -> the names of its trials"""
    rule: str = ""
    """by which `only` came about, in a sentence that the table of trials shows"""
    untuned: tuple[TrainedName, ...] = ()
    """methods without trials, at settings that another method's trials chose; tables say which these are"""

    def __post_init__(self) -> None:
        for name, deltas in (("trials", self.trials), ("base", self.base)):
            for row, delta in deltas.items():
                for key in _dotted(delta):
                    if key in TRIAL_SETTINGS:
                        raise SettingError(
                            f"{name}.{row}.{key}",
                            "is the same in every trial, see `tuning:`; leave it out",
                        )
        for name, factors in self.scale.items():
            for key in factors:
                if key in _dotted(self.base.get(name, {})):
                    raise SettingError(
                        f"scale.{name}.{key}", "tuning.base sets it too; keep one of the two"
                    )

        if both := [name for name in self.untuned if name in self.only]:
            raise SettingError(
                "untuned", f"tuning.only has trials of {both[0]}; keep one of the two"
            )
        for name, names in self.only.items():
            for trial in names:
                if trial not in self.trials:
                    raise SettingError(
                        f"only.{name}",
                        f"there is no trial {trial!r}.{suggest(trial, self.trials)}",
                    )
        if bool(self.only) != bool(self.rule):
            raise SettingError(
                "rule",
                "tuning.only needs the rule by which its trials were chosen, and nothing else does; give "
                "both or neither",
            )

    def variants(self, method_name: str) -> tuple[str, ...]:
        """The names in run paths of a method's trials, in the order of `trials`."""
        names = () if method_name in self.untuned else self.only.get(method_name, self.trials)
        return tuple(f"{TRIAL_PREFIX}{name}" for name in self.trials if name in names)

    def trial(self, variant: str) -> Delta:
        """The delta of a trial by its name in run paths; raises ConfigError with the nearest name."""
        name = variant.removeprefix(TRIAL_PREFIX)
        if name not in self.trials:
            raise ConfigError(
                f"tuning.trials: there is no trial {name!r}.{suggest(name, self.trials)}"
            )
        return self.trials[name]

    def layers(self, method_name: str, variant: str) -> list[Delta]:
        """What a trial changes of its method's preset, later winning; `scale` comes after it."""
        of_every_trial: Delta = {
            "training": {"epochs": self.epochs, "evaluate": "validation"},
            # the released code counts labels over test documents too
            "layer": {"frequencies": "train"},
        }
        return [self.base.get(method_name, {}), self.trial(variant), of_every_trial]

    def scaled(self, method_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Resolved sections with the factors of the method applied."""
        scaled = dict(settings)
        for key, factor in self.scale.get(method_name, {}).items():
            section, _, name = key.partition(".")
            value = getattr(scaled[section], name) * float(factor)
            scaled[section] = dataclasses.replace(scaled[section], **{name: value})
        return scaled

    def check_equal_budgets(self, methods: Iterable[str]) -> None:
        """Raise SettingError unless the trained ones of `methods`, but those untuned, have as many trials each."""
        tuned = [
            name for name in methods if method(name).kind == "trained" and name not in self.untuned
        ]
        counts = {name: len(self.variants(name)) for name in tuned}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise SettingError(
                "tuning.only",
                f"every method needs as many trials as the others, but there are {listed}",
            )

    def changed(self, method_name: str, variant: str) -> list[tuple[str, str]]:
        """(section, key) of what a trial sets for a method: its delta, `base` and `scale`, sorted."""
        keys = {*_dotted(self.trial(variant)), *_dotted(self.base.get(method_name, {}))}
        keys |= set(self.scale.get(method_name, {}))
        pairs = (key.split(".") for key in keys)
        return sorted((section, name) for section, name in pairs)


def _dotted(delta: Delta) -> list[str]:
    return [f"{section}.{key}" for section, settings in delta.items() for key in settings]
