"""Settings for data that nobody has tuned: trials on the validation split, each a step from the best so far."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from haste.config import SECTIONS, RunConfig
from haste.encoders.registry import feature_size
from haste.errors import TrainingError
from haste.files import read_json, read_yaml
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey, laid_over
from haste.inputs import RunInputs
from haste.metrics.names import VALIDATED
from haste.paths import RunDir
from haste.prepare import prepare
from haste.runs import differences, is_done, read_resources, run_dir
from haste.training.adapt import adapted
from haste.training.run import train_and_evaluate
from haste.tuning import TRIAL_PREFIX, TRIAL_SETTINGS, Delta

log = logging.getLogger(__name__)

STEPS = "training.min_steps"
FACTORS = {
    STEPS: (0.5, 1, 2, 4),
    "training.learning_rate": (0.25, 0.5, 1, 2, 4),
    "encoder.learning_rate": (0.25, 0.5, 1, 2, 4),
}
"""what is searched: factors on what the settings come to on the data"""
LADDERS = {
    "layer.dropout": (0.0, 0.2, 0.4, 0.6),
    "encoder.token_dropout": (0.0, 0.15, 0.3, 0.5),
    "layer.fan_in": (32, 64, 128),
    "layer.head_ratio": (0.05, 0.1, 0.2, 0.4),
}
"""what is searched: values, beside the one that the settings have"""
SECOND_STEP = 0.5
"""probability that a trial differs from the best in two settings and not in one"""
MOST_TRIALS = 100
"""of a search whose end is its minutes"""
DRAWS = 200
"""after so many draws of what was tried already the search ends"""

Place = Mapping[str, int]
"""section.key -> which value of its ladder; the keys of all ladders"""


@dataclass(frozen=True)
class Trial:
    """A trial that has ended."""

    name: str
    place: Place
    changed: Mapping[str, Any]
    """section.key -> value, other than the first trial's"""
    metrics: Mapping[str, float]
    """percent on the validation split; empty where the loss was no longer finite"""
    steps: int
    seconds: float
    """of training"""

    @property
    def score(self) -> float:
        """Mean of P@1, P@5 and PSP@5."""
        if not self.metrics:
            return float("-inf")
        return statistics.fmean(self.metrics[name] for name in VALIDATED)


class Search:
    """Trials of one method on one data set, which are runs of a grid.

    The first trial has the settings as they are. Each later one goes a step up or down the ladders of one or two
    settings from the best so far, drawn by the seed and its number: with time enough a search repeats. What the
    settings say themselves is not searched. Trials that have finished are read, not trained again.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings`: a grid's (see `GridConfig.from_dict`) of one data set, method and seed, whose corpus and
        model are there. Raises ConfigError or DataError."""
        self.settings = settings
        grid = GridConfig.from_dict(settings)
        (self._dataset,), (self._method,), (self._seed,) = grid.datasets, grid.methods, grid.seeds
        config = grid.resolve(RunKey(self._dataset, self._method, DEFAULT_VARIANT, self._seed))
        prepare(config)
        inputs = RunInputs.load(config)
        documents = inputs.corpus.info.documents["train"]
        config = adapted(config, inputs)
        steps = config.training.epochs * -(-documents // config.training.batch_size)
        self._overrides = settings.get("overrides", {}).get(self._method, {})
        stated = {*_dotted(settings), *_dotted(self._overrides)}
        fixed = "training.epochs" in stated or STEPS in stated
        self._epochs = config.training.epochs if fixed else -(-config.training.epochs // 2)
        self._steps = {} if fixed else {STEPS: steps}
        if fixed:
            stated.add(STEPS)
        size = feature_size(config.encoder, config.inputs.model, inputs.tokens)
        self._ladders = dict(_ladders(config, steps, stated, size))
        self._first = {key: ladder.index(now) for key, (ladder, now) in self._ladders.items()}
        self.trials: list[Trial] = []

    @property
    def best(self) -> Trial:
        """The trial with the best score; of equal ones the first."""
        return max(self.trials, key=lambda trial: trial.score)

    def run(
        self, minutes: float, trials: int, done: Callable[[Trial], None] | None = None
    ) -> Trial:
        """Train until there are so many `trials`; after the first none begins that would not end within `minutes`.

        `done` is called with each trial as it ends. Returns the best. Raises what training raises, but where a
        loss is no longer finite, which is one trial's end.
        """
        begin = time.perf_counter()
        while len(self.trials) < trials and (place := self._next()):
            run, config = self._run(place)
            if self.trials and not is_done(run, config):
                left, expected = minutes * 60 - (time.perf_counter() - begin), self._seconds(place)
                if expected > left:
                    log.info("%.0f s are left; the next trial takes about %.0f", left, expected)
                    break
            self.trials.append(self._train(place, run, config))
            if done:
                done(self.trials[-1])
        return self.best

    @property
    def best_delta(self) -> Delta:
        """section -> key -> value of the best trial, on the settings and the method's preset."""
        delta = self._delta(self.best.place)
        return laid_over(delta, {"training": {"epochs": self._epochs}})

    def chosen(self) -> dict[str, Any]:
        """The grid's settings with those of the best trial as `overrides:`, and all trials as its `tuning:`."""
        override = laid_over(self._overrides, self.best_delta)
        tuning = self._tuning({trial.name: trial.place for trial in self.trials})
        return {**self.settings, "overrides": {self._method: override}, "tuning": tuning}

    def _next(self) -> Place | None:
        """Where the next trial is; None where all that can be drawn were tried."""
        if not self.trials:
            return self._first
        tried = [trial.place for trial in self.trials]
        random = np.random.default_rng([self._seed, len(self.trials)])
        for _ in range(DRAWS):
            place = dict(self.best.place)
            keys = random.permutation(list(place))[: 1 + (random.random() < SECOND_STEP)]
            for key in keys.tolist():
                last = len(self._ladders[key][0]) - 1
                place[key] = min(max(place[key] + random.choice((-1, 1)).item(), 0), last)
            if place not in tried:
                return place
        log.info("every step from the best trial was tried")
        return None

    def _run(self, place: Place) -> tuple[RunDir, RunConfig]:
        """The next trial's folder and configuration."""
        name = self._name(len(self.trials))
        grid = GridConfig.from_dict({**self.settings, "tuning": self._tuning({name: place})})
        key = RunKey(self._dataset, self._method, f"{TRIAL_PREFIX}{name}", self._seed)
        return run_dir(grid, key), grid.resolve(key)

    def _train(self, place: Place, run: RunDir, config: RunConfig) -> Trial:
        changed = self._changed(place)
        name = self._name(len(self.trials))
        log.info("trial %s: %s", name, changed or "the settings as they are")
        prepare(config)
        # what another search left there
        other = run.config.is_file() and bool(differences(config, read_yaml(run.config)))
        try:
            train_and_evaluate(config, run, force=other)
        except TrainingError as error:
            log.warning("trial %s: %s", name, error)
            return Trial(name, place, changed, {}, 0, 0.0)
        # nothing reads them, and they are large
        for path in (run.model, run.predictions):
            path.unlink(missing_ok=True)
        resources, metrics = read_resources(run), read_json(run.metrics)["metrics"]
        seconds = resources["seconds"]["train"]
        return Trial(name, place, changed, metrics, resources["steps"], seconds)

    def _seconds(self, place: Place) -> float:
        """How long a trial probably takes, by the slowest step so far."""
        pace = max((trial.seconds / trial.steps for trial in self.trials if trial.steps), default=0)
        steps = self._value(STEPS, place) if STEPS in place else self.trials[0].steps
        return pace * steps

    @staticmethod
    def _name(number: int) -> str:
        return f"{number:03d}"

    def _value(self, key: str, place: Place) -> Any:
        return self._ladders[key][0][place[key]]

    def _changed(self, place: Place) -> dict[str, Any]:
        return {key: self._value(key, place) for key in place if place[key] != self._first[key]}

    def _delta(self, place: Place) -> Delta:
        """Of a trial, on the settings and the method's preset."""
        delta: dict[str, dict[str, Any]] = {}
        for key, value in {**self._steps, **self._changed(place)}.items():
            section, _, name = key.partition(".")
            delta.setdefault(section, {})[name] = value
        return delta

    def _tuning(self, places: Mapping[str, Place]) -> dict[str, Any]:
        """The section `tuning:` of a grid with these trials."""
        base = {
            section: {k: v for k, v in part.items() if f"{section}.{k}" not in TRIAL_SETTINGS}
            for section, part in self._overrides.items()
        }
        return {
            "epochs": self._epochs,
            "seeds": [self._seed],
            "trials": {name: self._delta(place) for name, place in places.items()},
            "base": {self._method: base},
        }


def _ladders(
    config: RunConfig, steps: int, stated: Iterable[str], n_features: int
) -> Iterator[tuple[str, tuple[list[float], float]]]:
    """Of each setting that is searched: its values in order, and the one that `config` has.

    `n_features`: H of the encoder, of which a label cannot read more than there are.
    """
    layer, encoder = config.layer, config.encoder
    now: dict[str, float] = {
        STEPS: steps,
        "training.learning_rate": config.training.learning_rate,
        "encoder.learning_rate": encoder.learning_rate,
        "layer.dropout": layer.dropout,
        "encoder.token_dropout": encoder.token_dropout,
        "layer.fan_in": layer.fan_in,
        "layer.head_ratio": layer.head_ratio,
    }
    without = set(stated)
    if encoder.kind == "none":
        without.add("encoder.learning_rate")
    if encoder.kind != "bag":
        without.add("encoder.token_dropout")
    if not layer.sparse:
        without.add("layer.fan_in")
    if not layer.head_ratio:
        without.add("layer.head_ratio")
    for key, value in now.items():
        if key in without:
            continue
        values = sorted({*LADDERS.get(key, ()), value})
        if key == "layer.fan_in":
            width = n_features // 2 if layer.features == "private" else n_features
            values = [fan_in for fan_in in values if fan_in <= width]
        if key in FACTORS:
            # powers of two, so that a factor of 1 leaves the value as it is
            values = [factor * value for factor in FACTORS[key]]
        if key == STEPS:
            values = [round(number) for number in values]
        yield key, (values, value)


def _dotted(settings: Mapping[str, Any]) -> set[str]:
    """section.key of what the sections among the settings say."""
    return {f"{section}.{key}" for section in SECTIONS for key in settings.get(section) or {}}
