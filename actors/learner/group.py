"""The learner as the trainer uses it: groups in, one optimizer step on all ranks, weights out."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.cluster.deadlines import within
from actors.cluster.meeting import Meeting
from actors.cluster.placement import Placement
from actors.cluster.processes import Processes, end_actor
from actors.weights.sender import SendingRank, Sent, StagedBucket
from openrs_ray.algorithm.advantages import TrainingSequence, advantages
from openrs_ray.algorithm.packing import split
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import Lost, RunError
from openrs_ray.records import Group
from openrs_ray.weights.buckets import Bucket

_PEERS_S = 10.0
"""How much longer the other ranks are listened to when one has failed."""


class LearnerLost(RunError):
    """A learner rank died or no longer answers: the ranks wait for each other, so all of them must be started again."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one optimizer step did."""

    metrics: dict[str, float]
    advantages: np.ndarray
    """float64 [groups, completions]; NaN where a completion was left out of the loss."""


class LearnerGroup:
    """Handles of all learner ranks; every call goes to all of them and has a deadline."""

    def __init__(
        self, config: RunConfig, placement: Placement, model_path: str, rank_class: type[SendingRank] = SendingRank
    ) -> None:
        self._config = config
        size = len(placement.layout.learner)
        device = "cpu" if placement.layout.device == "cpu" else "cuda:0"  # a rank sees one GPU: its own
        self._new_ranks: Callable[[], list[Any]] = lambda: [
            ray.remote(rank_class)
            .options(**placement.learner_options(rank))
            .remote(config, model_path, rank, size, device)
            for rank in range(size)
        ]
        self._ranks = self._new_ranks()
        self._processes: list[Processes | None] = [None] * size

    async def start(self) -> None:
        deadline_s = self._config.learner.start_deadline_s
        (address,) = await self._gather(deadline_s, "start", [self._ranks[0].address.remote()])
        self._processes = await self._all("processes", deadline_s, "be placed")
        await self._all("start", deadline_s, "start DeepSpeed", *address)

    async def train(self, groups: Sequence[Group], step: int) -> Update:
        """One optimizer step on these groups.

        Raises:
            RunError: no completion could be learned from, a rank failed, or the step was not applied.
        """
        loss, learner = self._config.loss, self._config.learner
        rewards = np.stack([group.rewards() for group in groups])
        values = advantages(rewards, loss.advantage_epsilon, divide_by_std=loss.kind != "dr_grpo")
        sequences = training_sequences(groups, values)
        if not sequences:
            raise RunError(f"step {step} has no judged completion to learn from: look at the verdicts in the record")
        local = loss.normalization == "local_micro_batch"
        tokens = completion_tokens(sequences)
        # A group without spread has advantage 0 and adds nothing to the gradient, but for its tokens in the mean; no need
        # to compute that nothing. (The KL penalty has a gradient everywhere, and the local mean depends on the split.)
        useful = sequences if local or loss.kl_beta > 0 else [s for s in sequences if s.advantage != 0]
        left_out = tokens - completion_tokens(useful), len(sequences) - len(useful)
        batches = split(
            useful,
            len(self._ranks),
            micro_batch_tokens=None if local else learner.micro_batch_tokens,
            micro_batch_sequences=learner.micro_batch_sequences if local else None,
            places=np.flatnonzero(~np.isnan(values)).tolist() if local else None,
        )
        metrics = await self._gather(
            learner.deadline_s,
            f"train step {step}",
            [
                actor.train_step.remote(batch, tokens, step, *left_out)
                for actor, batch in zip(self._ranks, batches, strict=True)
            ],
        )
        return Update(metrics[0], values)

    async def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[np.ndarray]:
        """Log-probabilities (temperature 1) of the sequences' completion tokens under the current weights."""
        deadline_s = self._config.push.deadline_s
        scores: list[list[np.ndarray]] = await self._all("score", deadline_s, "score the probe", list(sequences), 1.0)
        return scores[0]

    async def check_shared_folder(self, run_folder: Path) -> None:
        """RunError when the learner's node does not see the run folder that the driver writes to."""
        if not all(await self._all("sees", 60, "look for the run folder", str(run_folder / "config.json"))):
            raise RunError(
                f"the learner's node does not see {run_folder}: put run.folder on a file system that all nodes share"
            )

    async def save(self, folder: Path) -> None:
        await self._all("save", self._config.checkpoint.deadline_s, "save its state", str(folder))

    async def load(self, folder: Path) -> None:
        await self._all("load", self._config.checkpoint.deadline_s, "load its state", str(folder))

    async def export(self, folder: Path) -> None:
        await self._all("export", self._config.checkpoint.deadline_s, "export the policy", str(folder))

    async def release_memory(self) -> None:
        await self._all("release_memory", 60, "give cached memory back")

    async def push_buckets(self) -> tuple[Bucket, ...]:
        buckets: tuple[Bucket, ...] = (await self._all("push_buckets", 60, "list its parameters"))[0]
        return buckets

    async def meeting(self, node: str | None) -> Meeting:
        """The meeting at which an engine on this node can join rank 0."""
        own = self._processes[0]
        call = self._ranks[0].meeting.remote(own is not None and own.node == node)
        meeting: Meeting
        (meeting,) = await self._gather(60, "find a free port", [call])
        return meeting

    async def join_push(self, engine: int, transport: str, meeting: Meeting, world_size: int) -> None:
        await self._all(
            "join_push",
            self._config.push.deadline_s,
            f"join rollout worker {engine} for pushes",
            *(engine, transport, meeting, world_size),
        )

    async def send(self, engines: Sequence[int]) -> Sent:
        sent: list[Sent] = await self._all("send", self._config.push.deadline_s, "send weights", list(engines))
        return sent[0]

    async def stage(self, first: bool) -> list[StagedBucket]:
        """The next bucket as every rank has staged it; empty after the last one."""
        staged = await self._all("stage", self._config.push.deadline_s, "stage a weight bucket", first)
        return [part for part in staged if part is not None]

    async def _all(self, method: str, deadline_s: float, what: str, *arguments: Any) -> list[Any]:
        return await self._gather(
            deadline_s, what, [getattr(actor, method).remote(*arguments) for actor in self._ranks]
        )

    async def _gather(self, deadline_s: float, what: str, calls: Sequence[Any]) -> list[Any]:
        """All ranks' answers. LearnerLost when one of them died, was late or hangs, whatever the others say of it."""
        waits = [
            asyncio.ensure_future(within(deadline_s, f"learner rank {rank}", what, call))
            for rank, call in enumerate(calls)
        ]
        try:
            _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_EXCEPTION)
            if pending:  # a rank may complain of a dead peer before Ray says that it died
                _, pending = await asyncio.wait(pending, timeout=_PEERS_S)
            errors = [error for wait in waits if wait.done() and (error := wait.exception())]
        finally:
            for wait in waits:
                wait.cancel()
        for error in errors:
            if isinstance(error, Lost) or pending:
                raise LearnerLost(str(error)) from error
        for error in errors:
            raise error
        return [wait.result() for wait in waits]

    async def stop(self) -> None:
        """End the ranks' processes."""
        ends = (end_actor(actor, own) for actor, own in zip(self._ranks, self._processes, strict=True))
        await asyncio.gather(*ends)

    async def renew(self) -> None:
        """End what is left of the ranks' processes and have new ones, which must be started."""
        await self.stop()
        self._ranks, self._processes = self._new_ranks(), [None] * len(self._ranks)


def completion_tokens(sequences: Sequence[TrainingSequence]) -> int:
    return sum(len(sequence.completion_ids) for sequence in sequences)


def training_sequences(groups: Sequence[Group], values: np.ndarray) -> list[TrainingSequence]:
    """The completions that have an advantage, in group and sample order.

    Args:
        values: float64 [groups, completions] advantages, NaN for those left out.
    """
    return [
        TrainingSequence(
            prompt_ids=np.asarray(group.problem.prompt_ids, dtype=np.int32),
            completion_ids=completion.token_ids,
            sampler_logprobs=completion.logprobs,
            advantage=float(advantage),
        )
        for group, row in zip(groups, values, strict=True)
        for completion, advantage in zip(group.completions, row, strict=True)
        if not np.isnan(advantage)
    ]
