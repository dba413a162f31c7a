"""Positions passed over because the problem's prompt is longer than the present stage allows (`rollout.stages`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openrs_ray.config.rollout import Rollout
from openrs_ray.data.order import Mixture, Place
from openrs_ray.records import Problem


@dataclass(frozen=True, slots=True)
class TooLong:
    """A position that was passed over, with its prompt's length and the stage's limit in tokens."""

    position: int
    place: Place
    tokens: int
    limit: int


@dataclass
class PromptLengths:
    """Decides which positions a stage passes over, and keeps those until they are recorded."""

    mixture: Mixture | None = None
    tokens: Sequence[int] = ()
    """Length of each problem's prompt."""
    limit: int | None = None
    """Longest prompt of the stage that draws; None: every problem is drawn."""
    _passed: list[TooLong] = field(default_factory=list)

    @classmethod
    def of(cls, rollout: Rollout, mixture: Mixture, problems: Sequence[Problem]) -> "PromptLengths":
        """Passes over nothing where no stage goes by the length of prompts."""
        if not rollout.by_prompt_length:
            return cls()
        return cls(mixture, [len(problem.prompt_ids) for problem in problems])

    def pass_over(self, position: int) -> bool:
        """True, and noted, for a position whose prompt is too long."""
        if self.limit is None or self.mixture is None:
            return False
        place = self.mixture.place(position)
        tokens = self.tokens[place.problem]
        if tokens <= self.limit:
            return False
        self._passed.append(TooLong(position, place, tokens, self.limit))
        return True

    def take(self) -> list[TooLong]:
        """Positions passed over since the last call."""
        passed, self._passed = self._passed, []
        return passed
