"""Positions passed over because the problem's prompt does not fit the present stage (`rollout.stages`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openrs_ray.config.rollout import Rollout
from openrs_ray.data.order import Mixture, Place
from openrs_ray.records import Problem


@dataclass(frozen=True, slots=True)
class Unfit:
    """A position that was passed over, with its prompt's length and the stage's bounds in tokens."""

    position: int
    place: Place
    tokens: int
    least: int
    most: int


@dataclass
class PromptLengths:
    """Decides which positions a stage passes over, and keeps those until they are recorded."""

    mixture: Mixture | None = None
    """None: every problem is drawn."""
    tokens: Sequence[int] = ()
    """Length of each problem's prompt."""
    bounds: tuple[int, int] = (0, 0)
    """Shortest and longest prompt of the stage that draws."""
    _passed: list[Unfit] = field(default_factory=list)

    @classmethod
    def of(cls, rollout: Rollout, mixture: Mixture, problems: Sequence[Problem]) -> "PromptLengths":
        """Passes over nothing where no stage goes by the length of prompts."""
        if not rollout.by_prompt_length:
            return cls()
        return cls(mixture, [len(problem.prompt_ids) for problem in problems])

    def pass_over(self, position: int) -> bool:
        """True, and noted, for a position whose prompt does not fit."""
        if self.mixture is None:
            return False
        place = self.mixture.place(position)
        tokens, (least, most) = self.tokens[place.problem], self.bounds
        if least <= tokens <= most:
            return False
        self._passed.append(Unfit(position, place, tokens, least, most))
        return True

    def take(self) -> list[Unfit]:
        """Positions passed over since the last call."""
        passed, self._passed = self._passed, []
        return passed
