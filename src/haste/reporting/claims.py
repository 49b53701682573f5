"""What the paper claims, our number beside it, and whether it holds here.

No outcome is written down anywhere: a verdict follows from the runs by the rules of this module.
A claim about accuracy holds when the paired bootstrap interval (95%, over test documents) of each of
its differences lies above 0, does not hold when one lies below 0, and is left open otherwise, when
there is only one seed, and when a run has not converged, unless each difference has the same sign
with fewer epochs (the grid's `shorter:`). A claim about speed or memory needs a GPU,
and holds when our ratio reaches the paper's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from haste.grid import DEFAULT_VARIANT, RunKey
from haste.presets import ablation, method
from haste.reporting.benchmarks import read_kernels, time_ratios
from haste.reporting.published import HASTE, PEAK_MEMORY, SECONDS_AN_EPOCH, Published
from haste.reporting.runs import CONVERGED_NOTE, SHARED, Run, run_frame
from haste.reporting.scale import MEMORY, SPEED, ScaleResults
from haste.reporting.sources import Sources
from haste.reporting.table import Column, Interval, Table

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided here"
BASELINES = ("spartex", "block-sparse")
"""the prior sparse methods that C4 and C5 compare with"""
OWN = "haste-plus"
"""the project's own preset"""
FEW_PER_CENT = 1.05
"""how C3's "a few per cent" is read: at most 5% slower"""
EPOCH_RIVAL = (
    "the method it is compared with (context: Spartex; the notes say only "
    '"dropped from 86:38 to 21:39")'
)
"""who C10's 86:38 belongs to, as published.csv names it"""


@dataclass(frozen=True)
class Comparison:
    """One number of a claim."""

    what: str
    ours: Interval | float | None = None
    paper: str | None = None


@dataclass(frozen=True)
class Finding:
    """One claim on one data set or device."""

    claim: str
    """C1 .. C11, and H1, the project's own"""
    text: str
    place: str
    comparisons: tuple[Comparison, ...]
    verdict: str
    reason: str


@dataclass(frozen=True)
class Side:
    """One side of a difference: the runs of a method's preset, or of an ablation's variant."""

    title: str
    method: str
    variant: str = DEFAULT_VARIANT
    published: str | None = None
    """its name in the HASTE paper's tables"""


@dataclass(frozen=True)
class Difference:
    """A difference that a claim says is positive; `title` where it is not simply better - worse."""

    metric: str
    better: Side
    worse: Side
    title: str | None = None
    tested: bool = True
    """whether the verdict depends on it; the others are shown for context"""

    @property
    def what(self) -> str:
        """What the table calls it."""
        title = self.title or f"{self.better.title} − {self.worse.title}"
        return f"{self.metric}, {title} ({'points' if self.tested else 'points, for context'})"


def claims_table(sources: Sources) -> Table:
    """C1 to C11, then H1: one row a number; claim, verdict and reason stand at the first of each claim."""
    columns = (
        Column("claim", "Claim", once=True),
        Column("place", "On", once=True),
        Column("text", "What the paper says", once=True, width=4),
        Column("comparison", "Compared", width=4.5),
        Column("ours", "Ours [95%]", digits=2),
        Column("paper", "The paper's", width=4.5),
        Column("verdict", "Verdict", once=True),
        Column("reason", "Why", once=True, width=4),
    )
    rows = [
        {
            "claim": finding.claim,
            "place": finding.place,
            "text": finding.text,
            "comparison": comparison.what,
            "ours": comparison.ours,
            "paper": comparison.paper,
            "verdict": finding.verdict,
            "reason": finding.reason,
        }
        for finding in findings(sources)
        for comparison in finding.comparisons
    ]
    notes = (
        "Accuracy: difference in points, mean over seeds, with the paired bootstrap interval (95%) over "
        "test documents. A claim holds when the interval of each tested difference lies above 0, and "
        "does not when one lies below 0.",
        "No verdict where there is one seed only, or where a compared run has not converged and fewer "
        "epochs were not tried or give a difference another sign.",
        f"Speed and memory: ratios on a GPU; a claim holds when ours reaches the paper's. C3's few per "
        f"cent are read as at most {FEW_PER_CENT - 1:.0%}.",
        CONVERGED_NOTE,
    )
    return Table("What the paper claims", columns, tuple(rows), notes)


def findings(sources: Sources) -> list[Finding]:
    """All claims on all data sets of the grid, by number."""
    found = [*kernel_findings(sources), *scale_findings(sources)]
    for dataset in sources.grid.datasets:
        found += [
            *_accuracy(sources, dataset),
            *_grouping(sources, dataset),
            *_own(sources, dataset),
            *(_resource(sources, dataset, each) for each in RESOURCES),
        ]
    return sorted(found, key=lambda finding: (finding.claim[0], int(finding.claim[1:])))


@dataclass(frozen=True)
class Before:
    """Differences with fewer epochs."""

    epochs: str
    differences: Mapping[str, float | None]
    """by what they are; None where there are no such runs"""


def judge(
    intervals: Mapping[str, Interval],
    runs: Mapping[str, Sequence[Run]],
    before: Before | None = None,
) -> tuple[str, str]:
    """(verdict, reason) of a claim that every difference is positive.

    Args:
        intervals: the tested differences, by what they are.
        runs: the runs of every side, by its title.
        before: the same differences with fewer epochs, if there are any; asked where a run has not
            converged.
    """
    open_because, confirmed = [], ""
    unsettled = {
        title: [str(run.key.seed) for run in side if not run.converged]
        for title, side in runs.items()
    }
    if any(unsettled.values()):
        named = ", ".join(
            f"{title} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"
            for title, seeds in unsettled.items()
            if seeds
        )
        same, found = _same_before(intervals, before)
        if same:
            confirmed = f"; training losses still fall, but {found}"
        else:
            open_because.append(f"not converged: {named}{found}")
    if min(len(side) for side in runs.values()) < 2:
        open_because.append("one seed only")
    if open_because:
        return OPEN, "; ".join(open_because)
    below = [what for what, interval in intervals.items() if interval.high < 0]
    if below:
        return FAILS, f"the interval lies below 0: {'; '.join(below)}{confirmed}"
    unclear = [what for what, interval in intervals.items() if interval.low <= 0]
    if unclear:
        return OPEN, f"the interval contains 0: {'; '.join(unclear)}"
    which = "every interval lies" if len(intervals) > 1 else "the interval lies"
    return HOLDS, f"{which} above 0{confirmed}"


def _same_before(intervals: Mapping[str, Interval], before: Before | None) -> tuple[bool, str]:
    """Whether all differences have the sign they had with fewer epochs, and how to say it."""
    if before is None or any(before.differences.get(what) is None for what in intervals):
        return False, ""
    turned = [
        what for what, now in intervals.items() if (before.differences[what] > 0) != (now.value > 0)
    ]
    if turned:
        return False, f", and with {before.epochs} epochs of another sign: {'; '.join(turned)}"
    return True, f"with {before.epochs} epochs each difference has the same sign"


def judge_ratio(ratio: float, target: float, at_most: bool = False) -> tuple[str, str]:
    """(verdict, reason) of a claim about a ratio: it reaches the target, or stays within it."""
    fine = ratio <= target if at_most else ratio >= target
    bound = "at most" if at_most else "at least"
    return (HOLDS if fine else FAILS), f"{ratio:.2f}×; the claim needs {bound} {target:.2f}×"


def kernel_findings(sources: Sources) -> list[Finding]:
    """C1 to C3, for each device whose kernel benchmark is committed."""
    wanted = (
        (
            "C1",
            "The forward pass is up to 4.4 times faster than with fixed fan-in.",
            ("fixed_fan_in", "group_fan_in", ("forward",)),
        ),
        (
            "C2",
            "The backward pass is up to 25 times faster than with fixed fan-in.",
            ("fixed_fan_in", "group_fan_in", ("backward",)),
        ),
        (
            "C3",
            "Within a few per cent of a dense bottleneck of the same FLOPs.",
            ("group_fan_in", "bottleneck", ("forward", "backward")),
        ),
    )
    found = []
    for claim, text, (numerator, denominator, directions) in wanted:
        paper, target = kernel_target(sources.published, claim)
        what = f"time of {_LAYERS[numerator]} / {_LAYERS[denominator]}, largest ratio"
        if not sources.inputs.benchmarks:
            comparison = Comparison(what, None, paper)
            reason = "needs CUDA: no kernel benchmark is committed (haste bench kernels)"
            found.append(Finding(claim, text, "kernels", (comparison,), OPEN, reason))
        for path in sources.inputs.benchmarks:
            rows = read_kernels(path)
            ratios = [
                ratio
                for direction in directions
                for ratio in time_ratios(rows, numerator, denominator, direction)
            ]
            if ratios:
                verdict, reason = judge_ratio(max(ratios), target, at_most=claim == "C3")
                if len(ratios) > 1:
                    reason += f"; from {min(ratios):.2f}× on, over {len(ratios)} pairs of times"
            else:
                verdict, reason = OPEN, f"{path} has no problem that both were timed on"
            comparison = Comparison(what, max(ratios, default=None), paper)
            found.append(Finding(claim, text, path.parent.name, (comparison,), verdict, reason))
    return found


_LAYERS = {
    "fixed_fan_in": "fixed fan-in",
    "group_fan_in": "group fan-in",
    "bottleneck": "bottleneck",
}


def kernel_target(published: Published, claim: str) -> tuple[str | None, float]:
    """Of C1, C2 or C3: (the paper's number as printed, the ratio that has to be reached or kept to)."""
    if claim == "C3":
        rival, metric = "group-shared fixed fan-in vs FLOPs-matched dense bottleneck", "time"
    else:
        rival = "group-shared fixed fan-in vs standard fixed fan-in"
        metric = {
            "C1": "forward speedup, maximum",
            "C2": 'backward speedup, maximum ("backward passes")',
        }[claim]
    number = published.find(HASTE, "kernel", rival, metric)
    if number.value is None:
        return number.text, FEW_PER_CENT
    return f"{number.text}×", number.value


def _accuracy(sources: Sources, dataset: str) -> list[Finding]:
    """C4, C5 and C11: HASTE against dense and the prior sparse methods."""
    sides = {name: _side(name) for name in ("haste", "dense", *BASELINES)}
    haste, dense = sides["haste"], sides["dense"]
    at_least = [Difference(f"P@{k}", haste, sides[name]) for name in BASELINES for k in (1, 3, 5)]
    gaps = [
        *(Difference("P@1", dense, sides[name], tested=False) for name in ("haste", *BASELINES)),
        *(
            Difference(
                "P@1",
                haste,
                sides[name],
                title=f"gap to dense of {sides[name].title} − that of {haste.title}",
            )
            for name in BASELINES
        ),
    ]
    tail = [Difference("PSP@1", haste, sides["spartex"])]
    return [
        _compared(
            sources, dataset, ("C4", "P@k is at least that of prior sparse methods."), at_least
        ),
        _compared(
            sources,
            dataset,
            ("C5", "The gap to the dense layer is narrower than that of prior sparse methods."),
            gaps,
        ),
        _compared(
            sources, dataset, ("C11", "Tail labels gain: PSP@1 is above that of Spartex."), tail
        ),
    ]


def _grouping(sources: Sources, dataset: str) -> list[Finding]:
    """C7, C8 and C9: grouping, head-tail split, group size."""
    semantic = _variant(
        "grouping", None, "semantic", "HASTE full: semantic grouping + head-tail split, G=16"
    )
    frequency = _variant("grouping", "frequency", "frequency", "frequency grouping")
    random = _variant("grouping", "random", "random", "random grouping")
    split = _variant("head_tail", None, "with the split", semantic.published)
    no_split = _variant("head_tail", "off", "without", "no head-tail split")
    g16 = _variant("group_size", None, "G=16", "group size G=16")
    g32 = _variant("group_size", "32", "G=32", "group size G=32")
    g64 = _variant("group_size", "64", "G=64", "group size G=64")

    def steps(*sides: Side) -> list[Difference]:
        return [Difference("P@1", a, b) for a, b in itertools.pairwise(sides)]

    wanted = (
        (
            ("C7", "Semantic groups beat groups of equal frequency, which beat random ones."),
            steps(semantic, frequency, random),
            "grouping",
        ),
        (("C8", "The head-tail split helps."), steps(split, no_split), "head_tail"),
        (
            ("C9", "Smaller groups are more accurate: 16 over 32 over 64."),
            steps(g16, g32, g64),
            "group_size",
        ),
    )
    return [
        _compared(sources, dataset, claim, differences, name) for claim, differences, name in wanted
    ]


def _own(sources: Sources, dataset: str) -> list[Finding]:
    """H1, of a grid with HASTE+: it is to beat the paper's method and the dense layer."""
    if OWN not in sources.grid.methods:
        return []
    plus, rivals = _side(OWN), [_side(name) for name in ("haste", "dense")]
    wanted = [Difference(m, plus, rival) for rival in rivals for m in ("P@1", "P@5", "PSP@5")]
    text = "Not the paper's, but this project's: HASTE+ is above HASTE and the dense layer."
    return [_compared(sources, dataset, ("H1", text), wanted)]


def _compared(
    sources: Sources,
    dataset: str,
    claim: tuple[str, str],
    differences: Sequence[Difference],
    ablation_name: str | None = None,
) -> Finding:
    """A claim about differences in accuracy, between methods or between variants of an ablation."""
    sides = {side.title: side for d in differences for side in (d.better, d.worse)}
    runs = {title: sources.of(dataset, side.method, side.variant) for title, side in sides.items()}
    if ablation_name:
        # the preset may have more seeds
        seeds = sources.grid.ablation_seeds
        runs = {k: [run for run in found if run.key.seed in seeds] for k, found in runs.items()}
        known = ablation_name in sources.grid.ablations
        missing = "" if known else f"ablation {ablation_name} is not in the grid"
    else:
        absent = [s.method for s in sides.values() if s.method not in sources.grid.methods]
        missing = f"not in the grid: {', '.join(absent)}" if absent else ""
    if not missing and not all(runs.values()):
        missing = "no runs of " + ", ".join(title for title, found in runs.items() if not found)
    documents = sources.documents.get(dataset)
    ours = {
        d: documents.difference(runs[d.better.title], runs[d.worse.title], d.metric)
        for d in differences
        if runs[d.better.title] and runs[d.worse.title]
    }
    verdict, reason = OPEN, missing
    if not missing:
        tested = {d.what: ours[d] for d in differences if d.tested}
        verdict, reason = judge(tested, runs, _before(sources, dataset, differences, runs))
    comparisons = tuple(
        Comparison(d.what, ours.get(d), _paper_differences(sources.published, d))
        for d in differences
    )
    return Finding(*claim, dataset, comparisons, verdict, reason)


def _before(
    sources: Sources,
    dataset: str,
    differences: Sequence[Difference],
    runs: Mapping[str, Sequence[Run]],
) -> Before | None:
    """The same differences with fewer epochs than these runs have."""
    shorter = sources.shorter
    counts = [run.epochs for side in runs.values() for run in side if run.epochs is not None]
    if shorter is None or not counts:
        return None

    def of(side: Side, metric: str) -> float | None:
        return shorter.metric(RunKey(dataset, side.method, side.variant, 0), metric, min(counts))

    found = {}
    for each in differences:
        better, worse = of(each.better, each.metric), of(each.worse, each.metric)
        found[each.what] = None if better is None or worse is None else better - worse
    return Before(shorter.epochs(), found)


@dataclass(frozen=True)
class Resource:
    """A claim that HASTE takes less of something than Spartex."""

    claim: str
    text: str
    what: str
    column: str
    """of `run_frame`"""
    metric: Sequence[str]
    """its published names"""
    rival: str
    """Spartex in published.csv"""
    preset: str
    """of the scale benchmark"""
    scale_column: str
    """of scale.csv"""
    is_time: bool = False

    def targets(self, published: Published) -> dict[str, float]:
        """The paper's ratio by data set, names in small letters."""
        found = _paper_ratios(published, self.metric, self.rival)
        return {name.casefold(): ratio for name, ratio in found.items()}

    def compared(self, published: Published, ratio: float | None) -> Comparison:
        """Our ratio and all of the paper's."""
        found = _paper_ratios(published, self.metric, self.rival)
        paper = ", ".join(f"{each:.2f}× ({name})" for name, each in found.items())
        return Comparison(f"{self.what}, Spartex / HASTE", ratio, paper)


RESOURCES = (
    Resource(
        "C6",
        "Training takes less memory at its peak than Spartex.",
        "peak memory",
        "peak_train_bytes",
        PEAK_MEMORY,
        "Spartex",
        MEMORY,
        # rewirings take memory that depends on how they are written, ours and those of Spartex
        "steps_allocated_gib",
    ),
    Resource(
        "C10",
        "An epoch takes a quarter of the time (Amazon-3M, A100).",
        "time of an epoch",
        "epoch_seconds",
        SECONDS_AN_EPOCH,
        EPOCH_RIVAL,
        SPEED,
        "epoch_minutes",
        is_time=True,
    ),
)


def scale_findings(sources: Sources) -> list[Finding]:
    """C6 and C10 on the data sets that the paper has them for, by each committed scale benchmark."""
    found = []
    for path in sources.inputs.beside:
        results = ScaleResults.load(path)
        for each in RESOURCES:
            targets = each.targets(sources.published)
            for dataset in results.datasets():
                ours, theirs = (
                    results.value(dataset, name, each.preset, each.scale_column)
                    for name in ("haste", "spartex")
                )
                if dataset.casefold() not in targets or ours is None or theirs is None:
                    continue
                verdict, reason = judge_ratio(theirs / ours, targets[dataset.casefold()])
                reason = f"{reason}; scale benchmark, preset {each.preset}"
                place = f"{dataset}, {results.device}"
                comparison = each.compared(sources.published, theirs / ours)
                found.append(Finding(each.claim, each.text, place, (comparison,), verdict, reason))
    return found


def _resource(sources: Sources, dataset: str, claimed: Resource) -> Finding:
    """A claim about resources, measured in whole runs on a GPU."""
    targets = claimed.targets(sources.published)
    target = targets.get(dataset.casefold(), min(targets.values()))
    sides = {name: sources.of(dataset, name) for name in ("spartex", "haste")}
    ratio = None
    absent = [name for name, runs in sides.items() if not runs]
    if absent:
        verdict, reason = OPEN, f"no runs of {', '.join(absent)}"
    elif not all(run.on_gpu for runs in sides.values() for run in runs):
        verdict, reason = OPEN, "needs CUDA: these runs were made on a CPU"
    elif claimed.is_time and not all(run.timed for runs in sides.values() for run in runs):
        verdict, reason = OPEN, SHARED
    else:
        means = {name: run_frame(runs)[claimed.column].mean() for name, runs in sides.items()}
        ratio = float(means["spartex"] / means["haste"])
        verdict, reason = judge_ratio(ratio, target)
    comparison = claimed.compared(sources.published, ratio)
    return Finding(claimed.claim, claimed.text, dataset, (comparison,), verdict, reason)


def _side(name: str) -> Side:
    row = method(name)
    return Side(row.title, name, published=row.published_as[1] if row.published_as else None)


def _variant(name: str, value: str | None, title: str, published: str | None) -> Side:
    chosen = ablation(name)
    variant = DEFAULT_VARIANT if value is None else chosen.variant_name(value)
    return Side(title, chosen.method, variant, published)


def _paper_differences(published: Published, difference: Difference) -> str | None:
    """The same difference in the paper, on each data set where it can be formed."""
    found = []
    for dataset in published.datasets():
        a, b = (
            published.find(HASTE, dataset, side.published or "", difference.metric)
            for side in (difference.better, difference.worse)
        )
        if a and b:
            number = f"{a.value - b.value:.1f}".replace("-", "−")
            found.append(f"{number} ({dataset})")
    return ", ".join(found) or None


def _paper_ratios(published: Published, metric: Sequence[str], rival: str) -> dict[str, float]:
    """The rival's number over HASTE's, by data set."""
    found = {}
    for dataset in published.datasets():
        theirs = published.find(HASTE, dataset, rival, metric)
        ours = published.find(HASTE, dataset, "HASTE", metric)
        if theirs and ours:
            found[dataset] = theirs.value / ours.value
    return found
