"""Held-out accuracy that a dollar has bought of late, and the end of a run of which the next one buys too little."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openrs_ray.config.schema import RunConfig
from openrs_ray.evaluation.gain import checked_tasks, recorded_scores
from openrs_ray.run.budget import LimitReached
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import Progress
from openrs_ray.stats import Interval, student_quantile

_LEVEL = 0.05
"""Chance, over all checks of a run, that an interval does not hold its slope."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Accuracy points per dollar over several evaluations."""

    interval: Interval
    """Points per dollar; all intervals of a run hold together in 95 % of all cases, unless `run.steps` is raised."""
    evaluations: int
    dollars: float
    """Spent from the first of them to the last."""

    def __str__(self) -> str:
        """Example: "+0.314 points per dollar [-0.1, +0.72] over the last 5 evaluations, which took $ 6.20" """
        each = (self.interval.mean, self.interval.low, self.interval.high)
        mean, low, high = (f"{value:+.3g}" for value in each)
        return (
            f"{mean} points per dollar [{low}, {high}] over the last {self.evaluations} evaluations, which took "
            f"$ {self.dollars:.2f}"
        )


def slope(scores: Sequence[np.ndarray], dollars: Sequence[float], confidence: float) -> Interval | None:
    """Points per dollar; None where fewer than three problems or evaluations, or no dollars, tell.

    Args:
        scores: float [problems, samples] in [0, 1] of each evaluation of the same problems; NaN where not judged.
        dollars: spent until each evaluation.

    Least squares of each problem's accuracy over dollars. Two errors are added, each at its own quantile of Student's, which
    covers at least as often as it says (S. K. Banerjee, 1960, Sankhya 22:357-358): that of the mean slope over problems, and,
    from the residuals around the line of the mean accuracy, that of training's own ups and downs, which all problems share.
    A problem that was not judged in each evaluation is left out.
    """
    means = np.stack([np.where(np.isnan(each).all(axis=1), np.nan, _means(each)) for each in scores], axis=1)
    means = means[~np.isnan(means).any(axis=1)]
    apart = np.asarray(dollars) - np.mean(dollars)
    spread, problems = float((apart**2).sum()), len(means)
    if problems < 3 or len(scores) < 3 or not spread > 0:
        return None
    slopes, curve = 100 * means @ apart / spread, 100 * means.mean(axis=0)
    mean, free = float(slopes.mean()), len(scores) - 2
    residuals = curve - curve.mean() - mean * apart
    # One completion more or less: without it, evaluations that happen to be alike would pass for certain.
    least = 100 * float(np.abs(apart).max()) / spread / problems / scores[0].shape[1]
    of_problems = math.hypot(float(slopes.std(ddof=1)) / math.sqrt(problems), least)
    in_common = math.sqrt(float((residuals**2).sum()) / free / spread)
    half = math.hypot(
        student_quantile(problems - 1, confidence) * of_problems, student_quantile(free, confidence) * in_common
    )
    return Interval(mean, mean - half, mean + half)


def _means(scores: np.ndarray) -> np.ndarray:
    judged = ~np.isnan(scores)
    means: np.ndarray = np.nansum(scores, axis=1) / np.maximum(judged.sum(axis=1), 1)
    return means


def checks(config: RunConfig) -> int:
    """Number of evaluations before the last step after which the slope is known."""
    every, window = config.evaluation.every_steps, config.cost.evaluations_per_slope
    return 2 + (config.run.steps - 1) // every - window if every else 0


def recorded_slope(config: RunConfig, progress: Progress) -> Slope | None:
    """Slope over a run's last `cost.evaluations_per_slope` scheduled evaluations; None where no check is due after this step.

    The one that a budget's end brought on is not among them: `checks` does not count it.
    """
    window, every = config.cost.evaluations_per_slope, config.evaluation.every_steps
    if config.cost.min_points_per_usd is None or not every or progress.evaluated != progress.step:
        return None
    lines = [line for line in read_metrics(config.run.path, "evaluation") if line.get("cost_usd") is not None]
    last = [line for line in lines if line["step"] <= progress.step and line["step"] % every == 0][-window:]
    if len(last) < window:
        return None
    dollars = [float(line["cost_usd"]) for line in last]
    scores = [recorded_scores(config.run.path, line["step"], checked_tasks(config)) for line in last]
    found = slope(scores, dollars, 1 - _LEVEL / max(1, checks(config)))
    return None if found is None else Slope(found, window, dollars[-1] - dollars[0])


def too_flat(config: RunConfig, found: Slope) -> str | None:
    """A sentence where even the upper end of the slope is below `cost.min_points_per_usd`, else None."""
    least = config.cost.min_points_per_usd
    if least is None or found.interval.high >= least:
        return None
    return (
        f"held-out accuracy of run {config.run.name} gained {found}, less than cost.min_points_per_usd {least:g} even at the "
        "interval's upper end: lower that and give --resume to go on"
    )


def check_worth(config: RunConfig, progress: Progress) -> None:
    """LimitReached where a run that ended flat would do so again at once."""
    found = recorded_slope(config, progress) if progress.ended == "flat" else None
    if found and (sentence := too_flat(config, found)):
        raise LimitReached(sentence, "flat")
