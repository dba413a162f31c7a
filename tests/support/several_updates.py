"""A learner group around the one rank of this process, groups for it, and a loss of the learner in the middle of a step."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from system import judged_group
from tiny import make_sequences

from actors.learner import group as module
from actors.learner.group import LearnerGroup
from actors.learner.rank import LearnerRank
from openrs_ray.errors import Lost
from openrs_ray.records import Completion, Group, Problem, VersionSpan

GROUPS, SAMPLES, UPDATES, STEPS = 4, 4, 2, 3
NOTHING = dict.fromkeys(("completion_tokens", "packed_tokens", "seconds", "learning_rate", "mismatch_kl"), 1.0)


def make_groups(step: int) -> list[Group]:
    """Groups of a step: random tokens, and log-probabilities so far off that ratios are clipped."""
    drawn, made = make_sequences(GROUPS * SAMPLES, seed=step), []
    for position in range(GROUPS):
        members = drawn[position * SAMPLES : (position + 1) * SAMPLES]
        problem = Problem(position, "1 + 1", tuple(map(int, members[0].prompt_ids)), ("2",))
        completions = [
            Completion(position, sample, one.completion_ids, one.sampler_logprobs, "stop", _spans(one, step), 0)
            for sample, one in enumerate(members)
        ]
        made.append(judged_group(position, problem, completions, seed=100 * step))
    return made


def _spans(one: Any, step: int) -> tuple[VersionSpan, ...]:
    return (VersionSpan(step - 1, 0, len(one.completion_ids)),)


class Actor:
    """Stands in for the actor of a rank: calls the rank if it is this process's, and does nothing otherwise."""

    def __init__(self, of: LearnerRank, number: int) -> None:
        self.of, self.number = of, number

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=partial(self._call, method))

    async def _call(self, method: str, *arguments: Any) -> Any:
        if method in ("address", "processes", "start", "sees"):  # it has been started
            return ("seen",) if method == "sees" else ()
        if self.number == self.of.rank:
            return getattr(self.of, method)(*arguments)
        return NOTHING


def learner_group(new: Callable[[], LearnerRank], saved: Path | None = None) -> LearnerGroup:
    """A group around this process's rank; `saved`, a checkpoint after step 1, lets it rebuild lost ranks."""
    history: Any = None
    if saved:
        checkpoint = SimpleNamespace(folder=saved, step=1)
        history = SimpleNamespace(run_folder=saved, newest=partial(_answer, (checkpoint, [])), groups=make_groups)
        module.end_actor, module._REBUILD_PAUSE_S = partial(_answer, None), 0.0  # type: ignore[assignment]
    first = new()
    ranks = iter([first, *(new() for _ in range(1 if saved else 0))])

    def actors() -> list[Any]:
        of = next(ranks)
        return [Actor(of, number) for number in range(of.world_size)]

    return LearnerGroup(first.config, actors, history=history)


async def _answer(answer: Any, *_: Any) -> Any:
    return answer


async def train(group: LearnerGroup, steps: range) -> list[dict[str, float]]:
    return [(await group.train(make_groups(step), step)).metrics for step in steps]


def die_before(rank: LearnerRank, update: int) -> None:
    """All ranks are lost before their update number `update` = 1, 2, ..."""
    done, take = 0, rank.train_step

    def step(*arguments: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        if done == update:
            raise Lost("learner rank 0 died")
        return take(*arguments)

    rank.train_step = step  # type: ignore[method-assign]


def hand_made_advantages(group: Group) -> np.ndarray:
    """As the paper writes it, with the default epsilon; independent of the code."""
    rewards = np.array([verdict.reward for verdict in group.verdicts], dtype=np.float64)
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
