"""Weight receivers that lose a push in the two ways that have been seen in the wild; loaded inside vLLM's worker process."""

from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.rollout import RolloutWorker
from actors.transfer import BACKEND, PushReceiver, WorkerExtension

GARBAGE_PUSH = 2
"""Counting from 1: the bytes of this push are taken off the wire and thrown away."""
IDLE_PUSH = 4
"""The bytes of this push arrive, and the loader does nothing with them."""


class FaultyReceiver(PushReceiver):
    pushes = 0

    def start_weight_update(self) -> None:
        self.pushes += 1
        super().start_weight_update()

    def _receive(self, nbytes: int, handles: dict[str, list[Any]] | None) -> torch.Tensor:
        buffer = super()._receive(nbytes, handles)
        return torch.zeros_like(buffer) if self.pushes == GARBAGE_PUSH else buffer

    def receive_weights(self, update_info: Any) -> None:
        if self.pushes != IDLE_PUSH:
            super().receive_weights(update_info)
            return
        kept = self.model.load_weights
        names = {name for name, _ in self.model.named_parameters()}
        self.model.load_weights = lambda weights: names
        try:
            super().receive_weights(update_info)
        finally:
            self.model.load_weights = kept


class FaultyExtension(WorkerExtension):
    """Importing its module puts the faulty receiver in the real one's place."""


class FaultyWorker(RolloutWorker):
    worker_extension = "faulty_transfer.FaultyExtension"


WeightTransferEngineFactory._registry[BACKEND] = lambda: FaultyReceiver
