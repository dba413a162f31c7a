"""The one setting that a rollback changes, and the changes of all rollbacks so far."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from openrs_ray.config.guard import Knob
from openrs_ray.config.schema import RunConfig
from openrs_ray.guard.rules import MEASURES
from openrs_ray.run.decisions import Decision
from openrs_ray.run.step_settings import Changes

ROLL_BACK = "roll back"
Change = Mapping[str, tuple[Any, Any]]
"""Value before and after, by the name in `Changes`."""


def rollbacks(decided: Iterable[Decision]) -> list[Decision]:
    return [decision for decision in decided if decision.by == "guard" and decision.action == ROLL_BACK]


def chosen_knob(rule: str, config: RunConfig, now: Changes, decided: Sequence[Decision]) -> Knob | None:
    """The rule's remedies in turn, at each of its rollbacks the next one; None where the run may change none of them."""
    able = [knob for knob in _mends(rule) if knob in config.guard.knobs and _possible(knob, config, now)]
    tried = sum(decision.evidence.get("rule") == rule for decision in rollbacks(decided))
    return able[tried % len(able)] if able else None


def _mends(rule: str) -> tuple[Knob, ...]:
    return MEASURES[rule].mends if rule in MEASURES else ("learning_rate", "kl")


def _possible(knob: Knob, config: RunConfig, now: Changes) -> bool:
    stages = config.rollout.stages[now.stage :]
    return knob != "length" or (len(stages) > 1 and stages[1].max_completion_tokens > stages[0].max_completion_tokens)


def change(knob: Knob, config: RunConfig, now: Changes) -> tuple[Change, str]:
    """What turning a knob once changes, and that as a clause."""
    if knob == "learning_rate":
        half = now.learning_rate_factor / 2
        clause = f"the learning rate is {half:g} times the recipe's"
        return {"learning_rate_factor": (now.learning_rate_factor, half)}, clause
    if knob == "kl":
        before = config.loss.kl_beta if now.kl_beta is None else now.kl_beta
        after = 2 * before or config.guard.kl_beta
        return {"kl_beta": (before, after)}, f"loss.kl_beta is {after:g} instead of {before:g}"
    limit = config.rollout.stages[now.stage + 1].max_completion_tokens
    return {
        "stage": (now.stage, now.stage + 1)
    }, f"completions may have {limit} tokens, as in the next of rollout.stages"


def held(changes: Changes, decided: Iterable[Decision]) -> Changes:
    """`changes` of a checkpoint with those of all rollbacks: they hold also where a later one goes back further."""
    for decision in rollbacks(decided):
        values = {name: now for name, (_, now) in decision.changes.items()}
        if "stage" in values:
            values["stage"] = max(values["stage"], changes.stage)
        changes = replace(changes, **values)
    return changes


def pending_rollback(decided: Sequence[Decision], newest_attempt: int) -> int | None:
    """Step that the run must go back to: a rollback was decided, and no attempt has begun since."""
    back = rollbacks(decided)
    return back[-1].to_step if back and back[-1].attempt >= newest_attempt else None
