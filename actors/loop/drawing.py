"""Draws the problems of a run's positions."""

from collections.abc import Sequence

from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Order
from openrs_ray.records import Problem
from openrs_ray.run.progress import Progress

Drawn = tuple[int, Problem]
"""A position and the problem that is drawn there."""


class Drawing:
    """Gives the next positions with their problems, each once; after a resume first those that its checkpoint lacks.

    draw = Drawing(config, problems, progress)
    draw(4)  # the first four that `progress` has not used
    """

    def __init__(self, config: RunConfig, problems: Sequence[Problem], progress: Progress) -> None:
        self._order = Order(config.run.seed, len(problems), config.data.shuffle)
        self._problems = problems
        self._progress = progress
        self._next = 0

    def __call__(self, count: int) -> list[Drawn]:
        positions = self._progress.next_positions(count, self._next)
        self._next = max([self._next, *(position + 1 for position in positions)])
        indices = [index for position in positions for index in self._order.draw(position, 1)]
        return [(position, self._problems[index]) for position, index in zip(positions, indices, strict=True)]
