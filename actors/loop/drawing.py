"""Draws the problems of a run's positions."""

import itertools
from collections.abc import Iterator, Sequence

from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Order
from openrs_ray.records import Problem
from openrs_ray.run.progress import Progress

Drawn = tuple[int, Problem]
"""A position and its problem."""


def drawing(config: RunConfig, problems: Sequence[Problem], progress: Progress) -> Iterator[Drawn]:
    """Positions that `progress` has not used, in order; after a resume first those it lacks."""
    order = Order(config.run.seed, len(problems), config.data.shuffle)
    for position in itertools.count(progress.position):
        if position not in progress.ahead:
            yield position, problems[order.index(position)]
