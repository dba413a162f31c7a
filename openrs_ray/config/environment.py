"""The section `environment`: what turns a problem into a rollout."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Parts, Positive, Seconds, Section, SomeAmount

SINGLE_TURN = "single_turn"


class EnvironmentSection(Section):
    name: str = SINGLE_TURN
    """Answers the model between its turns: a class of your own (my_env.py:Calculator), python_tool, multi_turn_check, or
    single_turn, where nothing does (docs/environments.md)."""
    parameters: dict[str, Any] = Field(default={})
    """Arguments of the environment's class."""
    max_turns: Annotated[int, Field(ge=1, le=1000)] = 8
    """Turns of the model in one rollout; one that would take more is cut there and counts as truncated."""
    max_turn_tokens: Positive | None = None
    """Longest single turn in tokens; a longer one is cut and ends its rollout (none: only rollout.max_completion_tokens)."""
    deadline_s: Annotated[Seconds, FREE] = 30.0
    """An answer that takes longer is given up with its process, and its rollout ends without judgement."""
    memory_gib: Annotated[SomeAmount, FREE] = 2.0
    """Memory limit of one process that answers."""
    processes: Annotated[Parts, FREE] = 2
    """Processes that answer, each one turn at a time."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """`environment: NAME` is short for `environment: {name: NAME}`."""
        return {"name": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _single_turn_is_plain(self) -> "EnvironmentSection":
        default = type(self).model_fields["max_turns"].default
        given = self.parameters, self.max_turns, self.max_turn_tokens  # a run's config.json names them all
        if self.name == SINGLE_TURN and given != ({}, default, None):
            raise ValueError(
                "environment single_turn has one turn and takes no parameters: name another one in environment.name, or leave "
                "out parameters, max_turns and max_turn_tokens"
            )
        return self

    @property
    def answers(self) -> bool:
        """True where something answers the model, in processes of its own."""
        return self.name != SINGLE_TURN
