"""What each job of a grid asks a machine or a cluster for: main memory and time.

Known before anything is made: from the counts that the registry or a corpus gives, the scale benchmark
(results/benchmarks/<device>/scale.csv) and the cost model of `haste.estimates`, each with room for its
error. A site's limits cap both; what asks for more time than a job may have resumes in its next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from haste.config import EncoderConfig, RunConfig
from haste.data.registry import Registry
from haste.estimates import (
    BASE_MEMORY,
    MIB,
    PREDICTIONS,
    RATE,
    Benchmarks,
    Size,
    linear_seconds,
    model_bytes,
    model_of_run,
)

HEADROOM = 1.3
"""memory asked for to memory expected"""
MODEL_ROOM = 3
"""time asked for to time of the cost model"""
MEASURED_ROOM = 2
"""time asked for to time measured, there on another GPU"""
START_MINUTES = 15
"""asked for besides: to start, and a slow file system"""
UNKNOWN_MINUTES = 7 * 24 * 60
"""for a run on a data set whose number of documents is not known"""
CUDA_HOST_MEMORY = 6 * 1024 * MIB
"""main memory of a process that trains on a GPU, besides the state it writes to a checkpoint"""
CORPUS_DOCUMENT_BYTES = 2048
"""of main memory while a corpus is made, most of it labels: room for 40 of a document"""
CORPUS_LABEL_BYTES = 512
"""of main memory a label with its text takes while a corpus is made"""
TOKEN_DOCUMENT_BYTES = 256
PREPARE_SECONDS = 0.002
"""to make corpus or tokens, a document; measured 0.1 ms on titles"""
GROUP_SECONDS = 0.0003
"""to group a label with H = 384: 8.6 million labels took 2,369 s on one AMD EPYC"""
GROUP_HIDDEN = 384
LINEAR_LABEL_BYTES = 16 * 1024
"""of omikuji's model and its training, a label; the model of 101,489 labels takes 7.6 KiB each"""
RESULT_RUNS = 4
"""whose predictions a table holds at once"""
TABLE_SECONDS = 0.002
"""a test document, bootstrap included"""
LARGE_THREADS = 16
"""for embedding by a transformer on a CPU, where two would take hours"""
LARGE_MINUTES = 120


@dataclass(frozen=True)
class Request:
    """Of one job, were there no limits."""

    memory: int
    """MiB"""
    minutes: int
    threads: int = 1


@dataclass(frozen=True)
class Limits:
    """Of one job at a site; None where there is none."""

    memory: int | None = None
    """MiB"""
    minutes: int | None = None

    def memory_of(self, request: Request, attempt: int) -> int:
        """MiB to ask for: half more after each failure, at most twice as much."""
        return _capped(round(request.memory * min(2.0, 0.5 + attempt / 2)), self.memory)

    def minutes_of(self, request: Request, attempt: int) -> int:
        """Minutes to ask for: as much again after each failure."""
        return _capped(request.minutes * attempt, self.minutes)

    def attempts(self, request: Request) -> int:
        """Attempts that a run needs that resumes from its checkpoint in the next."""
        return -(-request.minutes // self.minutes) if self.minutes else 1


def corpus_request(size: Size) -> Request:
    """To make a corpus."""
    used = CORPUS_DOCUMENT_BYTES * size.documents + CORPUS_LABEL_BYTES * size.labels
    return Request(3000 + used // MIB, _minutes(PREPARE_SECONDS * size.documents))


def tokens_request(size: Size) -> Request:
    """To make the tokens of a corpus."""
    used = TOKEN_DOCUMENT_BYTES * size.documents
    return Request(2000 + used // MIB, _minutes(PREPARE_SECONDS * size.documents))


def embedding_request(size: Size, encoder: EncoderConfig, hidden: int, parameters: int) -> Request:
    """To embed all labels, float32 [L, H], by the features of the training documents."""
    seconds = GROUP_SECONDS * size.labels
    threads = 2
    if encoder.kind == "transformer":
        # a forward pass is a third of a step
        work = 2 * parameters * encoder.max_len * size.train / RATE["cpu"]
        if work / threads > 60 * LARGE_MINUTES:
            threads = LARGE_THREADS
        seconds += work / threads
    return Request(_embedding_memory(size, hidden), _minutes(1.5 * seconds), threads)


def grouping_request(size: Size, hidden: int) -> Request:
    """To order all labels by their embeddings."""
    seconds = MODEL_ROOM * GROUP_SECONDS * size.labels * hidden / GROUP_HIDDEN
    return Request(_embedding_memory(size, hidden), _minutes(seconds))


def training_request(
    config: RunConfig, size: Size, registry: Registry, benchmarks: Benchmarks
) -> Request:
    """For a run that is trained and evaluated."""
    known = benchmarks.get(config.dataset, {})
    seconds, memory = model_of_run(config, size, registry)
    if config.training.device == "cuda":
        state = model_bytes(config, size, registry, momenta=True)
        memory = CUDA_HOST_MEMORY + state + 8 * PREDICTIONS * size.test
    if config.training.device == "cuda" and config.method in known:
        minutes = _minutes(MEASURED_ROOM * known[config.method].seconds(config, size))
    elif config.training.device == "cuda" and known:
        # of another method: most of a step is the encoder
        slowest = max(step.seconds(config, size) for step in known.values())
        minutes = _minutes(MEASURED_ROOM * max(slowest, seconds))
    else:
        minutes = _minutes(MODEL_ROOM * seconds) if size.train else UNKNOWN_MINUTES
    asked = round(HEADROOM * memory / MIB)
    if config.training.device == "cuda":
        # in whole GiB, so that jobs that hardly differ ask for the same
        asked = -(-asked // 1024) * 1024
    return Request(asked, minutes, config.training.threads)


def linear_request(size: Size) -> Request:
    """For a linear baseline."""
    used = 2 * BASE_MEMORY + LINEAR_LABEL_BYTES * size.labels
    return Request(used // MIB, _minutes(MODEL_ROOM * linear_seconds(size)))


def result_request(test: int) -> Request:
    """For a table or figure of runs that have up to `test` test documents."""
    used = RESULT_RUNS * 8 * PREDICTIONS * test
    return Request(2000 + used // MIB, 15 + _minutes(TABLE_SECONDS * test))


def _embedding_memory(size: Size, hidden: int) -> int:
    return 2000 + round(HEADROOM * 4 * size.labels * hidden / MIB)


def _minutes(seconds: float) -> int:
    return START_MINUTES + round(seconds / 60)


def _capped(value: int, limit: int | None) -> int:
    return value if limit is None else min(value, limit)
