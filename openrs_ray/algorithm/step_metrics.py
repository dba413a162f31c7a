"""Figures of a step's completions, and the errors that they may show."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openrs_ray.algorithm.advantages import spread
from openrs_ray.config.quantization import Quantization
from openrs_ray.data.rests import Rested
from openrs_ray.errors import RunError
from openrs_ray.records import FAILED_ENVIRONMENT, Group, Rollout, Status, Verdict
from openrs_ray.rewards.answers.final_form import copies


def correctness(groups: Sequence[Group]) -> np.ndarray:
    """float64 [problems, samples]: 1 correct, 0 wrong or no answer, NaN not judged."""
    return np.array(
        [[float(v.status is Status.CORRECT) if v.status.judged else np.nan for v in group.verdicts] for group in groups]
    )


def step_times(collect_s: float, train_s: float, push_s: float, step_s: float, idle_s: float) -> dict[str, float]:
    """Seconds, and shares of the step in which a side had nothing to do. `idle_s`: nothing sampled, push included."""
    return {
        "collect_s": collect_s,
        "train_s": train_s,
        "push_s": push_s,
        "step_s": step_s,
        "rollout_wait_share": max(0.0, idle_s - push_s) / step_s,
        "learner_wait_share": 1 - (train_s + push_s) / step_s,
    }


def step_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Figures of all sampled groups, replaced ones too. Rewards are means over judged rollouts."""
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    statuses = Counter(verdict.status for verdict in verdicts)
    judged = [verdict for verdict in verdicts if verdict.reward is not None]
    rewarded = Counter(str(verdict.status) for verdict in judged)
    lengths = np.array([rollout.sampled_tokens for rollout in rollouts])
    names = dict.fromkeys(name for verdict in judged for name in verdict.rewards)  # tasks have rewards of their own
    mean = {name: float(np.mean([v.rewards[name] for v in judged if name in v.rewards])) for name in names}
    return {
        "reward": float(np.mean([verdict.reward for verdict in judged])) if judged else float("nan"),
        **{f"reward_{name}": value for name, value in mean.items()},
        "accuracy": share_of_checked(rewarded, Status.CORRECT),
        "no_answer_share": share_of_checked(rewarded, Status.NO_ANSWER),
        "copied_expressions": float(sum(map(_copied, groups))),
        "timeouts": float(statuses[Status.TIMEOUT]),
        "errors": float(statuses[Status.ERROR]),
        "not_judged": float(sum(map(_not_judged, verdicts))),
        "unparseable_golds": float(statuses[Status.UNPARSEABLE_GOLD]),
        "groups_with_spread": float(spread(np.stack([group.rewards() for group in groups])).sum()),
        "truncated_share": truncated_share(groups),
        "sampled_tokens": float(lengths.sum()),
        "mean_length": float(lengths.mean()),
        "max_length": float(lengths.max()),
        **_turn_metrics(rollouts, verdicts),
    }


SHARES = ("accuracy", "no_answer_share")
"""Ends of the names of shares of the judged completions; older versions wrote 0 where nothing was judged."""


def truncated_share(groups: Sequence[Group]) -> float:
    return float(np.mean([rollout.truncated for group in groups for rollout in group.rollouts]))


def share_of_checked(rewarded: Mapping[Any, int], status: Status) -> float:
    """Share of a status among the judged completions that have a gold; NaN where there is none.

    Args:
        rewarded: number of completions with a reward, by status.
    """
    checked = sum(rewarded.values()) - rewarded.get(Status.UNCHECKED, 0)
    return rewarded.get(status, 0) / checked if checked else float("nan")


def _turn_metrics(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Nothing for rollouts of one turn each."""
    turns = [rollout.turns for rollout in rollouts]
    failures = sum(verdict.detail.startswith(FAILED_ENVIRONMENT) for verdict in verdicts)
    if max(turns) == 1 and not failures:
        return {}
    return {"mean_turns": float(np.mean(turns)), "environment_failures": float(failures)}


def task_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """The main figures of each task, where there are several. Example: {"task/sums/accuracy": 0.5, ...}"""
    by_task: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_task[group.problem.task].append(group)
    shown = ("reward", "accuracy", "groups_with_spread", "mean_length", "truncated_share")
    figures: dict[str, float] = {}
    for task in sorted(filter(None, by_task)):
        all_of_it = step_metrics(by_task[task])
        figures[f"task/{task}/groups"] = float(len(by_task[task]))
        figures |= {f"task/{task}/{name}": all_of_it[name] for name in shown}
    return figures


def rest_metrics(rested: Sequence[Rested]) -> dict[str, float]:
    """Positions passed over, in all and by task."""
    by_task = Counter(each.place.task for each in rested if each.place.task)
    return {"rested": float(len(rested)), **{f"task/{task}/rested": float(n) for task, n in sorted(by_task.items())}}


def _copied(group: Group) -> int:
    """Correct answers that copy an expression of their problem: the cheapest way to be right."""
    answers = Counter(verdict.answer for verdict in group.verdicts if verdict.status is Status.CORRECT)
    expressions = ((answer, count) for answer, count in answers.items() if answer and not answer.endswith("\n"))
    return sum(count for answer, count in expressions if copies(answer, group.problem.text))  # programs end with a line


def check_judged(groups: Sequence[Group], step: int, limit: float) -> None:
    """RunError when too many checks ended without judgement."""
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    statuses = Counter(verdict.status for verdict in verdicts)
    said_none = sum(map(_not_judged, verdicts))
    unjudged = statuses[Status.TIMEOUT] + statuses[Status.ERROR] + said_none
    if unjudged > limit * statuses.total():
        none = f", {said_none} were not judged by a reward of your own" if said_none else ""
        raise RunError(
            f"in step {step}, {statuses[Status.TIMEOUT]} checks timed out and {statuses[Status.ERROR]} failed{none} of "
            f"{statuses.total()}, more than rewards.max_unjudged_share ({limit:g}): raise rewards.deadline_s or "
            f"rewards.memory_gib, or look at the details in the record{first_detail(groups)}"
        )


def _not_judged(verdict: Verdict) -> bool:
    """True where a reward of the user's own returned None for an answer that was checked."""
    return verdict.status.judged and verdict.reward is None


def first_detail(groups: Sequence[Group]) -> str:
    """The reason of one completion without judgement, the most frequent. Example: ", such as: my_rewards.py:f raised ..."""
    reasons = Counter(v.detail for group in groups for v in group.verdicts if v.reward is None and v.detail)
    return f", such as: {reasons.most_common(1)[0][0]}" if reasons else ""


def check_mismatch(mismatch: float, step: int, limit: float, quantization: Quantization = "none") -> None:
    """RunError when learner and sampler disagree about the sampled tokens."""
    if not mismatch <= limit:  # NaN fails too
        coarse = f"{too_coarse(quantization)}, or " if quantization != "none" else ""
        raise RunError(
            f"in step {step} learner and sampler disagree about the sampled tokens (k3 divergence {mismatch:.3g} per token, "
            f"more than push.max_mismatch_kl {limit:g}): {coarse}the engines do not sample from the policy that is trained or, "
            "with rollout.staleness, it changes too much from version to version: lower learner.learning_rate"
        )


def too_coarse(quantization: Quantization) -> str:
    """Advice for a disagreement that quantization explains."""
    return f"rollout.quantization {quantization} is too coarse for this model (set it to none, or raise this limit)"
