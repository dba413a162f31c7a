"""The asynchronous loop: engines sample for the next steps while the learner works on this one.

One step, and what it waits for:

    admit       positions into the slots that are free        nobody: their completions are requested and go on by themselves
    take        groups that are ready, all that are due       rollout workers and reward pool (rollout.deadline_s)
                (one that is to be replaced frees its slot
                for the next position when it is finished)
    train       one optimizer step                            learner ranks (learner.deadline_s); engines sample on meanwhile
    push        the new weights, proven, as version = step    learner rank 0 and every engine (push.deadline_s); completions
                                                              in flight pause, take the weights, and go on
    write       as in the synchronous loop                    the disk

Who wakes whom: a finished completion wakes its group, a finished group wakes `take`, a finished push frees the slots of the
groups it brought. `actors.loop.lookahead` says why no token is older than `rollout.staleness` versions. Everything else (start,
save, evaluate, stop) is the synchronous trainer's.
"""

import time
from collections.abc import Sequence
from typing import Any

from actors.loop.batch import Drawn
from actors.loop.lookahead import GroupsAhead
from actors.loop.trainer import COLLECTED, Trainer
from openrs_ray.algorithm.step_metrics import check_judged, step_times
from openrs_ray.errors import RunError
from openrs_ray.records import Group, Problem, age_metrics
from openrs_ray.run.spans import span


class OverlappedTrainer(Trainer):
    """The trainer for `rollout.staleness` above 0."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        rollout = self._config.rollout
        self._ahead = GroupsAhead(
            self._sample,
            rollout.problems_per_step,
            rollout.staleness,
            rollout.deadline_s,
            most_replaced=rollout.most_drawn_per_step - rollout.problems_per_step,
            draw=self._draw_next,
        )
        self._next = 0
        """The next position to admit."""

    async def _step(self) -> None:
        config, step, started = self._config, self.progress.step + 1, time.monotonic()
        self._ahead.idle_seconds()  # whatever passed between the steps was not theirs
        self._ahead.admit(self._draw_free_slots(), step - 1)
        with span("collect") as seen:
            batch = await self._interruptible(self._ahead.take(step), *COLLECTED)
            seen["positions"] = [group.position for group in batch.drawn]
        check_ages(batch.groups, step, config.rollout.staleness)
        check_judged(batch.drawn, step, config.rewards.max_unjudged_share)
        taken = time.monotonic()
        with self._budget.timing("learn"):
            async with self._weights:
                update, trained, report = await self._train_and_push(batch.groups, step)
                took = time.monotonic() - started
                times = step_times(taken - started, trained - taken, report.seconds, took)
                times["rollout_wait_share"] = self._ahead.idle_seconds() / took
                await self._write(step, batch, update, report, times)

    async def _sample(self, position: int, problem: Problem) -> Group:
        return await self._collector.group(position, problem, self._training_requests([(position, problem)]))

    def _draw_free_slots(self) -> list[Drawn]:
        """Positions for all free slots that a step is left to train."""
        left = (self._config.run.steps - self.progress.step) * self._config.rollout.problems_per_step
        return self._draw_next(min(self._ahead.free, left - len(self._ahead)))

    def _draw_next(self, count: int) -> list[Drawn]:
        """The next positions; after a resume first those that its checkpoint lacks."""
        positions = self.progress.next_positions(count, self._next)
        self._next = max([self._next, *(position + 1 for position in positions)])
        return self._draw(positions)

    async def _give_up_sampling(self) -> None:
        await self._ahead.close()

    async def close(self) -> None:
        await self._ahead.close()
        await super().close()


def check_ages(groups: Sequence[Group], step: int, limit: int) -> None:
    """RunError when a token that this step trains on is older than the bound, which the order of admission rules out."""
    oldest = age_metrics(groups, step - 1)["age_max"]
    if oldest > limit:
        raise RunError(
            f"step {step} was given tokens that are {oldest:.0f} versions old, more than rollout.staleness {limit}"
        )
