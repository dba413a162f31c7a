"""Settings of one step that a run may change by itself: by its stages, its guard, or its entropy floor."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from openrs_ray.config.loss import Loss
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

_PREFIX = "setting/"
OF_A_STAGE = ("stage", "max_completion_tokens", "min_prompt_tokens", "max_prompt_tokens", "temperature")
"""Settings that a stage has; a resume may change them, too."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes that a run has made to its recipe so far; in every checkpoint. They hold on top of what a resume changes."""

    stage: int = 0
    """Of `rollout.stages`, counted from 0."""
    learning_rate_factor: float = 1.0
    kl_beta: float | None = None
    """None: the recipe's."""
    entropy_weight: float | None = None
    """None: the recipe's."""
    reference_step: int = 0
    """Step whose policy is the reference; 0: the start model."""
    entropy_coefficient: float | None = None
    """Of `loss.entropy_floor`; the weight is this where the entropy is below the floor, else 0. None: not adapted so far."""


@dataclass(frozen=True, slots=True)
class StepSettings:
    """Settings in force in one step; in its line of `metrics.jsonl`, under `setting/`."""

    stage: int
    max_prompt_tokens: int
    max_completion_tokens: int
    temperature: float
    learning_rate_factor: float
    """Factor of the schedule's learning rate."""
    kl_beta: float
    entropy_weight: float
    reference_step: int
    """0: the start model, or no penalty."""
    min_prompt_tokens: int = 0

    @classmethod
    def of(cls, config: RunConfig, changes: Changes | None = None) -> Self:
        """The recipe's settings with the run's own changes."""
        changes, stages, loss = changes or Changes(), config.rollout.each_stage, config.loss
        number = min(changes.stage, len(stages) - 1)  # a resume may leave out stages
        stage = stages[number]
        kl_beta = loss.kl_beta if changes.kl_beta is None else changes.kl_beta
        has_followed_floor = changes.entropy_coefficient is not None and not loss.entropy_floor
        entropy_weight = None if has_followed_floor else changes.entropy_weight
        return cls(
            stage=number,
            max_prompt_tokens=stage.max_prompt_tokens or config.rollout.max_prompt_tokens,
            max_completion_tokens=stage.max_completion_tokens,
            temperature=stage.temperature or config.rollout.temperature,
            learning_rate_factor=changes.learning_rate_factor,
            kl_beta=kl_beta,
            entropy_weight=loss.entropy_weight if entropy_weight is None else entropy_weight,
            reference_step=changes.reference_step if kl_beta else 0,  # a resume may take the penalty away
            min_prompt_tokens=stage.min_prompt_tokens,
        )

    @classmethod
    def recorded(cls, line: Mapping[str, Any], config: RunConfig) -> Self:
        """Settings of a step, from its line of `metrics.jsonl`; the recipe's where an older version wrote none."""
        known = asdict(cls.of(config))
        return cls(**{name: type(value)(line.get(_PREFIX + name, value)) for name, value in known.items()})

    @property
    def of_stage(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in OF_A_STAGE}

    def metrics(self) -> dict[str, float]:
        return {_PREFIX + name: value for name, value in asdict(self).items()}

    def loss(self, loss: Loss) -> Loss:
        """The recipe's loss as it is in this step."""
        return loss.model_copy(update={"kl_beta": self.kl_beta, "entropy_weight": self.entropy_weight})


def check_reference(config: RunConfig, changes: Changes) -> None:
    """UserError where a resume takes away the reference of a KL penalty that the run's changes go on with."""
    settings, name = StepSettings.of(config, changes), config.run.name
    if settings.kl_beta and not (config.needs_reference or config.learner.lora.rank):
        raise UserError(
            f"run {name} goes on with a KL penalty of {settings.kl_beta:g}, which its guard has brought in, but with these "
            f"settings no reference model is loaded: set loss.kl_beta to {settings.kl_beta:g}, or guard.action and guard.knobs "
            "as they were"
        )
    if settings.reference_step and not config.checkpoint.keep_policies:
        raise UserError(
            f"the reference of run {name} is the policy of step {settings.reference_step}, which checkpoint.keep_policies false "
            "would delete: set it to true, or loss.kl_beta to 0"
        )
