"""Keeps a frozen policy and activations in the host's memory while the learner's device does not need them.

On a CPU, device and host have the same memory, and nothing is copied.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from openrs_ray.algorithm.policy import Policy


class FrozenOnHost:
    """A policy that never changes, in pinned host memory; it is on the device only during `visit`."""

    def __init__(self, policy: Policy, device: torch.device) -> None:
        """Take over `policy`, which is on the device. Its parameters leave; its buffers, which are small, stay."""
        self.device = device
        self.policy = policy.eval().requires_grad_(False)
        self._parameters = list(policy.parameters())
        self._shapes = [parameter.shape for parameter in self._parameters]
        elements, dtype = sum(map(math.prod, self._shapes)), self._parameters[0].dtype
        self._home = torch.empty(elements, dtype=dtype) if device.type == "cpu" else _pinned(elements, dtype)
        for parameter, place in zip(self._parameters, self._parts(self._home), strict=True):
            parameter.data = place.copy_(parameter.data)

    @contextmanager
    def visit(self) -> Iterator[Policy]:
        self._move(self._on_device())
        try:
            yield self.policy
        finally:
            self._move(self._home)

    def _on_device(self) -> Tensor:
        return self._home.to(self.device, non_blocking=True)

    def _move(self, whole: Tensor) -> None:
        for parameter, part in zip(self._parameters, self._parts(whole), strict=True):
            parameter.data = part

    def _parts(self, whole: Tensor) -> list[Tensor]:
        parts = whole.split([math.prod(shape) for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]


def activations_on_host(hidden: int) -> AbstractContextManager[None]:
    """Context in which hidden states (tensors [1, tokens, hidden]) that autograd saves are kept in pinned memory of the host.

    It is meant for gradient checkpointing, which saves every layer's input and hardly anything else.
    """

    def leave(kept: Tensor) -> tuple[Tensor, torch.device]:
        away = kept.dim() == 3 and kept.shape[-1] == hidden
        return (_copy_on_host(kept) if away else kept), kept.device

    def come_back(left: tuple[Tensor, torch.device]) -> Tensor:
        tensor, device = left
        return tensor.to(device, non_blocking=True)

    return torch.autograd.graph.saved_tensors_hooks(leave, come_back)


def _copy_on_host(tensor: Tensor) -> Tensor:
    """A pinned copy, queued in the current stream without waiting; copying back is queued later in the same stream."""
    if tensor.device.type == "cpu":
        return tensor
    return _pinned(tensor.shape, tensor.dtype).copy_(tensor, non_blocking=True)


def _pinned(size: int | torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=True)
