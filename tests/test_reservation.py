"""What jobs ask for."""

import dataclasses

import pytest

from haste.config import build_section
from haste.data.registry import load_registry
from haste.estimates import (
    BASE_MEMORY,
    MIB,
    PREDICTIONS,
    RATE,
    Benchmark,
    Size,
    expected_size,
    known_size,
    model_bytes,
    model_of_run,
)
from haste.grid import GridConfig, RunKey
from haste.paths import REGISTRY
from haste.reservation import (
    CUDA_HOST_MEMORY,
    GROUP_SECONDS,
    HEADROOM,
    LARGE_THREADS,
    LINEAR_LABEL_BYTES,
    MEASURED_ROOM,
    MODEL_ROOM,
    START_MINUTES,
    UNKNOWN_MINUTES,
    Limits,
    Request,
    corpus_request,
    embedding_request,
    grouping_request,
    linear_request,
    result_request,
    tokens_request,
    training_request,
)

DAY = 24 * 60
GIB = 1024
LARGE = Size(1_500_000, 700_000, 8_600_000, 80_000)
SMALL = Size(445, 116, 453, 14)


@pytest.fixture(scope="module")
def registry(request):
    return load_registry(request.config.rootpath / REGISTRY)


def resolved(dataset, method="haste", **training):
    settings = {"name": "grid", "datasets": [dataset], "methods": [method], "training": training}
    return GridConfig.from_dict(settings).resolve(RunKey(dataset, method, "default", 0))


@pytest.mark.parametrize(
    ("request_of", "memory"),
    [
        (corpus_request, 8 * GIB),
        (tokens_request, 2 * GIB),
        (lambda size: grouping_request(size, 768), 33 * GIB),
        (lambda size: embedding_request(size, build_section("encoder", {}), 768, 1), 33 * GIB),
        (lambda size: result_request(size.test), 4 * GIB),
    ],
)
def test_a_job_asks_by_its_data_set(request_of, memory):
    small, large = request_of(SMALL), request_of(LARGE)
    assert small.memory < 3.1 * GIB
    assert small.minutes <= 30
    assert large.memory > memory
    assert large.minutes > small.minutes


def test_a_transformer_embeds_many_documents_on_many_threads():
    encoder = build_section("encoder", {"kind": "transformer", "model": "bert-base-uncased"})
    small, large = (embedding_request(size, encoder, 768, 110_000_000) for size in (SMALL, LARGE))
    assert small.threads < large.threads == LARGE_THREADS
    # a third of a step for each document, and to group the labels; half as much again
    forward = 2 * 110_000_000 * encoder.max_len * LARGE.train / RATE["cpu"] / LARGE_THREADS
    seconds = 1.5 * (GROUP_SECONDS * LARGE.labels + forward)
    assert large.minutes == START_MINUTES + round(seconds / 60)


def test_wide_features_take_longer_to_group():
    narrow, wide = (grouping_request(LARGE, hidden).minutes for hidden in (384, 768))
    assert wide - START_MINUTES == pytest.approx(2 * (narrow - START_MINUTES), abs=1)


def test_a_linear_baseline_asks_by_its_labels():
    labels = 100_000
    asked = linear_request(dataclasses.replace(SMALL, labels=labels))
    assert asked.memory == (2 * BASE_MEMORY + LINEAR_LABEL_BYTES * labels) // MIB
    assert asked.minutes > linear_request(SMALL).minutes


def test_a_small_run_asks_for_little(registry):
    size = expected_size(registry, "wordnet-smoke")
    asked = training_request(resolved("wordnet-smoke", epochs=2, device="cpu"), size, registry, {})
    assert asked.memory < GIB
    assert asked.minutes < 20


def test_a_run_on_a_cpu_asks_by_the_cost_model_and_its_threads(registry):
    size = expected_size(registry, "Eurlex-4K")
    config = resolved("Eurlex-4K", epochs=50, device="cpu", threads=3)
    # the benchmark is of a GPU
    benchmarks = {"Eurlex-4K": {"haste": Benchmark("gpu", 9.0, 1)}}
    asked = training_request(config, size, registry, benchmarks)
    seconds, memory = model_of_run(config, size, registry)
    assert asked.minutes == START_MINUTES + round(MODEL_ROOM * seconds / 60)
    assert (asked.memory, asked.threads) == (round(HEADROOM * memory / MIB), 3)
    others = {"Eurlex-4K": {"dense": Benchmark("gpu", 9.0, 1)}}
    assert training_request(config, size, registry, others) == asked


def test_a_gpu_run_asks_by_the_benchmark_times_its_epochs(registry):
    dataset = "Amazon-3M"
    size = expected_size(registry, dataset)
    benchmarks = {
        dataset: {"haste": Benchmark("gpu", 0.03, 1), "spartex": Benchmark("gpu", 0.04, 1)}
    }

    def minutes(method, epochs):
        config = resolved(dataset, method, epochs=epochs, device="cuda", batch_size=128)
        return training_request(config, size, registry, benchmarks).minutes

    once, ten = minutes("haste", 1), minutes("haste", 10)
    # twice the measured time, and a quarter of an hour
    step = 0.03 / 60 * size.train / 128
    assert ten - once == pytest.approx(2 * 9 * step, rel=0.2)
    # of another method: the slowest that was measured
    assert minutes("fixed-fan-in", 10) > 1.2 * ten


def test_a_gpu_run_asks_by_the_cost_model_where_that_is_above_what_others_took(registry):
    size = expected_size(registry, "Amazon-3M")
    config = resolved("Amazon-3M", "dense", device="cuda")
    benchmarks = {"Amazon-3M": {"haste": Benchmark("gpu", 1e-9, 1)}}
    seconds, _ = model_of_run(config, size, registry)
    asked = training_request(config, size, registry, benchmarks)
    assert asked.minutes == START_MINUTES + round(MEASURED_ROOM * seconds / 60)


def test_a_gpu_run_asks_for_the_memory_of_its_state(registry):
    config = resolved("LF-Paper2Keywords-8.6M", "dense", device="cuda")
    asked = training_request(config, LARGE, registry, {})
    checkpoint = model_bytes(config, LARGE, registry, momenta=True)
    assert checkpoint > 2 * 4 * LARGE.labels * 384
    expected = HEADROOM * (CUDA_HOST_MEMORY + checkpoint + 8 * PREDICTIONS * LARGE.test) / MIB
    assert expected <= asked.memory < expected + GIB
    assert asked.memory % GIB == 0


def test_documents_that_only_the_benchmark_knows(registry):
    size = Size(0, 0, 9)
    assert known_size(size, "d", {}) == size
    benchmarks = {
        "d": {"haste": Benchmark("gpu", 1.0, 77)},
        "e": {"haste": Benchmark("gpu", 1, 99)},
    }
    assert known_size(size, "d", benchmarks).train == 77
    assert known_size(SMALL, "d", benchmarks) == SMALL
    config = dataclasses.replace(resolved("wordnet-smoke", device="cpu"), dataset="d")
    assert training_request(config, size, registry, {}).minutes == UNKNOWN_MINUTES


def test_attempts_ask_for_more_up_to_the_limits():
    request, none, some = Request(1000, 3 * DAY), Limits(), Limits(1800, DAY)
    assert [none.memory_of(request, attempt) for attempt in (1, 2, 3, 4)] == [
        1000,
        1500,
        2000,
        2000,
    ]
    assert [some.memory_of(request, attempt) for attempt in (1, 2, 3)] == [1000, 1500, 1800]
    assert none.minutes_of(request, 2) == 6 * DAY
    assert some.minutes_of(request, 2) == DAY
    assert none.attempts(request) == 1
    assert some.attempts(request) == 3
    assert some.attempts(Request(1000, 3 * DAY + 1)) == 4
