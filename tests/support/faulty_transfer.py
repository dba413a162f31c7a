"""Weight receivers that lose a push in ways that have been seen in the wild, or could be; loaded inside vLLM's worker process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.rollout.worker import RolloutWorker
from actors.weights.receiver import BACKEND, PushReceiver, WorkerExtension

GARBAGE_PUSH = 2
"""Counting from 1: the bytes of this push are taken off the wire and thrown away."""
IDLE_PUSH = 4
"""The bytes of this push arrive, and the loader does nothing with them."""
VECTORS_PUSH = 5
"""The loader forgets the matrices, and says that it has loaded them."""
UNPACKED_PUSH = 6
"""All is loaded, and what was packed for multiplying before stays in use."""
UNDONE_PUSH = 7
"""All is loaded, and then the embedding has its old bytes again."""
OLD_PUSH = 9
"""In this push adapters arrive, but those of the previous push are merged again."""
UNMERGED_PUSH = 11
"""In this push adapters arrive, but the base is loaded without them."""


class FaultyReceiver(PushReceiver):
    pushes = 0

    def start_weight_update(self) -> None:
        self.pushes += 1
        self._packed = {module: module.cpu_linear for module in self.model.modules() if hasattr(module, "cpu_linear")}
        self._embedding = self.model.model.embed_tokens.weight.data.clone()
        super().start_weight_update()

    def _receive(self, nbytes: int, parcel: Any) -> torch.Tensor:
        buffer = super()._receive(nbytes, parcel)
        return torch.zeros_like(buffer) if self.pushes == GARBAGE_PUSH else buffer

    def receive_weights(self, update_info: Any) -> None:
        with self._forgetful():
            super().receive_weights(update_info)

    @contextmanager
    def _forgetful(self) -> Iterator[None]:
        kept = self.model.load_weights
        names = {name for name, _ in self.model.named_parameters()}

        def forgetful(weights: Any) -> set[str]:
            if self.pushes == VECTORS_PUSH:
                kept([(name, tensor) for name, tensor in weights if tensor.dim() == 1])
            return names

        if self.pushes in (IDLE_PUSH, VECTORS_PUSH):
            self.model.load_weights = forgetful
        try:
            yield
        finally:
            self.model.load_weights = kept

    def finish_weight_update(self) -> None:
        adapters = self._adapted._adapters
        if self.pushes == OLD_PUSH:
            self._adapted._adapters = self._old
        if self.pushes == UNMERGED_PUSH:
            self._adapted._adapters = {
                name: 0 * tensor if "lora_B" in name else tensor for name, tensor in adapters.items()
            }
        self._old = adapters
        with self._forgetful():
            super().finish_weight_update()
        if self.pushes == UNPACKED_PUSH:
            for module, packed in self._packed.items():
                module.cpu_linear = packed
        if self.pushes == UNDONE_PUSH:
            self.model.model.embed_tokens.weight.data.copy_(self._embedding)


class FaultyExtension(WorkerExtension):
    """Importing its module puts the faulty receiver in the real one's place."""


class FaultyWorker(RolloutWorker):
    worker_extension = "faulty_transfer.FaultyExtension"


WeightTransferEngineFactory._registry[BACKEND] = lambda: FaultyReceiver
