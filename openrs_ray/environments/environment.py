"""The seam between the loop and whatever produces a rollout."""

from collections.abc import Sequence
from typing import Protocol

from openrs_ray.records import Completion, Problem, Rollout


class Engines(Protocol):
    """The engines as one rollout sees them: they know its position, sample and seed."""

    @property
    def max_tokens(self) -> int:
        """The most that may follow the prompt: `rollout.max_completion_tokens`, or that of the stage."""
        ...

    async def sample(self, prompt_ids: Sequence[int], max_tokens: int | None = None) -> Completion:
        """The next turn.

        Args:
            prompt_ids: the problem's prompt and all that has followed it, token by token as it was sampled or given.
            max_tokens: besides the bound of all that follows the prompt; where that leaves none, the completion is empty and its
                finish reason is "length".
        """
        ...


class Environment(Protocol):
    """One object serves all rollouts of a run, many at once. The same tokens sampled must give the same tokens."""

    async def rollout(self, problem: Problem, engines: Engines) -> Rollout:
        """All turns of one sample, put together by `Rollout.of`."""
        ...
