"""Everything that the tables say, computed from the samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openrs_ray.evaluation.figures import Figures, Samples, average_of, figures
from openrs_ray.evaluation.paired import Pair, Paired, compare, corrected
from openrs_ray.evaluation.power import MORE, Measured, Rate, average_difference
from openrs_ray.stats import Interval, mean_interval

AVERAGE = "average of all"
"""Stands for a benchmark in comparisons; no name of one has blanks."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """Several runs on one benchmark."""

    mean: Interval
    """Mean of all samples."""
    deviation: float
    """Standard deviation of the runs' avg@k."""
    least: float
    most: float

    @classmethod
    def of(cls, runs: Sequence[Samples]) -> "Seeds":
        means = [mean_interval(run.correct).mean for run in runs]
        together = mean_interval(np.hstack([run.correct for run in runs]), runs[0].clusters)
        return cls(together, float(np.std(means, ddof=1)), min(means), max(means))


@dataclass(frozen=True, slots=True)
class Analysis:
    figures: dict[str, dict[str, Figures]]
    averages: dict[str, Interval | None]
    """None where one figure is refused."""
    against_start: dict[str, dict[str, Paired]]
    """`AVERAGE` among the benchmarks."""
    measured: dict[str, dict[str, Measured]]
    seeds: dict[str, Seeds]
    """By benchmark; empty without `seeds`."""


def analyse(
    samples: Mapping[str, Mapping[str, Samples]],
    start: str | None,
    max_unjudged_share: float,
    seeds: bool = False,
    resampling: int = 0,
) -> Analysis:
    """Compare all models with `start`, given `samples` by model and benchmark, in the same order for each.

    `seeds`: the other models are runs of one experiment. `resampling`: seed of the permutation test.
    """
    found = {
        model: {name: figures(s, max_unjudged_share) for name, s in by_name.items()}
        for model, by_name in samples.items()
    }
    believed = {
        model: {name: samples[model][name] for name, f in by_name.items() if f.average is not None}
        for model, by_name in found.items()
    }
    runs = [model for model in samples if model != start]
    names = list(next(iter(samples.values())))
    common = [name for name in names if all(name in believed[run] for run in runs)] if seeds else []
    if seeds:
        together = {name: _together([believed[run][name] for run in runs]) for name in common}
        believed = {f"mean of {len(runs)} runs": together, **believed}
    pairs = {model: _pairs(believed[model], believed[start]) for model in believed if start and model != start}
    return Analysis(
        figures=found,
        averages={model: average_of(list(by.values())) for model, by in found.items()} if len(names) > 1 else {},
        against_start={model: _compared(several, len(names), resampling) for model, several in pairs.items()},
        measured={model: {n: Measured.of(pair) for n, pair in several.items()} for model, several in pairs.items()},
        seeds={name: Seeds.of([believed[run][name] for run in runs]) for name in common},
    )


def _together(runs: Sequence[Samples]) -> Samples:
    names = ("correct", "classes", "tokens", "truncated", "english")
    joined = {name: np.hstack([getattr(run, name) for run in runs]) for name in names}
    return Samples(**joined, clusters=runs[0].clusters)


def _pairs(ours: Mapping[str, Samples], theirs: Mapping[str, Samples]) -> dict[str, Pair]:
    return {
        name: Pair(samples.correct, theirs[name].correct, samples.clusters)
        for name, samples in ours.items()
        if name in theirs
    }


def _compared(pairs: Mapping[str, Pair], benchmarks: int, seed: int) -> dict[str, Paired]:
    """Comparisons with Holm's correction; the average is a separate test."""
    found = corrected({name: compare([pair], seed) for name, pair in pairs.items()})
    return found | {AVERAGE: compare(list(pairs.values()), seed)} if len(pairs) == benchmarks > 1 else found


def power_rows(measured: Mapping[str, Measured], benchmarks: int, rate: Rate | None) -> dict[str, dict[str, Any]]:
    """Smallest difference by benchmark, as measured and with more samples, and their cost."""
    rows = {name: _power_row([part], rate) for name, part in measured.items()}
    return rows | {AVERAGE: _power_row(list(measured.values()), rate)} if len(measured) == benchmarks > 1 else rows


def _power_row(parts: Sequence[Measured], rate: Rate | None) -> dict[str, Any]:
    smallest, with_more = (_average([part.smallest(times) for part in parts]) for times in (1, MORE))
    more = (MORE - 1) * sum(part.completions for part in parts)
    return {
        "smallest": smallest,
        "with_more": with_more,
        "completions": more,
        "hours": rate and rate.hours * more,
        "dollars": rate and rate.dollars * more,
    }


def _average(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return average_difference(known) if len(known) == len(parts) else None
