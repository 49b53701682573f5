"""The tables of the kernel benchmark: what was aimed at and reached, and the times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from haste.reporting.benchmarks import KernelTimes
from haste.reporting.table import Cell, Column, Table

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
PRODUCTS = {
    "forward": "forward",
    "grad_features": "features' gradient",
    "grad_weight": "weights' gradient",
}
OF_BOTTLENECK = {64: 1.1, 32: 1.5}
"""by group size: times the products of a dense bottleneck that ours may take"""
OVER_RELEASED = 3.0
"""at least, for products of groups of 16, which no dense product is a measure of"""
STEP_OVER_RELEASED = 10.0
STEP_OF_PRODUCTS = {64: 1.2, 32: 1.6, 16: 1.8}
"""by group size: times the three products of a bottleneck that a whole step of the tail may take"""
OVER_DENSE = 2.0
LARGEST = "lfpaper2keywords"
PEAK_MIB, WHOLE_MIB = 64.0, 1.6 * 1024


def targets_table(devices: Sequence[KernelTimes]) -> Table:
    """One row for each target and shape: what was measured, and whether it reaches the target."""
    columns = (
        Column("device", "Device"),
        Column("what", "What", once=True, width=6),
        Column("target", "Target", once=True),
        Column("shape", "Shape"),
        Column("measured", "Measured", digits=2),
        Column("verdict", "Verdict"),
    )
    rows = [{"device": each.device, **row} for each in devices for row in _targets(each)]
    notes = [
        *(each.note() for each in devices),
        "Targets were set before the kernels were written. Ratios are of median times in one run; a "
        "dense bottleneck (one with as many features as the fan-in) is multiplied by cuBLAS in bf16.",
        "A step is loss, all gradients and the update with stochastic rounding, with the momentum that "
        "the data set is trained with.",
    ]
    return Table("Kernels: targets", columns, tuple(rows), tuple(notes), section="device")


def times_table(devices: Sequence[KernelTimes]) -> Table:
    """Median milliseconds: a row for each shape and layer, a column for each direction."""
    directions = ("forward", "grad_features", "grad_weight", "backward", "step", "step_momentum")
    columns = (
        Column("device", "Device"),
        Column("shape", "Shape", once=True),
        Column("layer", "Layer"),
        Column("batch", "Batch", digits=0),
        Column("features", "Features", digits=0),
        Column("fan_in", "Fan-in", digits=0),
        Column("group_size", "Group", digits=0),
        *(Column(name, f"{name.replace('_', ' ')} (ms)", digits=3) for name in directions),
        Column("peak_mib", "Peak of a step (MiB)"),
    )
    rows = []
    for each in devices:
        for shape in each.shapes():
            own = [row for row in each.rows if row.get("shape") == shape]
            for layer in dict.fromkeys(str(row["layer"]) for row in own):
                found = {name: each.find(shape, layer, name) for name in directions}
                first = next(row for row in own if row["layer"] == layer)
                rows.append(
                    {
                        "device": each.device,
                        "shape": shape,
                        "layer": layer.replace("_", " "),
                        **{key: first.get(key) for key in ("batch", "features", "fan_in")},
                        "group_size": first.get("group_size"),
                        **{name: row.get("milliseconds") for name, row in found.items()},
                        "peak_mib": found["step"].get("peak_mib"),
                    }
                )
    notes = [
        *(each.note() for each in devices),
        "Medians on the device, the cache emptied before each call; quartiles, bytes and errors are in "
        "kernels.csv. A time was taken only after the result had been compared with fp64.",
        "Products are those of the tail. Steps of haste, dense768 and the released extension (authors) "
        "have the head's labels too. Peak: memory beyond what the layer and its inputs hold.",
        *(words for each in devices if (words := _without_time(each))),
    ]
    return Table("Kernel times", columns, tuple(rows), tuple(notes), section="device")


def _targets(times: KernelTimes) -> Iterator[dict[str, Cell]]:
    for direction, title in PRODUCTS.items():
        yield from _products(times, direction, title)
    yield from _steps(times)
    yield from _against_fixed(times)
    yield from _memory(times)


def _products(times: KernelTimes, direction: str, title: str) -> Iterator[dict[str, Cell]]:
    for shape, size in _group_sizes(times).items():
        ours = times.milliseconds(shape, "group_fan_in", direction)
        if size in OF_BOTTLENECK:
            dense = times.milliseconds(shape, "bottleneck", direction)
            what = f"{title}, time over that of a dense bottleneck, G={size}"
            yield _at_most(what, shape, _ratio(ours, dense), OF_BOTTLENECK[size], "×")
        else:
            released = times.milliseconds(shape, "authors", direction)
            what = f"{title}, released extension's time over ours, G={size}"
            yield _at_least(what, shape, _ratio(released, ours), OVER_RELEASED)


def _steps(times: KernelTimes) -> Iterator[dict[str, Cell]]:
    sizes = _group_sizes(times)
    for shape in sizes:
        released = times.milliseconds(shape, "authors", "step")
        if released is not None:
            ratio = _ratio(released, _step(times, shape, "haste"))
            what = "step of head and tail, released code's time over ours"
            yield _at_least(what, shape, ratio, STEP_OVER_RELEASED)
    for shape, size in sizes.items():
        parts = [times.milliseconds(shape, "bottleneck", name) for name in PRODUCTS]
        products = None if None in parts else sum(part for part in parts if part)
        ratio = _ratio(times.milliseconds(shape, "group_fan_in", "step"), products)
        what = f"step of the tail, time over the three products of a dense bottleneck, G={size}"
        if size in STEP_OF_PRODUCTS:
            yield _at_most(what, shape, ratio, STEP_OF_PRODUCTS[size], "×")
    for shape in sizes:
        dense = times.milliseconds(shape, "dense768", "step")
        ratio = _ratio(dense, times.milliseconds(shape, "haste", "step"))
        what = "step of head and tail, our own dense step's time over it (768 features, bf16)"
        yield _at_least(what, shape, ratio, OVER_DENSE)


def _against_fixed(times: KernelTimes) -> Iterator[dict[str, Cell]]:
    for direction, published in (("forward", "4.4×"), ("backward", "25×")):
        for shape in times.shapes():
            fixed, ours = (
                times.milliseconds(shape, layer, direction)
                for layer in ("fixed_fan_in", "group_fan_in")
            )
            yield {
                "what": f"{direction}, time of our fixed fan-in over that of groups",
                "target": f"none; published: up to {published}",
                "shape": shape,
                "measured": _ratio(fixed, ours),
                "verdict": "reported" if fixed and ours else NOT_MEASURED,
            }


def _memory(times: KernelTimes) -> Iterator[dict[str, Cell]]:
    found = times.find(LARGEST, "haste", "step")
    peak, state = found.get("peak_mib"), found.get("state_mib")
    what = "memory of a step beyond layer and inputs, 8.6 million labels (MiB)"
    yield _at_most(what, LARGEST, peak, PEAK_MIB, " MiB")
    whole = None if peak is None or state is None else float(peak) + float(state)
    yield _at_most("memory of layer and step together (MiB)", LARGEST, whole, WHOLE_MIB, " MiB")


def _step(times: KernelTimes, shape: str, layer: str) -> float | None:
    """With momentum where the data set is trained with it."""
    found = times.milliseconds(shape, layer, "step_momentum")
    return times.milliseconds(shape, layer, "step") if found is None else found


def _group_sizes(times: KernelTimes) -> dict[str, int]:
    """Of each data set's shape."""
    return {
        str(row["shape"]): int(row["group_size"])
        for name in times.shapes()
        for row in times.rows
        if row.get("shape") == name and row["layer"] == "group_fan_in" and row.get("group_size")
    }


def _ratio(numerator: Cell, denominator: Cell) -> float | None:
    if numerator is None or denominator is None:
        return None
    return float(numerator) / float(denominator)


def _at_most(what: str, shape: str, value: Cell, bound: float, unit: str) -> dict[str, Cell]:
    fine = value is not None and float(value) <= bound
    return _row(what, f"at most {bound:,g}{unit}", shape, value, fine)


def _at_least(what: str, shape: str, value: Cell, bound: float) -> dict[str, Cell]:
    fine = value is not None and float(value) >= bound
    return _row(what, f"at least {bound:g}×", shape, value, fine)


def _row(what: str, target: str, shape: str, value: Cell, fine: bool) -> dict[str, Cell]:
    verdict = NOT_MEASURED if value is None else MET if fine else MISSED
    return {"what": what, "target": target, "shape": shape, "measured": value, "verdict": verdict}


def _without_time(times: KernelTimes) -> str | None:
    """Which rows have no time, in a sentence."""
    names = [
        f"{row.get('shape')}/{row['layer']}/{row['direction']}"
        for row in times.rows
        if row["milliseconds"] is None
    ]
    if not names:
        return None
    return f"{times.device}: no time, as wrong or not able to run: {', '.join(names)}."
