"""The section `rewards.judge`: a model that judges completions, asked over the protocol of OpenAI's chat completions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import regex
from pydantic import Field, model_validator

from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import (
    Amount,
    Count,
    Parts,
    Positive,
    Seconds,
    Section,
    SomeAmount,
    SomeShare,
    Temperature,
)
from openrs_ray.rewards.judge_model.prompts import TEMPLATE, names_in
from openrs_ray.rewards.judge_model.scores import SCORE_PATTERN
from openrs_ray.rewards.judge_model.settings import Relative
from openrs_ray.rewards.records import Value


class ServedJudge(Section):
    gpus: Annotated[Parts, FREE] = 1
    """GPUs that the run reserves for the judge's server, one copy of the model over all (on a CPU: slots)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the judge (auto: that of its files)."""
    max_model_tokens: Annotated[Positive | None, FREE] = None
    """Longest request with its reply (default: as long as the model takes, which may need much memory)."""
    gpu_memory_fraction: Annotated[SomeShare, FREE] = 0.9
    """Share of each of its GPUs' memory that the server may take."""
    cpu_cache_gib: Annotated[SomeAmount, FREE] = 1.0
    """Size of the server's key/value cache on a CPU."""
    start_deadline_s: Annotated[Seconds, FREE] = 900
    """Longest start of the server."""


class JudgeModel(Section):
    model: str | None = None
    """Model that judges: its name at `rewards.judge.url`, or a folder, Hub id or built-in that the run serves itself."""
    url: Annotated[str | None, FREE] = None
    """OpenAI-compatible endpoint up to /v1; none: the run starts vLLM's server for the model (`rewards.judge.serve`)."""
    serve: ServedJudge = ServedJudge()
    api_key_env: Annotated[str | None, FREE] = None
    """Name of the environment variable that holds the endpoint's key; the key itself is written nowhere."""
    system_prompt: str | None = None
    """System message of every request."""
    template: str = TEMPLATE
    """Template of the question that `judge` asks; {problem}, {completion} and {gold} are replaced, all other braces stay."""
    relative: Relative = "ranking"
    """Form of the verdict that `judge_relative` asks for: an order of all completions, or a score for each."""
    relative_template: str | None = None
    """Template for `judge_relative`, with {problem}, {completions} and {gold} (default: docs/judges.md has it)."""
    relative_orders: Parts = 1
    """Different orders in which `judge_relative` shows each group, one request each; their values are averaged."""
    show_reasoning: bool = True
    """Show the judge whole completions; false: only what follows </think>."""
    score_pattern: str = SCORE_PATTERN
    """Regular expression with one group, the score; its last match in the reply counts."""
    score_key: str | None = None
    """Instead of the pattern: the score is this key of the last JSON object in the reply."""
    low: Value = 0.0
    """Score that becomes the reward 0."""
    high: Value = 10.0
    """Score that becomes the reward 1; scores beyond the two are no judgement."""
    temperature: Temperature = 0.0
    """Sampling temperature of the judge."""
    max_tokens: Positive = 1024
    """Longest reply in tokens, reasoning included."""
    request: dict[str, Any] = Field(default={})
    """Further fields of every request, such as response_format; null leaves one out."""
    concurrency: Annotated[Parts, FREE] = 16
    """Requests that are open at once."""
    timeout_s: Annotated[Seconds, FREE] = 120.0
    """Longest time for one request."""
    deadline_s: Annotated[Seconds, FREE] = 400.0
    """Longest time for one judgement, waiting and retries included; what is late is not judged (timeout). All rewards that ask
    the judge together may take half of rollout.deadline_s."""
    retries: Annotated[Count, FREE] = 4
    """Further requests after one that failed or had no score."""
    backoff_s: Annotated[SomeAmount, FREE] = 1.0
    """Pause before the first of them, then doubled; at least as long as the endpoint asks to wait."""
    price_per_million_prompt_tokens: Annotated[Amount, FREE] = 0.0
    """Dollars; the run's cost includes them."""
    price_per_million_completion_tokens: Annotated[Amount, FREE] = 0.0
    """Dollars; the run's cost includes them."""

    @property
    def served(self) -> bool:
        """True if the run starts its server."""
        return self.model is not None and self.url is None

    @model_validator(mode="after")
    def _can_be_asked(self) -> JudgeModel:
        if self.url is not None:
            _check_url(self.url)
            if self.model is None:
                raise ValueError("rewards.judge.url needs rewards.judge.model, the model's name there")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError(
                "rewards.judge.api_key_env must be the name of an environment variable, never the key itself"
            )
        if "completion" not in names_in(self.template):
            raise ValueError("rewards.judge.template must contain {completion}")
        if self.relative_template is not None and "completions" not in names_in(self.relative_template):
            raise ValueError("rewards.judge.relative_template must contain {completions}")
        if self.low >= self.high:
            raise ValueError(f"rewards.judge.low ({self.low:g}) must be below rewards.judge.high ({self.high:g})")
        if self.timeout_s > self.deadline_s:
            raise ValueError(
                f"rewards.judge.timeout_s ({self.timeout_s:g}) must not be above rewards.judge.deadline_s ({self.deadline_s:g})"
            )
        try:
            groups = regex.compile(self.score_pattern).groups
        except regex.error as error:
            raise ValueError(f"rewards.judge.score_pattern is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(
                f"rewards.judge.score_pattern must have one group, the score, and has {groups} ((?:...) groups nothing)"
            )
        return self


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"rewards.judge.url must be like http://host:8000/v1, not {url}")
    if "@" in parts.netloc or parts.query:
        raise ValueError(
            "rewards.judge.url must hold no name, key or password: put the key into an environment variable and name that in "
            "rewards.judge.api_key_env"
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError("rewards.judge.url ends before /chat/completions: usually with /v1")
