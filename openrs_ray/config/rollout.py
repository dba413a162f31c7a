"""The config sections `rollout` and `engine`: what is sampled, and the engines that sample."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from openrs_ray.config.quantization import Quantization
from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Count, Parts, Positive, Seconds, Section, Share, SomeAmount, SomeShare
from openrs_ray.config.stages import RolloutStage, Warmth, check_order, longest

_LENGTHS = ("max_completion_tokens", "max_prompt_tokens")


class Rollout(Section):
    problems_per_step: Positive
    """Problems drawn per optimizer step."""
    completions_per_problem: Annotated[int, Field(ge=2, le=10**9)]
    """Completions sampled per problem: the group that the advantage is normalised over."""
    max_prompt_tokens: Positive = 512
    """Longest prompt in tokens; problems with longer prompts are dropped and counted."""
    max_completion_tokens: Annotated[Positive, FREE]
    """Longest completion in tokens (with stages: that of the longest one)."""
    temperature: Annotated[Warmth, FREE] = 1.0
    """Sampling temperature; the learner uses the same (below 0.01 vLLM samples at 0.01)."""
    stages: Annotated[tuple[RolloutStage, ...], FREE] = ()
    """Stages of the run, each with a longest completion and, where given, prompt lengths and a temperature (docs/stages.md)."""
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
    does not, and its loss must correct the difference (docs/quantization.md). The same in all evaluations of a run."""
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

    @model_validator(mode="before")
    @classmethod
    def _as_long_as_stages(cls, given: Any) -> Any:
        """Lengths that are not given are those of the longest stage."""
        if not isinstance(given, dict):
            return given
        found = {name: longest(given.get("stages"), name) for name in _LENGTHS}
        return {name: value for name, value in found.items() if value is not None} | given

    @model_validator(mode="after")
    def _stages_fit(self) -> Rollout:
        check_order(self.stages)
        for name in _LENGTHS if self.stages else ():
            most, given = max(getattr(stage, name) for stage in self.each_stage), getattr(self, name)
            if most != given:
                raise ValueError(
                    f"rollout.{name} ({given}) must be that of the longest of rollout.stages ({most}): set it to {most}, or "
                    "leave it out"
                )
        return self

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

    def stage(self, number: int) -> RolloutStage:
        """A stage with nothing left open, counted from 0; a run without stages is one."""
        stages = self.stages or (RolloutStage(max_completion_tokens=self.max_completion_tokens),)
        found = stages[number]
        given = {"max_prompt_tokens": found.max_prompt_tokens, "temperature": found.temperature}
        return found.model_copy(update={name: getattr(self, name) if v is None else v for name, v in given.items()})

    def planned_ends(self, steps: int) -> list[int]:
        """Last step of each stage in a run of so many; a stage that no step ends gets an even share of those around it."""
        known = [stage.until.step if stage.until else None for stage in self.each_stage]
        known[-1] = steps
        ends = [0]
        for number, end in enumerate(known):
            after = next(place for place in range(number, len(known)) if known[place] is not None)
            until = min(known[after] or steps, steps)
            ends.append(until if end is not None else ends[-1] + (until - ends[-1]) // (after - number + 1))
        return ends[1:]

    @property
    def by_prompt_length(self) -> bool:
        """True where a stage passes over some of the problems by the length of their prompts."""
        return any(
            stage.min_prompt_tokens or stage.max_prompt_tokens != self.max_prompt_tokens for stage in self.each_stage
        )

    @property
    def each_stage(self) -> tuple[RolloutStage, ...]:
        """All stages, with nothing left open; at least one."""
        return tuple(self.stage(number) for number in range(max(1, len(self.stages))))


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
