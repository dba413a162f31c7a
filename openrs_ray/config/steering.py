"""Checks of the settings by which a run changes others by itself, or ends.

`rollout.stages`, `loss.reference_reset_after` and `cost.min_points_per_usd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrs_ray.rewards.registry import weighted_parameters

if TYPE_CHECKING:
    from openrs_ray.config.schema import RunConfig


def check_stages(config: RunConfig) -> None:
    """ValueError where stages do not go with the rest of the config."""
    steps, stages = config.run.steps, config.rollout.each_stage
    for number, stage in enumerate(stages):
        if stage.until and stage.until.step and stage.until.step >= steps:
            raise ValueError(
                f"rollout.stages[{number}].until.step ({stage.until.step}) must be below run.steps ({steps}), or the next stage "
                "never begins"
            )
    if (
        config.rollout.staleness
        and config.loss.normalization == "local_micro_batch"
        and len({stage.temperature for stage in stages}) > 1
    ):
        raise ValueError(
            "rollout.stages of several temperatures need rollout.staleness 0 with loss.normalization local_micro_batch: its "
            "micro-batches of fixed places would mix completions of both sides of a change"
        )
    for parameters in (one for task in config.tasks for one in weighted_parameters(task.rewards).values()):
        for stage in config.rollout.stages if hasattr(parameters, "check_stage") else ():
            parameters.check_stage(stage.max_completion_tokens)


def check_reference_reset(config: RunConfig) -> None:
    """ValueError where the reference cannot be reset."""
    if not config.loss.reference_reset_after:
        return
    if config.loss.kl_beta == 0:
        raise ValueError("loss.reference_reset_after needs a reference: set loss.kl_beta above 0")
    if config.learner.lora.rank:
        raise ValueError(
            "loss.reference_reset_after must be 0 with adapters (learner.lora.rank above 0): the reference is the model without "
            "them, which stays"
        )
    if not (config.evaluation.every_steps and _has_held_out_accuracy(config)):
        raise ValueError(
            "loss.reference_reset_after goes by the held-out accuracy: set evaluation.every_steps, and evaluation.hold_out "
            "or evaluation.path, of problems with right and wrong answers"
        )
    if not config.checkpoint.keep_policies:
        raise ValueError(
            "loss.reference_reset_after needs checkpoint.keep_policies true: the policy of a checkpoint is the reference"
        )


def check_slope(config: RunConfig) -> None:
    """ValueError where no slope of the held-out curve would be measured."""
    if config.cost.min_points_per_usd is None:
        return
    every, evaluations = config.evaluation.every_steps, config.cost.evaluations_per_slope
    if not _has_held_out_accuracy(config):
        raise ValueError(
            "cost.min_points_per_usd needs held-out problems with right and wrong answers (evaluation.hold_out)"
        )
    if not every or 1 + (config.run.steps - 1) // every < evaluations:
        raise ValueError(
            f"cost.min_points_per_usd needs {evaluations} evaluations (cost.evaluations_per_slope) before the last step: set "
            "evaluation.every_steps to a smaller number"
        )


def _has_held_out_accuracy(config: RunConfig) -> bool:
    return any(task.right_or_wrong and (task.held_out.path or task.held_out.hold_out) for task in config.tasks)
