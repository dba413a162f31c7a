"""Measures the teacher on the run's held-out problems, by engines of its own that end before those of the run start."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.loop.collector import Collector, Samples, Sampling
from actors.rollout.loaded import LoadedWorker
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.algorithm.step_metrics import check_judged
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.held_out import HeldOutScores, held_out_scores
from openrs_ray.models.bundled import resolve_model
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.preparation.teacher import teacher_ends
from openrs_ray.records import Completion, Group
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.spans import traced
from openrs_ray.run.teacher_score import RECORD, teacher_score, write_teacher_score


@dataclass(frozen=True)
class EndsAsPolicy:
    """The teacher's engines. An answer that it ends in its own way ends with the policy's stop token in the record.

    Otherwise it would run on to the limit, or its end would be read as a part of the answer.
    """

    engines: Samples
    own: int
    """Stop token of the policy."""
    only_its: frozenset[int]

    async def sample(self, request: Request) -> Completion:
        found = await self.engines.sample(request)
        if found.finish_reason != "stop" or int(found.token_ids[-1]) not in self.only_its:
            return found
        ids = found.token_ids.copy()
        ids[-1] = self.own
        return replace(found, token_ids=ids)


@dataclass(frozen=True)
class TeacherTrial:
    """The teacher is asked what every policy of the run is asked, in the same harness, once for all resumes."""

    config: RunConfig
    prepared: Prepared
    placement: Placement
    collector: Callable[[Samples], Collector]
    display: RunDisplay

    @property
    def due(self) -> bool:
        asked = self.config.loss.kind == "distill" and bool(self.prepared.held_out)
        return asked and teacher_score(self.config.run.path, self.config) is None

    @traced("teacher")
    async def measure(self) -> None:
        """RunError when an engine does not start, or too little is judged."""
        held_out = self.prepared.held_out
        self.display.status(f"measuring the teacher on {len(held_out)} held-out problems")
        engines = EnginePool(self._settings(), self.placement, LoadedWorker, self.display.warn)
        try:
            await engines.start()
            groups = await self._groups(self.collector(EndsAsPolicy(engines, self._end_of_turn(), self._ends()[1])))
        finally:
            with suppress(RunError):  # the engines end with their processes in any case
                await engines.stop()
        check_judged(groups, 0, self.config.rewards.max_unjudged_share)
        scores = held_out_scores(groups, self.config.tasks)
        await asyncio.to_thread(self._write, groups, scores)
        self.display.note(f"the teacher itself, held out: {scores}")

    def _settings(self) -> EngineSettings:
        path = resolve_model(str(self.config.loss.teacher.path))
        own, its = self._ends()
        settings = EngineSettings.of_run(self.config, path, (*own, *sorted(its)))
        longest = self.config.max_evaluation_sequence
        return replace(settings, max_sequence_tokens=longest, quantization="none", sleeps=False)

    def _end_of_turn(self) -> int:
        """The policy's stop token that its chat template writes after an answer, else its first."""
        stops = self.prepared.stop_tokens
        return next((stop.id for stop in stops if "chat template" in stop.named_by), stops[0].id)

    def _ends(self) -> tuple[tuple[int, ...], frozenset[int]]:
        """Stop tokens of the policy, and those that only the teacher has."""
        shape, own = self.prepared.shape.teacher, self.prepared.eos_ids
        assert shape is not None
        return own, frozenset(teacher_ends(resolve_model(str(self.config.loss.teacher.path)), shape) - {*own})

    async def _groups(self, collector: Collector) -> list[Group]:
        plan, deadline_s = Sampling.evaluation(self.config, step=0), self.config.rollout.deadline_s
        groups = asyncio.gather(
            *(collector.group(place, problem, plan) for place, problem in enumerate(self.prepared.held_out))
        )
        what = f"finish the teacher's evaluation (rollout.deadline_s is {deadline_s:.0f})"
        return list(await within(deadline_s, "the rollout workers", what, groups))

    def _write(self, groups: list[Group], scores: HeldOutScores) -> None:
        record = CompletionRecord(self.config.run.path / RECORD, self.prepared.decoder.decoder)
        record.write(0, 0, groups, [group.texts for group in groups], None, "evaluation")
        write_teacher_score(self.config, len(groups), scores.metrics())
