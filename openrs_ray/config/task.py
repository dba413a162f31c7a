"""A task: problems, the environment that makes rollouts of them, and what judges those."""

from dataclasses import dataclass

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.evaluation import NONE_HELD_OUT, HeldOut
from openrs_ray.config.rewards import Rewards


@dataclass(frozen=True)
class Task:
    """Example: Task("sums", data, Answer(), Rewards(), EnvironmentSection()); the only task of a run has the name ""."""

    name: str
    data: Data
    answer: Answer
    rewards: Rewards
    environment: EnvironmentSection
    weight: float = 1.0
    """Share of the positions, relative to the other tasks'."""
    held_out: HeldOut = NONE_HELD_OUT

    @property
    def right_or_wrong(self) -> bool:
        """False where only rewards tell completions apart."""
        return self.answer.kind not in ("none", "verifiers")

    @property
    def runs_programs(self) -> bool:
        """True where programs that the model wrote are run, in the sandbox."""
        return self.answer.kind == "code" or self.environment.name == "python_tool"
