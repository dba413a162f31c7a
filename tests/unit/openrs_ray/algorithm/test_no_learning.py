"""A run that cannot learn says so with the cause, and ends: by the figures of a step, and in the loop."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_run import SimulatedRun
from tiny import make_config
from virtual_time import run

from openrs_ray.algorithm.no_learning import LearningWatch, cause
from openrs_ray.algorithm.step_metrics import step_metrics
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Recurring
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.progress import Progress

GOOD = (Status.CORRECT, "12", 1.0)
WRONG = (Status.WRONG, "12", 0.0)
NONE = (Status.NO_ANSWER, None, 0.0)
LATE = (Status.TIMEOUT, None, None)
Judged = tuple[Status, str | None, float | None]


def group(*judged: Judged, cut: int = 0, position: int = 0) -> Group:
    """The first `cut` completions are truncated."""
    ids, logprobs = np.arange(6, dtype=np.int32), np.zeros(6, dtype=np.float32)
    completions = tuple(
        Rollout.of(
            [Completion(position, i, ids, logprobs, "length" if i < cut else "stop", (VersionSpan(0, 0, 6),), 0)]
        )
        for i in range(len(judged))
    )
    verdicts = tuple(Verdict(status, {}, reward, answer) for status, answer, reward in judged)
    return Group(position, Problem(0, "6+6", (1, 2), ("twelve",)), completions, verdicts)


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    return make_config(tmp_path, **changes)


def watch_steps(watch: LearningWatch, groups: list[Group], first: int, count: int) -> list[str | None]:
    return [watch.step(step, step_metrics(groups), groups) for step in range(first, first + count)]


@pytest.mark.parametrize(
    ("groups", "changes", "expected"),
    [
        ([group(*[NONE] * 4, cut=4)], {}, "all are cut at rollout.max_completion_tokens (24): raise it"),
        ([group(*[NONE] * 4, cut=3)], {}, "75.0% are cut at rollout.max_completion_tokens (24): raise it"),
        ([group(*[NONE] * 4, cut=1)], {}, r"none has an answer in \boxed{}"),
        ([group(*[NONE] * 4)], {}, r"none has an answer in \boxed{}: the prompt must ask for it (data.system_prompt"),
        ([group(*[NONE] * 4)], {"rewards": {"extraction": "any"}}, "no answer was found in any"),
        ([group(*[NONE] * 4)], {"answer": {"kind": "choice"}}, "no answer was found in any"),
        ([group(*[NONE] * 4)], {"answer": {"kind": "exact", "after": "####"}}, "none has an answer after ####: the prompt must"),
        ([group(*[GOOD] * 4)], {}, "all are right: the problems are too easy"),
        ([group(*[GOOD] * 4, cut=4)], {}, "all are right"),
        ([group(*[WRONG] * 4)], {}, "all are wrong (such as '12' where the gold is 'twelve'): the problems are too hard"),
        ([group(*[LATE] * 4)], {}, "none of them could be judged (4 checks timed out, 0 failed)"),
        ([group(*[WRONG] * 4), group(*[GOOD] * 4)], {}, "some problems are always solved and the others never"),
        ([group(*[NONE] * 4)], {"rewards": {"weights": {"format": 1.0}}}, "rewards.weights has none"),
    ],
)  # fmt: skip
def test_the_cause_is_named(tmp_path: Path, groups: list[Group], changes: dict[str, Any], expected: str) -> None:
    assert expected in cause(step_metrics(groups), groups, config(tmp_path, **changes))


def test_a_judge_model_is_blamed_by_its_own_tasks_only(tmp_path: Path) -> None:
    judged = {"name": "judged", "path": "toy", "rewards": {"weights": {"judge": 1.0}, "judge": {"model": "j"}}}
    formal = {"name": "formal", "path": "toy", "rewards": {"weights": {"format": 1.0}}}
    several = RunConfig.model_validate(config(tmp_path).model_dump() | {"data": [judged, formal]})
    for task, expected in (("formal", "rewards.weights has none that tells"), ("judged", "the judge model gives all")):
        of_it = group(*[NONE] * 4)
        groups = [replace(of_it, problem=replace(of_it.problem, task=task))]
        assert cause(step_metrics(groups), groups, several).startswith(expected)


def test_steps_without_spread_are_warned_of_ever_more_rarely_and_end_the_run(tmp_path: Path) -> None:
    watch = LearningWatch(config(tmp_path), ["</s>"])
    said = watch_steps(watch, [group(*[NONE] * 4)] * 4, 1, 19)
    assert [step for step, text in enumerate(said, start=1) if text] == [5, 10]
    assert said[4] is not None and said[4].startswith("nothing was learned in the last 5 steps")
    assert watch.stop is None
    assert watch_steps(watch, [group(*[NONE] * 4)] * 4, 20, 1) == [None]
    assert watch.stop is not None and "20 steps in a row" in watch.stop and "the prompt must ask" in watch.stop
    assert "rollout.max_uniform_steps" in watch.stop


def test_one_group_with_spread_begins_the_count_anew(tmp_path: Path) -> None:
    watch = LearningWatch(config(tmp_path), ["</s>"])
    dull = [group(*[WRONG] * 4)] * 3
    watch_steps(watch, dull, 1, 19)
    watch_steps(watch, [*dull, group(GOOD, WRONG, WRONG, WRONG)], 20, 1)
    assert [bool(text) for text in watch_steps(watch, dull, 21, 6)] == [False] * 4 + [True, False]
    assert watch.stop is None


def test_a_limit_of_0_goes_on_for_ever(tmp_path: Path) -> None:
    watch = LearningWatch(config(tmp_path, rollout={"max_uniform_steps": 0}), ["</s>"])
    assert sum(map(bool, watch_steps(watch, [group(*[WRONG] * 4)], 1, 200))) == 6 and watch.stop is None


@pytest.mark.parametrize(
    ("cut", "of", "limit", "stops"),
    [
        (100, 100, 0.98, True),
        (99, 100, 0.98, True),
        (72, 72, 0.98, True),
        (98, 100, 0.98, False),
        (60, 72, 0.98, False),  # a paper's first step: 42 % of its completions
        (4, 4, 0.98, False),  # too few to say
        (100, 100, 1.0, False),
    ],
)
def test_a_first_step_that_is_cut_off_names_the_stop_tokens(
    tmp_path: Path, cut: int, of: int, limit: float, stops: bool
) -> None:
    """Although the rewards differ: a model that does not stop after its answer may be right."""
    watch = LearningWatch(config(tmp_path, rollout={"max_first_truncated_share": limit}), ["<|im_end|>", "</s>"])
    groups = [group(*[GOOD, WRONG] * (of // 2), cut=cut)]
    watch.step(1, step_metrics(groups), groups)
    assert (watch.stop is not None) == stops
    if watch.stop:
        assert f"of the {of} completions of step 1 were cut at rollout.max_completion_tokens (24)" in watch.stop
        assert "none of the stop tokens (<|im_end|>, </s>) had come" in watch.stop
    later = LearningWatch(config(tmp_path), ["</s>"])
    later.step(2, step_metrics(groups), groups)
    assert later.stop is None, "lengths may grow as far as that in training"


async def attempt(folder: Path, uniform_share: float, **more: Any) -> SimulatedRun:
    """Only its steps, checkpoints and the record of them are real."""
    clock = asyncio.get_running_loop().time
    return SimulatedRun(folder, Progress(), uniform_share, clock=clock, max_uniform_steps=20, **more)


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_whose_rewards_never_differ_is_saved_and_ends(tmp_path: Path, staleness: int) -> None:
    async def scenario() -> SimulatedRun:
        trainer = await attempt(tmp_path, 1.0, staleness=staleness)
        with pytest.raises(Recurring, match=r"20 steps in a row.*: all are right: the problems are too easy"):
            await trainer.loop.run()
        return trainer

    trainer = run(scenario())
    assert trainer.progress.step == 20 and trainer.store.saves == [(20, "kept")]
    assert [text.partition(",")[0] for text in trainer.said] == [
        f"nothing was learned in the last {steps} steps" for steps in (5, 10)
    ]
    assert not (trainer.config.run.path / "result.json").exists()


def test_a_run_that_learns_now_and_then_goes_on(tmp_path: Path) -> None:
    async def scenario() -> SimulatedRun:
        trainer = await attempt(tmp_path, 0.9, steps=60)
        await trainer.loop.run()
        return trainer

    trainer = run(scenario())
    assert trainer.progress.step == 60 and trainer.store.saves[-1] == (60, "kept")
    assert sum(figures["groups_with_spread"] == 0 for figures in trainer.figures) > 20
