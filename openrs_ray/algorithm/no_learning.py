"""Detects runs that learn nothing: without a teacher, groups of equal rewards change nothing (but for a KL penalty)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openrs_ray.config.answer import BOX
from openrs_ray.config.rollout import Rollout
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Group, Status

_WARN_FROM = 5  # Steps without spread; the next warning comes at twice as many
_ENOUGH_COMPLETIONS = 16  # Fewer completions say little about how many are cut
_ALL = 0.99
_MANY = 0.5  # Share of cut completions that explains why none has an answer


class LearningWatch:
    """Watches the steps of one attempt."""

    def __init__(self, config: RunConfig, stop_tokens: Sequence[str]) -> None:
        self._config = config
        self._stop_tokens = stop_tokens
        self._without = 0
        self._warn_at = _WARN_FROM
        self.stop: str | None = None
        """Reason to end the run; one sentence."""

    def step(self, step: int, figures: Mapping[str, float], groups: Sequence[Group]) -> str | None:
        """Note a finished step, with the figures of `step_metrics` and all sampled groups; returns a warning if one is due."""
        if figures["groups_with_spread"] or self._config.loss.kind == "distill":
            self._without, self._warn_at = 0, _WARN_FROM
        else:
            self._without += 1
        self.stop = self._truncated_at_first(step, figures, groups) or self._too_long(figures, groups)
        if self._without < self._warn_at or self.stop:
            return None
        self._warn_at *= 2
        return (
            f"nothing was learned in the last {self._without} steps, since no group had completions of different rewards: "
            f"{cause(figures, groups, self._config)}"
        )

    def _truncated_at_first(self, step: int, figures: Mapping[str, float], groups: Sequence[Group]) -> str | None:
        rollout, share = self._config.rollout, figures["truncated_share"]
        sampled = sum(len(group.rollouts) for group in groups)
        if step > 1 or sampled < _ENOUGH_COMPLETIONS or share <= rollout.max_first_truncated_share:
            return None
        name, limit = _length_limit(groups, rollout)
        return (
            f"{share:.1%} of the {sampled} completions of step 1 were cut at {name} "
            f"({limit}), where none of the stop tokens ({', '.join(self._stop_tokens)}) had come: raise "
            f"{name}, give the model the generation_config.json or the chat template that names the "
            "token it ends with, or, where so many are to be cut, raise rollout.max_first_truncated_share "
            f"({rollout.max_first_truncated_share:g})"
        )

    def _too_long(self, figures: Mapping[str, float], groups: Sequence[Group]) -> str | None:
        limit = self._config.rollout.max_uniform_steps
        if not limit or self._without < limit:
            return None
        return (
            f"nothing was learned in {self._without} steps in a row, as many as rollout.max_uniform_steps allows, since "
            f"no group had completions of different rewards: {cause(figures, groups, self._config)}"
        )


def cause(figures: Mapping[str, float], groups: Sequence[Group], config: RunConfig) -> str:
    """Cause of equal rewards in every group of a step, and its remedy."""
    statuses = [verdict.status for group in groups for verdict in group.verdicts]
    if not any(status.judged for status in statuses):
        return (
            f"none of them could be judged ({statuses.count(Status.TIMEOUT)} checks timed out, "
            f"{statuses.count(Status.ERROR)} failed): raise rewards.deadline_s or rewards.memory_gib"
        )
    tasks = [config.task(name) for name in {group.problem.task for group in groups}]
    rewarded = any(task.rewards.weights.keys() & {"accuracy", "cosine"} for task in tasks)
    if rewarded and figures["accuracy"] >= _ALL:
        return "all are right: the problems are too easy for this model, give it harder ones"
    cut, unanswered = figures["truncated_share"], figures["no_answer_share"] >= _ALL
    if cut >= _ALL or (unanswered and cut >= _MANY):
        which = "all" if cut == 1 else f"{cut:.1%}"
        name, limit = _length_limit(groups, config.rollout)
        return f"{which} are cut at {name} ({limit}): raise it"
    if not rewarded and any(task.name in config.judges for task in tasks):
        return "the judge model gives all completions of a problem the same: look at its replies in judge.jsonl"
    if not rewarded:
        return "rewards.weights has none that tells the completions of a problem apart: choose others"
    if unanswered:
        mark = tasks[0].answer.asked_for
        return (
            f"none has an answer {'in' if mark == BOX else 'after'} {mark}: the prompt must ask for it (data.system_prompt, "
            "data.suffix or data.examples)"
            if mark is not None
            and all(task.rewards.extraction == "boxed" and task.answer.asked_for == mark for task in tasks)
            else "no answer was found in any: the prompt must ask for one (data.system_prompt, data.suffix or data.examples)"
        )
    if figures["accuracy"] == 0:
        return (
            f"all are wrong{_example(groups)}: the problems are too hard for this model, or the golds are written in another "
            "form than the answers"
        )
    return (
        "some problems are always solved and the others never: raise rollout.completions_per_problem or "
        "rollout.temperature, or give problems of a difficulty between"
    )


def _length_limit(groups: Sequence[Group], rollout: Rollout) -> tuple[str, int]:
    """Name and value of the setting at which completions are cut."""
    sampling = groups[0].sampling
    if sampling is None or sampling.stage is None:
        return "rollout.max_completion_tokens", rollout.max_completion_tokens
    return f"rollout.stages[{sampling.stage}].max_completion_tokens", sampling.max_completion_tokens


def _example(groups: Sequence[Group]) -> str:
    for group in groups:
        for verdict in group.verdicts:
            if verdict.status is Status.WRONG and verdict.answer:
                return f" (such as {verdict.answer[:60]!r} where the gold is {' or '.join(group.problem.gold)[:60]!r})"
    return ""
