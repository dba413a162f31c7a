"""A weight receiver whose layers in 8 bits miss a push; loaded inside vLLM's worker process."""

from typing import Any

import torch
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.rollout.worker import RolloutWorker
from actors.weights.receiver import BACKEND, PushReceiver, WorkerExtension

LEFT_PUSH = 4
"""The push (from 1) after which one layer still computes with the previous push's numbers."""
LEFT = "model.layers.1.mlp.down_proj"


class HalfReceiver(PushReceiver):
    pushes = 0

    def start_weight_update(self) -> None:
        self.pushes += 1
        layer: Any = self.model.get_submodule(LEFT)
        kernel = layer.quant_method.kernel
        self._old: dict[str, torch.Tensor] = {
            name: p.data.clone() for name, p in layer._parameters.items() if p is not None
        }
        self._kept = (
            getattr(kernel, "dnnl_handler", None),
            layer.quant_method._scale,
        )  # of which the handler has the address
        super().start_weight_update()

    def finish_weight_update(self) -> None:
        super().finish_weight_update()
        if self.pushes == LEFT_PUSH:
            layer: Any = self.model.get_submodule(LEFT)
            layer.quant_method.kernel.dnnl_handler = self._kept[0]
            for name, old in self._old.items():
                getattr(layer, name).data.copy_(old)


class HalfExtension(WorkerExtension):
    """A worker extension whose import replaces the real receiver by the faulty one."""


class HalfWorker(RolloutWorker):
    worker_extension = "half_quantized.HalfExtension"


WeightTransferEngineFactory._registry[BACKEND] = lambda: HalfReceiver
