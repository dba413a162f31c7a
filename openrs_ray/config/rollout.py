"""The config sections `rollout` and `engine`: what is sampled, and the engines that sample."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from openrs_ray.config.quantization import Quantization
from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Count, Parts, Positive, Seconds, Section, Share, SomeAmount, SomeShare


class Rollout(Section):
    problems_per_step: Positive
    """Problems drawn per optimizer step."""
    completions_per_problem: Annotated[int, Field(ge=2, le=10**9)]
    """Completions sampled per problem: the group that the advantage is normalised over."""
    max_prompt_tokens: Positive = 512
    """Longest prompt in tokens; problems with longer prompts are dropped and counted."""
    max_completion_tokens: Annotated[Positive, FREE]
    """Longest completion in tokens."""
    temperature: Annotated[float, Field(ge=0.01, le=100), FREE] = 1.0
    """Sampling temperature; the learner uses the same (below 0.01 vLLM samples at 0.01)."""
    top_p: Annotated[SomeShare, FREE] = 1.0
    """Must stay 1 in training: a truncated distribution would bias the probability ratio."""
    top_k: Annotated[int, Field(ge=-1, le=10**9), FREE] = -1
    """Must stay -1 in training, for the same reason."""
    staleness: Annotated[Count, FREE] = 0
    """Policy versions that a trained token may be old: 0 takes turns, k lets rollouts run that far ahead of the learner."""
    in_flight: Annotated[Positive | None, FREE] = None
    """Most groups that are sampled at once, up to (staleness + 1) x problems_per_step (default: all of these are requested, and
    engines work on as many as their key/value caches hold)."""
    quantization: Annotated[Quantization, FREE] = "none"
    """Engines hold their linear layers in 8 bits, quantized again at each push (fp8_kv: the key/value cache as well). The learner
    does not, and its loss must correct the difference (docs/quantization.md)."""
    replace_uniform_groups: Annotated[Count, FREE] = 0
    """Groups of equal rewards teach nothing: replace up to this many times problems_per_step of them in each step (0: none)."""
    max_uniform_steps: Annotated[Count, FREE] = 20
    """Steps in a row that may have no other groups than those, before the run stops (0: any number)."""
    max_first_truncated_share: Annotated[Share, FREE] = 0.98
    """Largest share of the first step's completions that may be cut at max_completion_tokens before the run stops (1: any)."""
    keep_cache: Annotated[bool, FREE] = False
    """A push that comes while a completion is being sampled leaves its key/value cache as it is instead of computing it anew."""
    sleep_while_learning: Annotated[bool, FREE] = False
    """On shared GPUs: engines give up their memory while the learner works, and take it back for the next rollouts."""
    deadline_s: Annotated[Seconds, FREE] = 1800
    """Longest time for the rollouts of one step."""

    @model_validator(mode="after")
    def _unbiased(self) -> Rollout:
        if self.top_p != 1.0 or self.top_k != -1:
            raise ValueError(
                "rollout.top_p must be 1 and rollout.top_k must be -1: training on a truncated distribution biases the ratio"
            )
        return self

    @model_validator(mode="after")
    def _young_enough(self) -> Rollout:
        most = (self.staleness + 1) * self.problems_per_step
        if self.in_flight is not None and self.in_flight > most:
            raise ValueError(
                f"rollout.in_flight ({self.in_flight}) must not be above {most}, (rollout.staleness + 1) x "
                "rollout.problems_per_step: further groups would exceed the staleness by the time of their step"
            )
        return self

    @property
    def most_drawn_per_step(self) -> int:
        return self.problems_per_step * (1 + self.replace_uniform_groups)


class Engine(Section):
    """A vLLM engine, the same in training, evaluation and curation. No field here changes a request or a seed."""

    tensor_parallel: Parts = 1
    """GPUs per engine."""
    max_sequences: Positive = 128
    """Completions an engine works on at once."""
    max_batched_tokens: Positive = 8192
    """Tokens an engine computes in one pass, prompts and completions together (on a CPU at least one longest sequence)."""
    gpu_memory_fraction: SomeShare = 0.9
    """Share of each of its GPUs' memory that an engine may take."""
    cpu_cache_gib: SomeAmount = 0.25
    """Size of an engine's key/value cache on a CPU."""
    enforce_eager: bool = False
    """Start faster without compiled graphs (always so on a CPU)."""
    start_deadline_s: Seconds = 600
    """Longest start of an engine."""

    @model_validator(mode="after")
    def _one_token_each(self) -> Engine:
        if self.max_batched_tokens < self.max_sequences:
            raise ValueError(
                f"engine.max_batched_tokens ({self.max_batched_tokens}) must not be below engine.max_sequences "
                f"({self.max_sequences}): every completion takes a token of each pass"
            )
        return self
