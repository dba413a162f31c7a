"""Judgement by reasoning-gym and verifiers, in checking processes: only there are the libraries imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openrs_ray.records import Status
from openrs_ray.rewards.records import JudgeItem, RewardInput

_RIGHT = 1.0 - 1e-9
Seen = JudgeItem | RewardInput


@dataclass(frozen=True, slots=True)
class Judged:
    status: Status
    score: float
    answer: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    """Unweighted rewards that make up the score, by name."""


def judged_by_reasoning_gym(seen: Seen) -> Judged:
    """The library's score; the answer is right where that is 1."""
    return _once("reasoning_gym", seen, _reasoning_gym)


def judged_by_verifiers(seen: Seen) -> Judged:
    """The reward of the environment, which knows no right and wrong."""
    return _once("verifiers", seen, _verifiers)


def library_warm_up(task: Any) -> tuple[JudgeItem, ...]:
    """Items that load what judges a task (`openrs_ray.config.task`): that takes seconds, of no completion's deadline."""
    if task.answer.kind not in LIBRARIES:
        return ()
    name, parameters = task.data.path.partition(":")[2], task.data.parameters
    row = {"environment": (name, parameters)} if task.answer.kind == "verifiers" else {"dataset": name}
    return (JudgeItem("", 0, "stop", (), row=row, task=task.name),)


def _reasoning_gym(seen: Seen) -> Judged:
    from openrs_ray.rewards.libraries import reasoning_gym as library

    if "metadata" not in seen.row:  # warms up: the library is imported
        return Judged(Status.NO_ANSWER, 0.0)
    answer = library.found_answer(seen.text)
    score = library.score(answer, seen.row)
    if answer is None:
        return Judged(Status.NO_ANSWER, score)
    return Judged(Status.CORRECT if score >= _RIGHT else Status.WRONG, score, answer)


def _verifiers(seen: Seen) -> Judged:
    from openrs_ray.rewards.libraries import verifiers as library

    if not seen.row:
        return Judged(Status.UNCHECKED, 0.0)
    env = library.environment(*seen.row["environment"])
    if "task" not in seen.row:  # warms up: the environment is loaded
        return Judged(Status.UNCHECKED, 0.0)
    scored = library.scored(env, seen.row, seen.turns or (seen.text,), seen.finish_reason)
    return Judged(Status.UNCHECKED, scored.reward, parts=scored.rewards)


def _once(kind: str, seen: Seen, judge: Callable[[Seen], Judged]) -> Judged:
    """The check and the reward of one completion ask for the same judgement, which may be slow: the last one is kept."""
    global _last
    known, judged = _last
    if known is None or known[0] != kind or known[1] is not seen.row or known[2:] != (seen.text, seen.turns):
        judged = judge(seen)
        _last = ((kind, seen.row, seen.text, seen.turns), judged)
    assert judged is not None
    return judged


_last: tuple[tuple[Any, ...] | None, Judged | None] = (None, None)


def _checked(judge: Callable[[Seen], Judged], item: JudgeItem) -> tuple[Status, str | None]:
    judged = judge(item)
    return judged.status, judged.answer


def _by_reasoning_gym(item: JudgeItem) -> tuple[Status, str | None]:
    return _checked(judged_by_reasoning_gym, item)


def _by_verifiers(item: JudgeItem) -> tuple[Status, str | None]:
    return _checked(judged_by_verifiers, item)


LIBRARIES: Mapping[str, Callable[[JudgeItem], tuple[Status, str | None]]] = {
    "reasoning_gym": _by_reasoning_gym,
    "verifiers": _by_verifiers,
}
"""Checks by `answer.kind`; the rewards of the same names run the libraries' code, too."""
