"""The kernel benchmark on tiny layers with an injected timer; kernels run in Triton's interpreter
where there is no GPU."""

import csv
import ctypes
import datetime
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from haste.bench import cases, plain_cuda, released_cuda, timing
from haste.bench.cases import build
from haste.bench.check import LARGE_LR, TINY, judge
from haste.bench.kernels import COLUMNS, KernelRow, bench, measure_shape, plan
from haste.bench.problems import SHAPES, Problem, Shape, sweep_shapes
from haste.bench.timing import Times
from haste.errors import ConfigError, KernelError
from haste.files import read_json
from haste.report.benchmarks import Results

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPE = Shape("tiny", 3, 32, 40, 16, 16, head=56, positives=2, momentum=0.9, encoder=64)


class FakeTimer:
    """Every call takes so many milliseconds and 3 MiB."""

    device = DEVICE

    def __init__(self, milliseconds=1.0):
        self.milliseconds = milliseconds
        self.captured = []

    def times(self, _, *, captured):
        self.captured.append(captured)
        return Times(self.milliseconds, 0.5, 2.0)

    def peak_bytes(self, call):
        call()
        return 3 << 20

    def describe(self):
        return {"device": "Fake GPU 1", "commit": "abc", "copy_terabytes_per_second": 0.5}


def measure(*pairs, shape=SHAPE, timer=None):
    rows = [KernelRow(shape, *pair) for pair in pairs]
    return measure_shape(shape, rows, timer or FakeTimer(), 0.5, {})


# the plan


def test_only_takes_names_and_patterns():
    assert {row.shape.name for row in plan(only=["amazon3m"])} == {"amazon3m"}
    assert [row.name for row in plan(only=["amazon3m*/haste/step"])] == [
        "amazon3m/haste/step",
        "amazon3m-g32/haste/step",
    ]
    assert len(plan(only=["step", "step_momentum"])) == 5 * 9 + 3 * 2
    with pytest.raises(ConfigError, match=r"--only amazn: no such row.*amazon670k"):
        plan(only=["amazn"])
    with pytest.raises(ConfigError, match="--only sweep: no such row"):
        plan(only=["sweep"], sweeps=False)


@pytest.mark.parametrize("shape", [*SHAPES, *sweep_shapes()], ids=lambda shape: shape.name)
def test_what_is_judged_differs_from_what_is_timed_in_labels_alone(shape):
    small = shape.small()
    assert replace(small, labels=shape.labels, head=shape.head) == shape
    assert small.total < 5000
    for name in ("labels", "head", "total"):
        assert getattr(small, name) % 16 == getattr(shape, name) % 16
    groups, few = (-(-each.labels // each.group_size) for each in (shape, small))
    assert (groups % 16 == 0) == (few % 16 == 0)


# problems


def test_positives_are_sorted_and_each_once():
    shape = replace(SHAPE, batch=50, positives=8, head=8)
    problem = Problem(shape, torch.device("cpu"))
    label, row = problem.positives.label_row.tolist(), problem.positives.doc.tolist()
    pairs = list(zip(label, row, strict=True))
    assert pairs == sorted(set(pairs))
    assert (min(label), max(label), max(row)) == (0, shape.total - 1, 49)
    # 48 labels, of which the first 8 are drawn (8 / 48) ** (1 / 2) of the time
    assert 0.25 < sum(each < 8 for each in label) / len(label) < 0.5
    tail = problem.positives_of(problem.part("group_fan_in"))
    assert sorted(tail.label_row.tolist()) == tail.label_row.tolist()
    assert len(tail) == sum(each >= 8 for each in label)


def test_no_index_set_names_a_feature_twice():
    problem = Problem(SHAPE, torch.device("cpu"))
    for name in ("group_fan_in", "fixed_fan_in", "block_sparse"):
        part = problem.part(name)
        index, group_size = part.feature_index()
        assert len(index) == -(-SHAPE.labels // group_size)
        assert all(len(set(row)) == SHAPE.fan_in for row in index.tolist()), name
        assert 0 <= int(index.min()) <= int(index.max()) < SHAPE.features


def test_bytes_counted_by_hand():
    problem = Problem(SHAPE, torch.device("cpu"))
    weight, index, bias = 40 * 16 * 2, 3 * 16 * 4, 40 * 2
    x, out, grad = 3 * 32 * 2, 3 * 40 * 2, 3 * 32 * 4
    bytes_of = {
        direction: build(problem, "group_fan_in", direction).bytes
        for direction in ("forward", "dx", "dw", "backward", "step")
    }
    assert bytes_of == {
        "forward": x + weight + index + out,
        "dx": out + weight + index + grad,
        "dw": out + x + index + weight,
        "backward": out + x + index + 2 * weight + grad,
        "step": 2 * (weight + bias) + index + x + grad,
    }
    momentum = build(problem, "group_fan_in", "step_momentum")
    assert momentum.bytes == 4 * (weight + bias) + index + x + grad
    assert momentum.state_bytes == 2 * (weight + bias) + index
    fp8 = build(problem, "group_fan_in_fp8", "step")
    assert fp8.state_bytes == weight // 2 + bias + index


# the gate


@pytest.mark.parametrize(
    ("layer", "direction"),
    [(row.layer, row.direction) for row in plan(sweeps=False, shapes=[SHAPE])],
)
def test_every_row_passes_its_gate(layer, direction):
    found = judge(build(Problem(SHAPE, DEVICE, lr=LARGE_LR), layer, direction))
    assert found.passed, found
    assert found.bound >= TINY


@pytest.mark.parametrize(
    ("name", "direction", "result"),
    [
        ("forward", "forward", "out"),
        ("backward_dx", "backward", "dx"),
        ("backward_dw", "backward", "dw"),
    ],
)
def test_a_wrong_kernel_loses_its_time(monkeypatch, caplog, name, direction, result):
    right = getattr(cases.grouped, name)
    monkeypatch.setattr(cases.grouped, name, lambda *a, **k: right(*a, **k) * 1.01)
    with caplog.at_level(logging.ERROR):
        wrong, dense = measure(("group_fan_in", direction), ("bottleneck", direction))
    assert wrong["milliseconds"] is None
    assert wrong["bytes"] is None
    assert 0.009 < float(wrong["error"]) < 0.012
    assert float(wrong["gate"]) < 0.005
    assert dense["milliseconds"] == 1.0
    assert f"tiny/group_fan_in/{direction}: {result} is off by 0.0" in caplog.text


@pytest.mark.parametrize(("option", "factor"), [("lr", 0.0), ("lr", 1.02), ("momentum", 0.98)])
def test_a_step_with_a_wrong_update_loses_its_time(monkeypatch, option, factor):
    def wrong(*given, **options):
        *rest, context, sgd = given
        if option == "lr":
            context = replace(context, lr=factor * context.lr)
        else:
            sgd = replace(sgd, momentum=factor * sgd.momentum)
        return right(*rest, context, sgd, **options)

    right = cases.group_fused_step
    monkeypatch.setattr(cases, "group_fused_step", wrong)
    direction = "step" if option == "lr" else "step_momentum"
    (found,) = measure(("group_fan_in", direction))
    assert found["milliseconds"] is None


def test_values_that_are_not_finite_do_not_pass(monkeypatch):
    right = cases.grouped.forward
    monkeypatch.setattr(cases.grouped, "forward", lambda *a, **k: right(*a, **k) * float("nan"))
    (row,) = measure(("group_fan_in", "forward"))
    assert row["milliseconds"] is None


def test_a_row_that_cannot_run_has_no_time_and_the_others_have(monkeypatch, caplog):
    def refuse():
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 30 GiB")

    monkeypatch.setattr(cases, "_naive_dense", lambda *_: refuse)
    with caplog.at_level(logging.ERROR):
        naive, bottleneck = measure(("naive_dense", "step"), ("bottleneck", "step"))
    assert naive["milliseconds"] is None
    assert bottleneck["milliseconds"] == 1.0
    assert "tiny/naive_dense/step: does not run: CUDA out of memory." in caplog.text
    assert "30 GiB" not in caplog.text


def test_a_verdict_is_kept_for_rows_that_differ_in_labels_alone():
    asked = []

    def counting(case):
        asked.append(case)
        return judge(case)

    judged = {}
    larger = replace(SHAPE, name="larger", labels=6000)
    for shape in (replace(larger, labels=6000 + 16), larger):
        rows = [KernelRow(shape, "bottleneck", "forward")]
        measure_shape(shape, rows, FakeTimer(), 0.5, judged, counting)
    assert len(asked) == 1


# results


def test_a_whole_run_and_what_it_writes(tmp_path):
    rows = plan(sweeps=False, shapes=[SHAPE], only=["forward", "haste"])
    path = bench(tmp_path, rows, FakeTimer())
    assert path == tmp_path / "fake-gpu-1/kernels.csv"
    with path.open() as stream:
        assert tuple(next(csv.reader(stream))) == COLUMNS
    found = {(row["layer"], row["direction"]): row for row in Results.load(path).rows}
    assert list(found) == [(row.layer, row.direction) for row in rows]
    assert all(row["milliseconds"] is not None for row in found.values())
    first = found["group_fan_in", "forward"]
    moved = 3 * 32 * 2 + 40 * 16 * 2 + 3 * 16 * 4 + 3 * 40 * 2
    assert (first["milliseconds"], first["low"], first["high"]) == (1.0, 0.5, 2.0)
    assert first["bytes"] == moved
    assert first["state_mib"] == pytest.approx((40 * 18 * 2 + 3 * 16 * 4) / 2**20, abs=0.01)
    assert first["peak_mib"] == 3.0
    assert (first["group_size"], first["dtype"]) == (16, "bfloat16")
    assert found["bottleneck", "forward"]["group_size"] is None
    # a bottleneck stands beside the problem whose work it does
    assert found["bottleneck", "forward"]["features"] == 32
    assert found["dense768", "forward"]["fan_in"] == 64
    assert found["haste", "step"]["labels"] == 96
    machine = read_json(path.with_name("machine.json"))
    assert machine["device"] == "Fake GPU 1"
    assert machine["commit"] == "abc"
    assert datetime.date.fromisoformat(machine["date"])
    results = Results.load(path)
    assert results.names("shape") == ["tiny"]
    assert results.milliseconds("tiny", "group_fan_in", "forward") == 1.0


def test_share_of_copy():
    (found,) = measure(("dense", "dw"), shape=replace(SHAPE, labels=1 << 16))
    rate = found["bytes"] / 1e9
    assert found["terabytes_per_second"] == pytest.approx(rate, abs=1e-4)
    assert found["share_of_copy"] == pytest.approx(rate / 0.5, abs=1e-4)


def test_no_time_where_not_all_of_the_work_was_timed(caplog):
    (found,) = measure(("dense", "dw"), timer=FakeTimer(1e-9))
    assert found["milliseconds"] is None
    assert "times the rate of a copy" in caplog.text


def test_what_was_measured_is_kept_when_a_later_row_ends_the_run(tmp_path):
    class Failing(FakeTimer):
        def times(self, call, *, captured):
            if self.captured:
                raise KeyboardInterrupt
            return super().times(call, captured=captured)

    later = replace(SHAPE, name="later")
    rows = [KernelRow(shape, "bottleneck", "forward") for shape in (SHAPE, later)]
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path, rows, Failing())
    (found,) = Results.load(tmp_path / "fake-gpu-1/kernels.csv").rows
    assert found["shape"] == "tiny"


# the released extension


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A stand-in for the released extension: its calls, answered by dense products."""
    package = tmp_path / "shared_ffi"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from haste.kernels.reference import dense_weight\n"
        "def ffi_forward(locations, features, weights, bias=None, gsize=32):\n"
        "    return features.t() @ dense_weight(weights, locations, len(features), gsize).t()\n"
        "def backward_features(features, weights, locations, grad, gsize=32):\n"
        "    return (grad @ dense_weight(weights, locations, len(features), gsize)).t().float()\n"
        "def backward_weights(features, weights, locations, grad, gsize=32):\n"
        "    rows = locations.long().repeat_interleave(gsize, 0)[: len(weights)]\n"
        "    return (grad.t() @ features.t()).gather(1, rows)\n"
    )
    (package / "ops.py").write_text(
        "from haste.kernels.reference import linear\n"
        "def group_ffi_mul(features, weights, group_locations, bias, gsize=32):\n"
        "    return linear(features, weights, group_locations, bias, gsize)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("shared_ffi", "shared_ffi.ops"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)


@pytest.mark.parametrize("direction", ["forward", "dx", "dw", "step"])
@pytest.mark.usefixtures("released")
def test_rows_of_the_released_extension(direction):
    assert released_cuda.installed()
    timer = FakeTimer()
    (found,) = measure(("released_cuda", direction), timer=timer)
    assert found["milliseconds"] == 1.0
    # a graph would lack its kernels
    assert timer.captured == [False]
    assert found["labels"] == (96 if direction == "step" else 40)


# the plain CUDA fixed fan-in


class PlainLibrary:
    """A stand-in for the C library: the same arguments, answered by dense products in numpy."""

    def _arrays(self, sizes, transposed, x, index, w):
        batch, width, labels, fan_in = sizes
        shape = (width, batch) if transposed else (batch, width)
        features = array(x, shape).T if transposed else array(x, shape)
        index = array(index, (labels, fan_in), ctypes.c_int)
        dense = np.zeros((labels, width), np.float32)
        np.add.at(dense, (np.arange(labels)[:, None], index), array(w, (labels, fan_in)))
        return features, index, dense

    def fixed_forward(self, x, index, w, out, *rest):
        *sizes, transposed, _ = rest
        features, _, dense = self._arrays(sizes, transposed, x, index, w)
        array(out, (sizes[0], sizes[2]))[:] = features @ dense.T

    def fixed_dx(self, x, index, w, dz, dx, _, *rest):
        *sizes, _, transposed = rest
        _, _, dense = self._arrays(sizes, transposed, x, index, w)
        answer = array(dz, (sizes[0], sizes[2])) @ dense
        answer = answer.T if transposed else answer
        array(dx, answer.shape)[:] = answer

    def fixed_dw(self, x, index, w, dz, _, dw, *rest):
        *sizes, _, transposed = rest
        features, index, _ = self._arrays(sizes, transposed, x, index, w)
        answer = array(dz, (sizes[0], sizes[2])).T @ features
        array(dw, index.shape)[:] = np.take_along_axis(answer, index, 1)


def array(pointer, shape, kind=ctypes.c_float):
    memory = (kind * int(np.prod(shape))).from_address(pointer.value)
    return np.frombuffer(memory, kind).reshape(shape)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the stand-in reads the host's memory")
@pytest.mark.parametrize("layer", cases.PLAIN_CUDA)
@pytest.mark.parametrize("direction", ["forward", "dx", "dw", "backward"])
def test_rows_of_the_plain_cuda_fixed_fan_in(layer, direction, monkeypatch):
    monkeypatch.setattr(plain_cuda, "_library", PlainLibrary)
    monkeypatch.setattr(plain_cuda, "_stream", lambda _: None)
    (found,) = measure((layer, direction))
    assert found["milliseconds"] == 1.0
    assert KernelRow(SHAPE, layer, direction) in plan(sweeps=False, plain=True, shapes=[SHAPE])
    assert found["dtype"] == "float32"
    x, weight, index, out = 3 * 32 * 4, 40 * 16 * 4, 40 * 16 * 4, 3 * 40 * 4
    assert (
        found["bytes"]
        == {
            "forward": x + weight + index + out,
            "dx": out + weight + index + x,
            "dw": out + x + index + weight,
            "backward": out + x + index + 2 * weight + x,
        }[direction]
    )


def test_a_clone_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(plain_cuda.CLONE, str(tmp_path / "clone"))
    assert plain_cuda.installed()
    with pytest.raises(KernelError, match=plain_cuda.CLONE):
        plain_cuda._library.__wrapped__()


# the command


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_written(tmp_path):
    from typer.testing import CliRunner

    from haste.cli import app

    with pytest.raises(KernelError, match=r"needs a CUDA GPU.*results are left as they are"):
        timing.Gpu()
    done = CliRunner().invoke(app, ["bench", "kernels", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, KernelError)
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_times_on_a_gpu_grow_with_the_work_and_the_peak_is_exact():
    timer = timing.Gpu(rep=5.0)
    small, large = (torch.empty(n << 20, dtype=torch.uint8, device=DEVICE) for n in (64, 1024))
    first, second = timer.times(small.clone), timer.times(large.clone)
    assert 8 < second.median / first.median < 24
    assert first.low <= first.median <= first.high
    assert timer.peak_bytes(small.clone) == 64 << 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_what_a_graph_would_lack_is_timed_as_it_is():
    timer, large = timing.Gpu(rep=5.0), torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(large)

    def elsewhere():
        with torch.cuda.stream(torch.cuda.default_stream()):
            torch.add(large, 1, out=target)

    # a kernel, not a copy: on an H200 one inside a graph took 0.78 ms, one outside 0.51
    want = timer.times(lambda: torch.add(large, 1, out=target)).median
    assert timer.times(elsewhere, captured=False).median == pytest.approx(want, rel=0.3)
