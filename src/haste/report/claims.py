"""What the paper claims (claims.yaml), our number beside it, and whether it holds here.

No outcome is written down anywhere: a verdict follows from the runs by the rules of this module.
A claim about accuracy holds when the paired bootstrap interval (95%, over seeds and test documents) of
each of its differences lies above 0, does not hold when one lies below 0, and is left open otherwise,
when there is only one seed, and when a side has not converged. A claim about speed or memory needs a
GPU, and holds when our ratio reaches the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING

import yaml

from haste.errors import DataError
from haste.grid import DEFAULT_VARIANT, GridConfig, RunKey
from haste.presets import ablation, method
from haste.report.benchmarks import Results, time_ratios
from haste.report.convergence import CONVERGED_NOTE, has_converged
from haste.report.published import HASTE, Published
from haste.report.registry import Inputs, benchmark_files, table, unique
from haste.report.render import MIB, Column, Table, interval
from haste.report.runs import SHARED, Run, mean_late_gain, place, run_row

if TYPE_CHECKING:
    from haste.metrics.bootstrap import Interval
    from haste.report.load import Documents, Sources

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "cannot be decided here"


@dataclass(frozen=True)
class Side:
    """One side of a difference: the runs of a method's preset, or of an ablation's variant."""

    title: str
    method: str
    variant: str
    published: str | None
    """its name in the HASTE paper's tables"""


@dataclass(frozen=True)
class Difference:
    """A difference a - b that a claim says is positive."""

    metric: str
    a: Side
    b: Side
    context: bool = False
    """whether it is only shown: no verdict depends on it"""

    @property
    def what(self) -> str:
        """What the table calls it."""
        unit = "points, for context" if self.context else "points"
        return f"{self.metric}, {self.a.title} − {self.b.title} ({unit})"

    @property
    def of_variants(self) -> bool:
        """Whether a side is a variant of an ablation."""
        return any(side.variant != DEFAULT_VARIANT for side in (self.a, self.b))


@dataclass(frozen=True)
class Claim:
    """A row of claims.yaml, where the fields are explained."""

    id: str
    text: str
    evidence: str
    ablation: str | None = None
    sides: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    """of an ablation's claim, by side: the method that is compared instead where the grid has it"""
    differences: Sequence[Mapping] = ()
    optional: bool = False
    """whether differences are left out of which the grid lacks a side"""
    layers: tuple[str, str] = ("", "")
    directions: Sequence[str] = ()
    published: tuple[str, str | Sequence[str]] = ("", "")
    """method and metric in published.csv"""
    at_most: float | None = None
    """points, or a ratio"""
    setting: str = ""
    """of a ratio: what both sides are"""
    what: str = ""
    column: str = ""
    """of `run_row`"""
    scale: tuple[str, str] = ("", "")
    """preset and column of the scale benchmark"""
    timed: bool = False
    """whether the runs must have had their GPU to themselves"""

    def side(self, name: str, grid: GridConfig) -> Side:
        """A method, or a variant of the ablation."""
        if self.ablation is None:
            row = method(name)
            published = row.published_as[1] if row.published_as else None
            return Side(row.title, name, DEFAULT_VARIANT, published)
        chosen, (value, published) = ablation(self.ablation), self.sides[name]
        instead = self.methods.get(name)
        if instead in grid.methods:
            return Side(method(instead).title, instead, DEFAULT_VARIANT, published)
        variant = DEFAULT_VARIANT if value is None else chosen.variant_name(value)
        return Side(name, chosen.method, variant, published)

    def compared(self, grid: GridConfig) -> list[Difference]:
        """Its differences in accuracy; of an optional claim those that the grid has."""
        return [
            Difference(
                metric,
                self.side(row["a"], grid),
                self.side(row["b"], grid),
                row.get("context", False),
            )
            for row in self.differences
            if not self.optional or {row["a"], row["b"]} <= set(grid.methods)
            for metric in row["metrics"]
        ]


@cache
def claims() -> tuple[Claim, ...]:
    """All of them, in the order of the table."""
    rows = yaml.safe_load(resources.files(__package__).joinpath("claims.yaml").read_text())
    return tuple(Claim(id=name, **row) for name, row in rows.items())


def claimed_runs(grid: GridConfig, name: str) -> list[RunKey]:
    """The runs of ablation `name` that a claim is about; none where it is not in the grid, or where methods
    are compared instead."""
    if name not in grid.ablations:
        return []
    rows = [row for claim in claims() if claim.ablation == name for row in claim.compared(grid)]
    wanted = {side.variant for row in rows if row.of_variants for side in (row.a, row.b)}
    return [key for key in grid.ablation_runs(name) if key.variant in wanted]


@dataclass(frozen=True)
class Comparison:
    """One number of a claim."""

    what: str
    ours: Interval | float | None = None
    paper: str | None = None
    setting: str | None = None
    """preset, head and size of the output layer of both sides"""


@dataclass(frozen=True)
class Finding:
    """One claim on one data set or device."""

    claim: Claim
    place: str
    comparisons: tuple[Comparison, ...]
    verdict: str
    reason: str


def _inputs(grid: GridConfig) -> Inputs:
    names = dict.fromkeys(claim.ablation for claim in claims() if claim.ablation)
    return Inputs(
        runs=unique([*grid.main_runs(), *(k for name in names for k in claimed_runs(grid, name))]),
        corpora=grid.datasets,
        benchmarks=benchmark_files(grid, "kernels"),
        companions=benchmark_files(grid, "scale"),
    )


@table("claims", "What the paper claims", inputs=_inputs, long=True, all_methods=True)
def claims_table(sources: Sources) -> Table:
    """Each claim of the paper beside what was measured.

    A verdict is about the data and the training length of this grid, not about the paper's data sets. It stays
    open when an interval contains 0, when a side has not converged, or when there is one seed; claims about
    speed and memory stay open without a GPU.
    """
    columns = (
        Column("claim", "Claim", once=True),
        Column("place", "On", once=True),
        Column("text", "What the paper says", once=True, width=4),
        Column("comparison", "Compared", width=4.5),
        Column("setting", "Presets, heads, output layers", width=4.5),
        Column("ours", "Ours [95%]", digits=2),
        Column("paper", "The paper's", width=4.5),
        Column("verdict", "Verdict", once=True),
        Column("reason", "Why", once=True, width=4),
    )
    rows = []
    for finding in findings(sources):
        for comparison in finding.comparisons:
            ours = comparison.ours
            rows.append(
                {
                    "claim": finding.claim.id,
                    "place": finding.place,
                    "text": finding.claim.text,
                    "comparison": comparison.what,
                    "setting": comparison.setting,
                    **(interval("ours", *ours) if isinstance(ours, tuple) else {"ours": ours}),
                    "paper": comparison.paper,
                    "verdict": finding.verdict,
                    "reason": finding.reason,
                }
            )
    bound = next(c.at_most for c in claims() if c.id == "C3" and c.at_most is not None)
    notes = (
        "Accuracy: difference in points, mean over seeds, with the paired bootstrap interval (95%) over "
        "seeds and test documents (documents alone where there is one seed). A claim holds when the interval "
        "of each tested difference lies above 0, and "
        "does not when one lies below 0; C5's are of the gap itself, and have to lie below its bound.",
        "No verdict where there is one seed only, or where a compared side has not converged.",
        f"Speed and memory: ratios on a GPU; a claim holds when ours reaches the paper's. C3's few per "
        f"cent are read as at most {bound - 1:.0%}.",
        CONVERGED_NOTE,
    )
    return Table.of(columns, rows, notes)


def findings(sources: Sources) -> list[Finding]:
    """All claims on all data sets of the grid and devices of the benchmarks."""
    evaluators = {"accuracy": _accuracy, "kernels": _kernels, "resources": _resources}
    return [
        finding
        for claim in claims()
        if claim.evidence != "accuracy" or claim.compared(sources.grid)
        for finding in evaluators[claim.evidence](claim, sources)
    ]


def judge(
    intervals: Mapping[str, Interval],
    runs: Mapping[str, Sequence[Run]],
    at_most: float | None = None,
) -> tuple[str, str]:
    """(verdict, reason) of a claim that every difference is positive, or at most so many points.

    Args:
        intervals: the tested differences, by what they are.
        runs: the runs of every side, by its title.
        at_most: the points; the differences are positive where it is None.
    """
    gains = {title: mean_late_gain(side) for title, side in runs.items()}
    not_converged = ", ".join(
        f"{title} (late gain {'unknown' if isnan(gain) else f'{gain:+.2f} points'})"
        for title, gain in gains.items()
        if gain is not None and not has_converged(gain)
    )
    undecided = [f"not converged: {not_converged}"] if not_converged else []
    if min(map(len, runs.values())) < 2:
        undecided.append("one seed only")
    if undecided:
        return UNDECIDED, "; ".join(undecided)
    bound = at_most or 0
    above = [what for what, (_, low, _) in intervals.items() if low > bound]
    below = [what for what, (_, _, high) in intervals.items() if high < bound]
    sides = (("above", above), ("below", below))
    (right, within), (wrong, outside) = sides if at_most is None else reversed(sides)
    if outside:
        return FAILS, f"the interval lies {wrong} {bound:g}: {'; '.join(outside)}"
    if unclear := [what for what in intervals if what not in within]:
        return UNDECIDED, f"the interval contains {bound:g}: {'; '.join(unclear)}"
    which = "every interval lies" if len(intervals) > 1 else "the interval lies"
    return HOLDS, f"{which} {right} {bound:g}"


def judge_ratio(ratio: float, target: float, at_most: bool = False) -> tuple[str, str]:
    """(verdict, reason) of a claim about a ratio: it reaches the target, or stays within it."""
    holds = ratio <= target if at_most else ratio >= target
    bound = "at most" if at_most else "at least"
    return (HOLDS if holds else FAILS), f"{ratio:.2f}×; the claim needs {bound} {target:.2f}×"


def _accuracy(claim: Claim, sources: Sources) -> Iterator[Finding]:
    """Differences between methods, or between variants of an ablation, on each data set."""
    grid, differences = sources.grid, claim.compared(sources.grid)
    sides = {side.title: side for row in differences for side in (row.a, row.b)}
    tested = [row for row in differences if not row.context]
    # what is there for context decides nothing, nor does it where it is missing
    needed = {side.title: side for row in tested for side in (row.a, row.b)}
    of_variants = any(row.of_variants for row in differences)
    missing = ""
    if of_variants and claim.ablation not in grid.ablations:
        missing = f"ablation {claim.ablation} is not in the grid"
    elif absent := [side.method for side in needed.values() if side.method not in grid.methods]:
        missing = f"not in the grid: {', '.join(absent)}"
    for dataset in grid.datasets:
        runs = {
            title: [
                run
                for run in sources.of(dataset, side.method, side.variant)
                # the preset may have more seeds than its variants
                if not of_variants or run.key.seed in grid.ablation_seeds
            ]
            for title, side in sides.items()
        }
        ours = {
            row.what: sources.documents[dataset].difference(
                runs[row.a.title], runs[row.b.title], row.metric
            )
            for row in differences
            if runs[row.a.title] and runs[row.b.title]
        }
        without = [title for title in needed if not runs[title]]
        verdict, reason = UNDECIDED, missing or f"no runs of {', '.join(without)}"
        if not missing and not without:
            judged = {title: runs[title] for title in needed}
            verdict, reason = judge({r.what: ours[r.what] for r in tested}, judged, claim.at_most)
        comparisons = tuple(
            Comparison(
                row.what + _of_seeds(sources.documents[dataset], row, runs),
                ours.get(row.what),
                _paper_difference(sources.published, row),
                "; ".join(_setting(side, runs[side.title]) for side in (row.a, row.b)),
            )
            for row in differences
        )
        every = [run for side in runs.values() for run in side]
        yield Finding(claim, place(dataset, every), comparisons, verdict, reason)


def _of_seeds(documents: Documents, row: Difference, runs: Mapping[str, list[Run]]) -> str:
    compared = [*runs[row.a.title], *runs[row.b.title]]
    return "" if documents.by_document(compared, row.metric) else ", interval over seeds alone"


def _setting(side: Side, runs: Sequence[Run]) -> str:
    """Preset, head and weight budget of a side."""
    name = side.method if side.variant == DEFAULT_VARIANT else f"{side.method}/{side.variant}"
    if not runs:
        return f"{name}: no runs"
    words, size = [], runs[0].resources.get("layer_bytes")
    if runs[0].head_ratio is not None:
        words.append(f"head {runs[0].head_ratio:g}" if runs[0].head_ratio else "no head")
    if size is not None:
        words.append(f"{size / MIB:.1f} MiB")
    return f"{name}: {', '.join(words)}"


def _paper_difference(published: Published, row: Difference) -> str | None:
    """The same difference in the paper, on each data set where it can be formed."""
    shown = []
    for dataset in published.datasets():
        a, b = (
            published.find(HASTE, dataset, side.published or "", row.metric)
            for side in (row.a, row.b)
        )
        if a and b and a.value is not None and b.value is not None:
            number = f"{a.value - b.value:.1f}".replace("-", "−")
            shown.append(f"{number} ({dataset})")
    return ", ".join(shown) or None


LAYERS = {
    "fixed_fan_in": "our fixed fan-in",
    "plain_cuda": "plain CUDA fixed fan-in",
    "plain_cuda_transposed": "plain CUDA fixed fan-in",
    "group_fan_in": "group fan-in",
    "bottleneck": "bottleneck",
}


def kernel_target(published: Published, claim: Claim) -> tuple[str, float]:
    """(the paper's number as printed, the ratio that has to be reached or kept to)."""
    number = published.find(HASTE, "kernel", *claim.published)
    if number is not None and claim.at_most is not None:
        return number.text, claim.at_most
    if number is None or number.value is None:
        raise DataError(
            f"published numbers: no number of {HASTE}, kernel, {', '.join(map(str, claim.published))}, which "
            f"{claim.id} is held to. Add it, or leave --published out."
        )
    return f"{number.text}×", number.value


def _kernels(claim: Claim, sources: Sources) -> Iterator[Finding]:
    """The largest ratio of times, for each device whose kernel benchmark is committed."""
    paper, target = kernel_target(sources.published, claim)
    what = "time of {} / {}, largest ratio".format(*(LAYERS[layer] for layer in claim.layers))

    def finding(device: str, ratio: float | None, verdict: str, reason: str) -> Finding:
        return Finding(
            claim, device, (Comparison(what, ratio, paper, claim.setting),), verdict, reason
        )

    if not sources.benchmarks:
        reason = "needs CUDA: no kernel benchmark is committed (haste bench kernels)"
        yield finding("kernels", None, UNDECIDED, reason)
    for path, results in zip(sources.inputs.benchmarks, sources.benchmarks, strict=True):
        ratios = [
            ratio
            for direction in claim.directions
            for ratio in time_ratios(results.rows, *claim.layers, direction)
        ]
        if not ratios:
            reason = f"{path} has no problem that both were timed on"
            yield finding(results.device, None, UNDECIDED, reason)
            continue
        verdict, reason = judge_ratio(max(ratios), target, claim.at_most is not None)
        if len(ratios) > 1:
            reason += f"; from {min(ratios):.2f}× on, over {len(ratios)} pairs of times"
        yield finding(results.device, max(ratios), verdict, reason)


def _resources(claim: Claim, sources: Sources) -> Iterator[Finding]:
    """Spartex's memory or time over HASTE's: by each scale benchmark on the paper's data sets, then in
    whole runs on a GPU on the grid's."""
    rival, metric = claim.published
    published: dict[str, float] = {}
    for dataset in sources.published.datasets():
        theirs = sources.published.find(HASTE, dataset, rival, metric)
        ours = sources.published.find(HASTE, dataset, "HASTE", metric)
        if theirs and ours and theirs.value is not None and ours.value is not None:
            published[dataset] = theirs.value / ours.value
    paper = ", ".join(f"{ratio:.2f}× ({name})" for name, ratio in published.items())
    targets = {name.casefold(): ratio for name, ratio in published.items()}

    def finding(place: str, ratio: float | None, verdict: str, reason: str) -> Finding:
        comparison = Comparison(f"{claim.what}, Spartex / HASTE", ratio, paper, claim.setting)
        return Finding(claim, place, (comparison,), verdict, reason)

    preset, column = claim.scale
    for path in sources.inputs.companions:
        results = Results.load(path)
        for dataset in results.names("dataset"):
            spartex, haste = (
                results.find(dataset=dataset, method=name, preset=preset).get(column)
                for name in ("spartex", "haste")
            )
            if dataset.casefold() in targets and spartex is not None and haste is not None:
                verdict, reason = judge_ratio(spartex / haste, targets[dataset.casefold()])
                reason += f"; scale benchmark, preset {preset}"
                yield finding(f"{dataset}, {results.device}", spartex / haste, verdict, reason)
    for dataset in sources.grid.datasets:
        sides = {name: sources.of(dataset, name) for name in ("spartex", "haste")}
        absent = [name for name, runs in sides.items() if not runs]
        runs = [run for side in sides.values() for run in side]
        if absent:
            yield finding(dataset, None, UNDECIDED, f"no runs of {', '.join(absent)}")
        elif not all(run.on_gpu for run in runs):
            yield finding(dataset, None, UNDECIDED, "needs CUDA: these runs were made on a CPU")
        elif claim.timed and not all(run.timed for run in runs):
            yield finding(dataset, None, UNDECIDED, SHARED)
        elif claim.timed and len(devices := {str(run.resources["device"]) for run in runs}) > 1:
            reason = f"times of several devices do not compare: {', '.join(sorted(devices))}"
            yield finding(dataset, None, UNDECIDED, reason)
        else:
            spartex, haste = (
                fmean(run_row(r)[claim.column] for r in side) for side in sides.values()
            )
            target = targets.get(dataset.casefold(), min(targets.values()))
            yield finding(dataset, spartex / haste, *judge_ratio(spartex / haste, target))
