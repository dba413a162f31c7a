"""Held-out accuracy, or mean reward, before the first step, after the last, and every `evaluation.every_steps`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from actors.cluster.deadlines import within
from actors.loop.collector import Sampling
from actors.loop.limits import Limits
from actors.loop.writer import RunWriter
from openrs_ray.algorithm.step_metrics import check_judged
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.held_out import HeldOutScores, held_out_scores
from openrs_ray.records import Group, Problem, age_metrics
from openrs_ray.run.budget import Budget, LimitReached, Work
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.progress import Progress
from openrs_ray.run.spans import traced


@dataclass(frozen=True)
class Evaluation:
    """Evaluates each step once, and again after a resume from a checkpoint that was saved before its evaluation."""

    config: RunConfig
    held_out: Sequence[Problem]
    sample: Callable[[int, Problem, Sampling], Awaitable[Group]]
    give_up: Callable[[], Awaitable[None]]
    is_kept: Callable[[int], bool]
    """True if a step's policy has been saved to stay."""
    writer: RunWriter
    limits: Limits
    budget: Budget
    display: RunDisplay

    async def if_due(self, progress: Progress) -> Progress:
        step, last, every = progress.step, self.config.run.steps, self.config.evaluation.every_steps
        due = step in (0, last) or (every and step % every == 0)
        if not due or self._is_done(progress):
            return progress
        scores = await self._scores(step)
        if step == 0:
            progress = replace(progress, before=scores.accuracy, tasks_before=scores.tasks)
        else:
            progress = replace(progress, after=scores.accuracy, tasks_after=scores.tasks)
        return replace(progress, evaluated=step)

    async def after_limit(self, progress: Progress) -> Progress:
        """Evaluate the saved policy, as far as the reserve goes."""
        if self._is_done(progress):
            return progress
        try:
            self.budget.check("evaluation", "end")
            await self.give_up()
            scores = await self._scores(progress.step)
            return replace(progress, after=scores.accuracy, tasks_after=scores.tasks, evaluated=progress.step)
        except LimitReached:
            self.display.warn(f"no evaluation after step {progress.step}: it would cost more than is left")
            return progress

    def _is_done(self, progress: Progress) -> bool:
        return not self.held_out or progress.evaluated == progress.step

    @traced("evaluate", "step")
    async def _scores(self, step: int) -> HeldOutScores:
        """With their 95 % intervals; recorded like every other completion."""
        self.display.status(f"evaluating policy version {step} on {len(self.held_out)} held-out problems")
        reserve: tuple[Work, ...] = ("end",) if self.is_kept(step) else ("kept", "end")
        with self.budget.timing("evaluation"):
            groups = await self.limits.interruptible(self._groups(step), *reserve)
        if oldest := age_metrics(groups, step)["age_max"]:
            raise RunError(
                f"the evaluation of policy version {step} was given tokens that are {oldest:.0f} versions old"
            )
        check_judged(groups, step, self.config.rewards.max_unjudged_share)
        scores = held_out_scores(groups, self.config.tasks)
        await self.writer.evaluation(step, groups, scores)
        return scores

    async def _groups(self, step: int) -> list[Group]:
        plan, deadline_s = Sampling.evaluation(self.config, step), self.config.rollout.deadline_s
        groups = asyncio.gather(*(self.sample(place, problem, plan) for place, problem in enumerate(self.held_out)))
        what = f"finish the {len(self.held_out)} groups of an evaluation (rollout.deadline_s is {deadline_s:.0f})"
        return list(await within(deadline_s, "the rollout workers", what, groups))
