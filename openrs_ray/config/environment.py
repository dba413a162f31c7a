"""The section `environment`: what turns a problem into a rollout."""

from typing import Any

from pydantic import Field, model_validator

from openrs_ray.config.section import Section


class EnvironmentSection(Section):
    name: str = "single_turn"
    """A built-in environment (single_turn: one prompt, one completion), or verifiers:NAME."""
    parameters: dict[str, Any] = Field(default={})
    """Parameters of the environment."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        """`environment: NAME` is short for `environment: {name: NAME}`."""
        return {"name": given} if isinstance(given, str) else given
