"""Refuses losses whose ratio to the old policy is always 1 where a part of them, or stale completions, rely on it."""

from openrs_ray.config.loss import Loss
from openrs_ray.config.names import is_run
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError


def check_ratio_acts(config: RunConfig) -> None:
    """UserError for a new run whose loss or staleness relies on the ratio.

    Checked at a start and not in the schema: a run of an earlier version may have such settings, and goes on as it began.
    """
    if config.loss.old_policy == "current" and not is_run(config.run.path):
        _check_parts_act(config.loss)
        if config.rollout.staleness and config.loss.ignores_age:
            raise UserError(
                "rollout.staleness above 0 needs loss.old_policy sampler, or loss.correction sequence_mask or token_mask: with "
                "current, completions of an older policy would be learned from as if the policy had not changed since"
            )


def _check_parts_act(loss: Loss) -> None:
    if loss.correction == "truncated":
        raise UserError(
            "loss.correction truncated needs loss.old_policy sampler: with current the ratio is always 1, and the cap cannot "
            "act (none, sequence_mask and token_mask go with current)"
        )
    if loss.bounds_weights:
        raise UserError(
            f"loss.kind {loss.kind} needs loss.old_policy sampler: with current the ratio that it weighs tokens by is always 1 "
            "(grpo, dr_grpo, dapo and gspo go with current)"
        )
