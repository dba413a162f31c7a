"""Settings of a judge model as its client reads them, checked by `openrs_ray.config.judge_model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from openrs_ray.rewards.judge_model.prompts import RELATIVE_TEMPLATE, SCORES_TEMPLATE, TEMPLATE
from openrs_ray.rewards.judge_model.scores import SCORE_PATTERN

Relative = Literal["ranking", "scores"]
"""All completions of a problem in their order from best to worst, or each with a score."""

SINGLE_NAME, RELATIVE_NAME = "judge", "judge_relative"
NAMES = (SINGLE_NAME, RELATIVE_NAME)
"""The rewards that a judge model gives."""


@dataclass(frozen=True)
class JudgeSettings:
    """Example: JudgeSettings(model="qwen-judge", url="http://10.0.0.7:8000/v1")"""

    model: str
    """Its name in every request."""
    url: str | None = None
    """Up to `/v1`; None: served by the run."""
    system_prompt: str | None = None
    template: str = TEMPLATE
    relative: Relative = "ranking"
    relative_template: str | None = None
    relative_orders: int = 1
    show_reasoning: bool = True
    score_pattern: str = SCORE_PATTERN
    score_key: str | None = None
    low: float = 0.0
    high: float = 10.0
    temperature: float = 0.0
    max_tokens: int = 1024
    request: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 16
    timeout_s: float = 120.0
    deadline_s: float = 400.0
    retries: int = 4
    backoff_s: float = 1.0
    price_per_million_prompt_tokens: float = 0.0
    price_per_million_completion_tokens: float = 0.0

    @classmethod
    def of(cls, section: Any) -> JudgeSettings:
        """Settings of a config's section `rewards.judge`."""
        return cls(**{one.name: getattr(section, one.name) for one in fields(cls)})

    @property
    def comparing_template(self) -> str:
        if self.relative_template is not None:
            return self.relative_template
        return RELATIVE_TEMPLATE if self.relative == "ranking" else SCORES_TEMPLATE

    def body(self, prompt: str) -> dict[str, Any]:
        """A chat request; null in `request` leaves out a field."""
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, {"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.request,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def price(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars."""
        return 1e-6 * (
            prompt_tokens * self.price_per_million_prompt_tokens
            + completion_tokens * self.price_per_million_completion_tokens
        )
