"""From a drawn problem to a finished group: its rollouts are sampled and judged beside each other."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from actors.cluster.restarted import Restarted
from actors.cluster.together import Together
from actors.pools.messages import Judged, SampledItem
from actors.rollout.worker import Request
from openrs_ray.algorithm.unusable import without_judgement
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import Texts
from openrs_ray.environments.environment import Environment
from openrs_ray.environments.reply import RolloutFailed
from openrs_ray.errors import RunError, UserError
from openrs_ray.records import Completion, Group, Problem, Rollout, SamplingSettings, Verdict
from openrs_ray.rewards.judge import OwnRewards, group_item, judge_group, with_own_group_rewards
from openrs_ray.rewards.judge_model.replies import Spending
from openrs_ray.rewards.judge_model.settings import RELATIVE_NAME, SINGLE_NAME
from openrs_ray.rewards.own import OF_ALL
from openrs_ray.rewards.records import JudgeItem
from openrs_ray.rewards.registry import weighted_parameters
from openrs_ray.run.spans import span, traced
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.seeds import completion_seed, turn_seed

_JUDGE_PAUSE_S = 0.02  # between two messages to the reward pool: each costs as much as judging several completions

Pending = tuple[Rollout, Problem, int | None]
"""With the length that no reward's lengths exceed."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """A group's sampling; phase and step enter the seeds. Example: Sampling("train", step=0, samples=6, temperature=0.7)"""

    phase: str
    step: int
    samples: int
    temperature: float
    max_tokens: int | None = None
    """Most that may follow the prompt; None: `rollout.max_completion_tokens`."""
    stage: int | None = None
    """Of `rollout.stages`."""

    @classmethod
    def training(cls, config: RunConfig, settings: StepSettings) -> "Sampling":
        stage = settings.stage if config.rollout.stages else None
        samples = config.rollout.completions_per_problem
        return cls("train", 0, samples, settings.temperature, settings.max_completion_tokens, stage)

    @classmethod
    def evaluation(cls, config: RunConfig, step: int) -> "Sampling":
        asked = config.evaluation
        return cls("evaluation", step, asked.samples, asked.temperature, config.max_evaluated_tokens)

    def settings(self, config: RunConfig) -> SamplingSettings:
        return SamplingSettings(self.temperature, self.most(config), self.stage)

    def most(self, config: RunConfig) -> int:
        return config.rollout.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def judged_within(self, config: RunConfig) -> int | None:
        """Length that no reward's lengths exceed; None in a run without stages."""
        return self.most(config) if config.rollout.stages else None


class Samples(Protocol):
    """Engines that sample."""

    async def sample(self, request: Request) -> Completion: ...


@dataclass
class Turns:
    """Implements `openrs_ray.environments.environment.Engines` for one rollout."""

    pool: Samples
    config: RunConfig
    position: int
    sample_number: int
    problem: Problem
    plan: Sampling
    turn: int = 0

    @property
    def max_tokens(self) -> int:
        return self.plan.most(self.config)

    async def sample(self, prompt_ids: Sequence[int], max_tokens: int | None = None) -> Completion:
        place, plan = (self.position, self.sample_number), self.plan
        left = len(self.problem.prompt_ids) + self.max_tokens - len(prompt_ids)
        if left <= 0:
            nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
            return Completion(*place, *nothing, "length", (), worker=-1)
        seed = turn_seed(completion_seed(self.config.run.seed, plan.phase, plan.step, *place), self.turn)
        self.turn += 1
        most = left if max_tokens is None else min(left, max_tokens)
        # All requests of a problem share one array of its ids, so that a message of many requests holds it once.
        ids = self.problem.prompt_ids if prompt_ids is self.problem.prompt_ids else tuple(map(int, prompt_ids))
        return await self.pool.sample(Request(*place, ids, seed, plan.temperature, most))


def judge_items(rollouts: Sequence[Rollout], problem: Problem, texts: Sequence[Texts]) -> list[JudgeItem]:
    """Items for judges that come after the checks, of single rollouts or groups. Only the checks need the turns."""
    return [
        JudgeItem(
            text=own.judged,
            token_count=rollout.sampled_tokens,
            finish_reason=rollout.finish_reason,
            gold=problem.gold,
            problem=problem.text,
            row=problem.row,
            task=problem.task,
        )
        for rollout, own in zip(rollouts, texts, strict=True)
    ]


@dataclass(eq=False)
class Collector:
    """Makes groups, each beside others and through pushes. Rollouts are judged as they finish."""

    config: RunConfig
    pool: Samples
    reward_pool: Any
    """Restarted by Ray; `report` is told of it."""
    environments: Mapping[str, Environment]
    """By task."""
    report: Callable[[str], None]
    spent: Callable[[Spending], None] = lambda spending: None
    """Told what judge models have cost so far."""
    own: OwnRewards = field(default_factory=dict)
    """Rewards of the user's own."""
    log: Callable[[str], None] = lambda line: None
    """Told the lines that own rewards print."""

    def __post_init__(self) -> None:
        self._tasks = {task.name: task for task in self.config.tasks}
        self.rewards = Restarted("the reward pool", self.config.rollout.deadline_s, self.report)
        self.judging = 0  # completions that wait for their verdict
        self._judging: Together[Pending, Judged] = Together(self._judge, _JUDGE_PAUSE_S)

    async def training_group(self, position: int, problem: Problem, settings: StepSettings) -> Group:
        return await self.group(position, problem, Sampling.training(self.config, settings))

    @traced("group", "position")
    async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
        """RunError when a worker, the environment or the reward pool failed."""
        samples = [
            asyncio.ensure_future(self._sample(position, sample, problem, plan)) for sample in range(plan.samples)
        ]
        try:
            rollouts, judged = zip(*await asyncio.gather(*samples), strict=True)
        finally:
            for task in samples:
                task.cancel()
        verdicts, texts = zip(*((each.verdict, each.texts) for each in judged), strict=True)
        if RELATIVE_NAME in self._tasks[problem.task].rewards.weights and self._asks_judge(problem, plan):
            verdicts = await self._compared(judge_items(rollouts, problem, texts), verdicts)
        lengths = [rollout.sampled_tokens for rollout in rollouts]
        rewards = self._tasks[problem.task].rewards
        verdicts = judge_group(verdicts, lengths, rewards.weights, weighted_parameters(rewards))
        if any(one.judges == OF_ALL for one in self.own.get(problem.task, {}).values()):
            verdicts = await self._rewarded_by_own(judge_items(rollouts, problem, texts), verdicts)
        whole = tuple(each.whole for each in texts)
        return Group(position, problem, rollouts, verdicts, whole, plan.settings(self.config))

    async def _sample(self, position: int, sample: int, problem: Problem, plan: Sampling) -> tuple[Rollout, Judged]:
        turns = Turns(self.pool, self.config, position, sample, problem, plan)
        failed: Verdict | None = None
        try:
            with span("rollout", phase=plan.phase, position=position, sample=sample) as seen:
                rollout = await self.environments[problem.task].rollout(problem, turns)
                seen["tokens"] = rollout.sampled_tokens
        except RolloutFailed as error:
            rollout, failed = error.rollout, Verdict(error.status, {}, None, detail=error.detail)
        except (RunError, UserError):
            raise
        except Exception as error:  # whatever an environment of the user's own raises
            raise self._failed(problem, position, sample, f"failed with {type(error).__name__}: {error}") from error
        self._check(rollout, problem, turns)
        self.judging += 1
        try:
            return rollout, await self._verdict(rollout, problem, plan, failed)
        finally:
            self.judging -= 1

    async def _verdict(self, rollout: Rollout, problem: Problem, plan: Sampling, failed: Verdict | None) -> Judged:
        pending = rollout, problem, plan.judged_within(self.config)
        judged = await (self._decoded(rollout, problem, failed) if failed else self._judging.ask(pending))
        verdict = without_judgement(rollout, judged.verdict)
        if SINGLE_NAME in self._tasks[problem.task].rewards.weights and self._asks_judge(problem, plan):
            (item,) = judge_items([rollout], problem, [judged.texts])
            verdict = await self._judged_by_model(item, verdict)
        return Judged(verdict, judged.texts)

    async def _decoded(self, rollout: Rollout, problem: Problem, verdict: Verdict) -> Judged:
        """A rollout whose verdict is already known, with its texts."""
        item = SampledItem.of(rollout, problem)
        (texts,) = await self._asked("decode 1 completion", lambda: self.reward_pool.texts.remote([item]))
        return Judged(verdict, texts)

    def _asks_judge(self, problem: Problem, plan: Sampling) -> bool:
        """True in training, and in evaluations of answers that nothing else judges."""
        return plan.phase == "train" or not self._tasks[problem.task].right_or_wrong

    async def _judged_by_model(self, item: JudgeItem, verdict: Verdict) -> Verdict:
        """Asked for one by one: a judge model that is late for this one keeps no other waiting."""
        if verdict.reward is None:
            return verdict
        judged: Verdict
        judged, spending = await self._asked(
            "judge 1 completion", lambda: self.reward_pool.ask_judge.remote(item, verdict)
        )
        self.spent(spending)
        return judged

    async def _compared(self, items: Sequence[JudgeItem], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
        judged: tuple[Verdict, ...]
        judged, spending = await self._asked(
            "compare a group", lambda: self.reward_pool.ask_judge_of_group.remote(items, verdicts)
        )
        self.spent(spending)
        return judged

    async def _rewarded_by_own(self, items: Sequence[JudgeItem], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
        """The verdicts with the user's own rewards that see the whole group."""
        item = group_item(items, verdicts)
        if item is None:
            return tuple(verdicts)
        found = await self._asked("judge a group", lambda: self.reward_pool.reward_group.remote(item))
        await self._log_printed()
        return with_own_group_rewards(verdicts, found, self._tasks[item.task].rewards.weights)

    async def _log_printed(self) -> None:
        for line in await self._asked("say what was printed", lambda: self.reward_pool.printed.remote()):
            self.log(line)

    def _check(self, rollout: Rollout, problem: Problem, turns: Turns) -> None:
        """RunError for a rollout that would be recorded or trained on wrongly."""
        position, sample, most, length = turns.position, turns.sample_number, turns.max_tokens, len(rollout.token_ids)
        section = "evaluation" if turns.plan.phase == "evaluation" else "rollout"
        limit = f"{section}.max_completion_tokens" if turns.plan.stage is None else "max_completion_tokens of its stage"
        faults = {
            "is another one's": (rollout.position, rollout.sample) != (position, sample),
            "has no sampled token": not rollout.sampled.any(),
            f"has {length} tokens ({limit} is {most})": length > most,
            "has sampled tokens of no policy version, or given ones of some": not rollout.versions_cover,
        }
        if found := [fault for fault, there in faults.items() if there]:
            raise self._failed(problem, position, sample, found[0])

    def _failed(self, problem: Problem, position: int, sample: int, what: str) -> RunError:
        name = type(self.environments[problem.task]).__name__
        return RunError(f"environment {name}: the rollout of position {position}, sample {sample} {what}")

    async def _judge(self, batch: Sequence[tuple[Pending, asyncio.Future[Judged]]]) -> None:
        items = [SampledItem.of(*pending) for pending, _ in batch]
        what = f"judge {len(items)} completions"
        positions = sorted({rollout.position for (rollout, *_), _ in batch})
        with span("judge", positions=positions, completions=len(batch)):
            answers: list[Judged] = await self._asked(what, lambda: self.reward_pool.judge_rollouts.remote(items))
        if any(self.own.values()):
            await self._log_printed()
        for judged, (_, answer) in zip(answers, batch, strict=True):
            if not answer.done():
                answer.set_result(judged)

    async def _asked(self, what: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The reward pool's answer; asked again when it is lost, since judging twice does no harm."""
        return await self.rewards.ask(what, ask)
