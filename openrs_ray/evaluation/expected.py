"""The saving that a sequential comparison may bring, before any sample: simulated with the planned variances."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from openrs_ray.evaluation.power import PLANNED
from openrs_ray.evaluation.sequential import Plan, reach_left
from openrs_ray.stats import normal_quantile

_PATHS = 20_000


@dataclass(frozen=True, slots=True)
class Expected:
    """Average outcome of the comparison for one true difference."""

    difference: float
    share: float
    """Of all completions that are sampled."""
    shown: float
    """Share of cases in which a difference is shown."""


def expected(problems: int, plan: Plan, difference: float, seed: int = 0) -> Expected:
    """Simulate the looks with a normal mean difference."""
    rng, asked, variance = np.random.default_rng(seed), plan.difference(problems), (PLANNED.within or 0.0) / problems
    total, taken, found = np.zeros(_PATHS), np.zeros(_PATHS), np.zeros(_PATHS, dtype=bool)
    going, before = np.ones(_PATHS, dtype=bool), 0
    for samples in plan.looks:
        more = samples - before
        total += more * difference + np.sqrt(more * variance) * rng.normal(size=_PATHS)
        taken[going] = samples
        now, mean = variance / samples, total / samples
        half = normal_quantile(1 - plan.level(samples)) * np.sqrt(now)
        found |= going & (np.abs(mean) > half)
        going &= np.abs(mean) <= half
        if plan.smallest(problems, samples) <= asked:
            going &= np.abs(mean) + half >= asked
        if samples < plan.samples:
            then = variance / plan.samples
            reach = reach_left(mean, asked, now, then, plan.level(plan.samples))
            going &= reach >= NormalDist().inv_cdf(1 - plan.power)
        before = samples
    return Expected(difference, float(taken.mean()) / plan.samples, float(found.mean()))


def expectations(problems: int, plan: Plan) -> list[Expected]:
    """For models that are alike, a gain of the asked size, and one of twice that."""
    asked = plan.difference(problems)
    return [expected(problems, plan, times * asked) for times in (0, 1, 2)]


def expected_lines(sizes: Mapping[str, int], plan: Plan) -> Iterator[str]:
    """`sizes`: problems by title."""
    yield (
        f"--until-decided would look at {', '.join(map(str, plan.looks))} samples of each problem ({100 * plan.power:g} % power) "
        "and is expected to take of these completions:"
    )
    for title, problems in sizes.items():
        alike, asked, twice = expectations(problems, plan)
        points, shown = 100 * asked.difference, 100 * asked.shown
        yield (
            f"  {title}: {100 * alike.share:.0f} % where the models are alike, {100 * asked.share:.0f} % with a gain of "
            f"{points:.1f} points (shown in {shown:.0f} % of all cases), {100 * twice.share:.0f} % at {2 * points:.1f}"
        )
        if plan.smallest(problems, plan.samples) > asked.difference * (1 + 1e-9):
            yield (
                f"  {title}: too few samples for {points:.1f} points at this power; {plan.samples} samples show about "
                f"{100 * plan.smallest(problems, plan.samples):.1f}"
            )
