"""A learner group that loses a rank rebuilds itself: every step once, from checkpoint, record and what is not yet recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from system import judged_group, system_config

from actors.learner import group as module
from actors.learner.group import LearnerGroup, LearnerLost
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Lost, RunError
from openrs_ray.records import Completion, Group, Problem, TokenLogprobs, VersionSpan
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.step_settings import Changes, StepSettings

PROBLEM = Problem(0, "1+1", (1, 2), ("2",))
FIGURES = dict.fromkeys(("completion_tokens", "packed_tokens", "seconds", "learning_rate", "mismatch_kl"), 1.0)


class Rank:
    """A rank whose weights are the list of steps trained on. It dies at a given call, after a number of updates."""

    updates = 1

    def __init__(self, dies: str = "") -> None:
        self._dies = dies
        self.weights: list[int] = []
        self.prompts: list[set[int]] = []
        """First tokens of the prompts of each update."""
        self.factors: list[float] = []
        """Learning rate factors of each update."""

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            if f"{method} {len(self.weights) + 1}" == self._dies:
                raise Lost("learner rank 0 died")
            if method == "load":
                self.weights = [
                    step for step in range(1, int(Path(arguments[0]).name) + 1) for _ in range(self.updates)
                ]
            if method == "train_step":
                self.weights.append(arguments[2])
                self.factors.append(arguments[-1].learning_rate_factor)
                self.prompts.append({int(ids) for batch in arguments[0] for ids in batch.token_ids[:1]})
                self.scored = [TokenLogprobs(batch.behaviour_logprobs) for batch in arguments[0]]
            if method == "token_logprobs":
                return self.scored
            return {"address": (), "train_step": FIGURES, "sees": True, "push_buckets": tuple(self.weights)}.get(method)

        return SimpleNamespace(remote=lambda *arguments: asyncio.ensure_future(call(*arguments)))


class Engines:
    def __init__(self) -> None:
        self.said: list[str] = []

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        self.said.append("aside")
        yield
        self.said.append("back")

    async def leave_learner(self) -> None:
        self.said.append("left")


class History:
    """A checkpoint of step 2, and a record to step `recorded`."""

    run_folder = Path("/runs/r")

    def __init__(self, recorded: int) -> None:
        self.recorded = recorded

    async def newest(self) -> Any:
        return SimpleNamespace(folder=Path("2"), step=2), ["checkpoint 3 is damaged"]

    def groups(self, step: int) -> list[Group]:
        assert step <= self.recorded, "the record has nothing of a step that is not finished"
        return groups(step)

    def settings(self, step: int, config: RunConfig) -> StepSettings:
        assert step <= self.recorded, "the metrics have nothing of a step that is not finished"
        return settings(config, step)


def settings(config: RunConfig, step: int) -> StepSettings:
    return StepSettings.of(config, Changes(learning_rate_factor=1 / step))


def groups(step: int) -> list[Group]:
    ids = [(5 + step, 6), (7, 8)]
    made = [
        Completion(0, i, np.array(some), np.zeros(2), "stop", (VersionSpan(0, 0, 2),), 0) for i, some in enumerate(ids)
    ]
    return [judged_group(0, PROBLEM, made, step)]


def scenario(tmp_path: Path, dies: str, use: Callable[[LearnerGroup, Any], Any]) -> tuple[list[int], list[str], int]:
    """Weights at the end, what the engines and the display were told, and the learner's life."""
    ranks = [Rank(dies)]
    engines, told, history = Engines(), list[str](), History(0)

    def new() -> list[Any]:
        if told:
            ranks.append(Rank())
        return ranks[-1:]

    async def whole() -> int:
        learner = LearnerGroup(system_config(tmp_path, tmp_path), new, engines, history, told.append)  # type: ignore[arg-type]
        await learner.start()
        await use(learner, history)
        return learner.life

    life = asyncio.run(whole())
    return ranks[-1].weights, engines.said + told, life


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(*what: Any) -> None:
        pass

    monkeypatch.setattr(module, "end_actor", end)
    monkeypatch.setattr(module, "_REBUILD_PAUSE_S", 0.0)


async def five_steps(learner: LearnerGroup, history: History) -> None:
    for step in range(1, 6):
        await learner.train(groups(step), step, settings(learner.config, step))
        history.recorded = step


@pytest.mark.parametrize("dies", ["train_step 3", "train_step 5"])
def test_a_step_in_which_a_rank_dies_is_trained_once(tmp_path: Path, dies: str) -> None:
    weights, said, life = scenario(tmp_path, dies, five_steps)
    assert weights == [1, 2, 3, 4, 5] and life == 2
    assert said.count("left") == 1 and "checkpoint 3 is damaged" in said
    assert any("the learner is lost and is rebuilt" in text for text in said)


def test_a_rebuilt_learner_trains_each_step_with_its_own_settings(tmp_path: Path) -> None:
    made: list[Rank] = []

    def new() -> list[Any]:
        made.append(Rank() if made else Rank("train_step 5"))
        return made[-1:]

    async def whole() -> None:
        learner = LearnerGroup(system_config(tmp_path, tmp_path), new, Engines(), History(0))  # type: ignore[arg-type]
        await learner.start()
        await five_steps(learner, learner.history)  # type: ignore[arg-type]

    asyncio.run(whole())
    assert [one.factors for one in made] == [[1, 1 / 2, 1 / 3, 1 / 4], [1 / 3, 1 / 4, 1 / 5]]


class RankOfTwoUpdates(Rank):
    updates = 2


@pytest.mark.parametrize("dies", ["train_step 5", "train_step 6", "train_step 10"])
def test_a_loss_between_two_updates_repeats_all_of_the_step_and_no_other(tmp_path: Path, dies: str) -> None:
    """Lost in step 3, which is not recorded, it repeats both updates; later, also the steps recorded since checkpoint 2."""

    def two(step: int) -> list[Group]:
        made = []
        for position in (0, 1):
            ids = [Completion(position, i, np.array([7, 8 + i]), np.zeros(2), "stop", (VersionSpan(step - 1, 0, 2),), 0)
                   for i in range(2)]  # fmt: skip
            made.append(judged_group(position, Problem(position, "1+1", (10 * step + position,), ("2",)), ids, step))
        return made

    ranks = [RankOfTwoUpdates(dies)]

    def new() -> list[Any]:
        if ranks[0].weights:
            ranks.append(RankOfTwoUpdates())
        return ranks[-1:]

    class Recorded(History):
        def groups(self, step: int) -> list[Group]:
            super().groups(step)
            return two(step)

    async def whole() -> None:
        learner, history = {"updates_per_batch": 2}, Recorded(0)
        config = system_config(tmp_path, tmp_path, learner=learner, rollout={"problems_per_step": 2})
        group = LearnerGroup(config, new, Engines(), history)  # type: ignore[arg-type]
        await group.start()
        for step in range(1, 6):
            await group.train(two(step), step)
            history.recorded = step

    asyncio.run(whole())
    lost, rebuilt = ranks
    assert rebuilt.weights == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert rebuilt.prompts == [{10 * step + share} for step in (3, 4, 5) for share in (0, 1)]
    assert len(lost.weights) == int(dies.split()[1]) - 1


def test_a_rank_that_dies_in_a_push_comes_back_with_the_step_that_is_not_recorded(tmp_path: Path) -> None:
    async def use(learner: LearnerGroup, history: History) -> None:
        await five_steps(learner, history)
        history.recorded = 4
        pushed = await learner.run(lambda: learner.each("push_buckets", "list its parameters"))
        assert pushed == [(1, 2, 3, 4, 5)]

    assert scenario(tmp_path, "push_buckets 6", use)[0] == [1, 2, 3, 4, 5]


def test_without_a_history_a_loss_is_raised(tmp_path: Path) -> None:
    async def use() -> None:
        learner = LearnerGroup(system_config(tmp_path, tmp_path), lambda: [Rank("train_step 1")])
        with pytest.raises(LearnerLost, match="learner rank 0 died"):
            await learner.train(groups(1), 1)

    asyncio.run(use())


def test_a_step_s_settings_are_those_of_its_own_line_that_counts(tmp_path: Path) -> None:
    """The line of a superseded attempt, and those of other steps, say something else."""
    config = system_config(tmp_path, tmp_path)
    for from_step, steps, factor in ((0, (1, 2, 3), 1.0), (1, (2, 3), 0.5)):
        log = MetricsLog(tmp_path, start_attempt(tmp_path, from_step))
        for step in steps:
            log.write(step, StepSettings.of(config, Changes(learning_rate_factor=factor / step)).metrics())
        log.close()
    history = module.History(tmp_path, CheckpointStore(tmp_path / "checkpoints"), [PROBLEM])
    assert [history.settings(step, config).learning_rate_factor for step in (1, 2, 3)] == [1.0, 0.25, 0.5 / 3]
    with pytest.raises(RunError, match="do not hold step 4"):
        history.settings(4, config)
