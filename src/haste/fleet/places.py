"""Where runs train: so many at once on each GPU, or on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from haste.config import RunConfig
from haste.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Place:
    """A GPU, or the CPU."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """variables that a run there gets besides the inherited ones"""

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU."""
        return VISIBLE in self.environment


def find_places(gpus: int, environment: Mapping[str, str]) -> list[Place]:
    """The CPU and `gpus` GPUs, as the variables in `environment` number them: a process that itself
    was given some of a machine's GPUs hands on these."""
    visible = environment.get(VISIBLE) or ",".join(map(str, range(gpus)))
    names = [name.strip() for name in visible.split(",")][:gpus]
    return [Place("CPU"), *(Place(f"GPU {name}", {VISIBLE: name}) for name in names)]


def fitting(config: RunConfig, places: Iterable[Place]) -> list[Place]:
    """The places where a run may train: `training.device` auto takes a GPU where there is one.

    Raises ConfigError for a run that needs a GPU where there is none.
    """
    places = list(places)
    gpus = [place for place in places if place.on_gpu]
    if config.training.device == "cuda" and not gpus:
        raise ConfigError(
            f"training.device: {config.dataset}/{config.method} is to train on cuda, but torch sees no "
            "CUDA GPU; leave it out by --only, or use auto or cpu, or run `haste doctor`."
        )
    if config.training.device == "cpu" or not gpus:
        return [place for place in places if not place.on_gpu]
    return gpus
