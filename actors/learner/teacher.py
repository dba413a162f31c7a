"""The frozen teacher of a learner rank."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from openrs_ray.algorithm.distillation import TeacherView
from openrs_ray.algorithm.host_memory import FrozenOnHost
from openrs_ray.algorithm.packing import MicroBatch
from openrs_ray.algorithm.policy import Policy, fuse_kernels, load_policy, micro_batch_arguments
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig
from openrs_ray.models.bundled import resolve_model


@dataclass(frozen=True)
class Taught:
    """A teacher's part of a micro-batch; at most one of the two is there, by `loss.teacher.top_k`."""

    view: TeacherView | None = None
    logprobs: torch.Tensor | None = None
    """float32 [completion tokens]."""

    def to(self, device: torch.device | str) -> "Taught":
        if self.view is not None:
            return Taught(TeacherView(self.view.hidden.to(device), self.view.head))
        return Taught(logprobs=None if self.logprobs is None else self.logprobs.to(device))


UNTAUGHT = Taught()
"""Of a run without a teacher."""


class FrozenTeacher:
    """A whole copy of the teacher on every rank, with any ZeRO stage.

    Without offloading, each micro-batch is scored when its turn comes; else all at once, so that the teacher visits the device
    once per update, and its parts wait in the host's memory.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        learner, teacher = config.learner, config.loss.teacher
        path = resolve_model(str(teacher.path))
        policy = load_policy(path, config.model.dtype, learner.logprob_chunk_tokens, learner.head_dtype)
        if learner.fused_kernels and device.type != "cpu":
            fuse_kernels(policy)
        self.shape = ModelShape.of(policy.model.config)
        policy = policy.to(device).eval().requires_grad_(False)
        self._model = FrozenOnHost(policy, device) if teacher.offload else policy

    def scored(
        self, micro_batches: Sequence[MicroBatch], temperature: Callable[[MicroBatch], float]
    ) -> Iterator[Taught]:
        """The teacher's part of each micro-batch, in order, at the temperature of its policy's log-probabilities."""
        if isinstance(self._model, Policy):
            policy = self._model
            yield from (self._score(policy, batch, temperature(batch)) for batch in micro_batches)
            return
        with self._model.visit() as policy:
            # A copy: the parameter itself leaves the device again.
            head = policy.head.weight.detach().clone()
            waiting = [self._score(policy, batch, temperature(batch), head).to("cpu") for batch in micro_batches]
        for each in waiting:
            yield each.to(self.device)

    @torch.no_grad()
    def _score(self, policy: Policy, batch: MicroBatch, temperature: float, head: torch.Tensor | None = None) -> Taught:
        arguments: dict[str, Any] = micro_batch_arguments(batch, self.device)
        if self.config.loss.teacher.top_k == 0:
            return Taught(logprobs=policy(**arguments, temperature=temperature))
        arguments.pop("targets")
        return Taught(TeacherView(policy.hidden(**arguments), policy.head.weight if head is None else head))
