"""The receiving end of a weight push, inside every vLLM worker process, as a weight-transfer engine of vLLM.

Loaded through `worker_extension_cls`. What arrives is digested bucket by bucket; the receipt is read back by the rollout
actor and compared with the sender's. One engine class serves all transports.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbeddingBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.cluster.meeting import Meeting
from actors.weights.effect import Effect
from actors.weights.transport import BroadcastGroup, join_group, open_ipc
from openrs_ray.run.spans import span, traced
from openrs_ray.weights.buckets import Bucket, ParameterSpec
from openrs_ray.weights.digest import digest

BACKEND = "openrs"
_RELOAD_LOG = logging.getLogger(initialize_layerwise_reload.__module__)


@dataclass
class PushInit(WeightTransferInitInfo):
    """How this engine's workers join the push group; see `actors.weights.transport.join_group`."""

    transport: str
    host: str
    port: int
    token: str
    world_size: int
    address: str
    deadline_s: float


@dataclass
class PushUpdate(WeightTransferUpdateInfo):
    """Some buckets to receive: per bucket its (name, dtype, shape) list; for `ipc` also the handles, one bucket at a time."""

    buckets: list[list[tuple[str, str, list[int]]]]
    handles: dict[str, list[Any]] | None = None


class PushReceiver(WeightTransferEngine[PushInit, PushUpdate]):
    """Receives buckets, digests them, loads them into the live model.

    Life cycle: init_transfer_engine, again with a rebuilt learner; then per push start_weight_update, update_weights (once, or
    per bucket for `ipc`), finish_weight_update. Between start and finish the model must not run.
    """

    init_info_cls = PushInit
    update_info_cls = PushUpdate

    def __init__(
        self, config: WeightTransferConfig, vllm_config: VllmConfig, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self._group: BroadcastGroup | None = None
        self._digests: list[torch.Tensor] = []
        self._effect = Effect(model)
        self._mapped: tuple[dict[str, list[Any]], torch.Tensor] | None = None

    def init_transfer_engine(self, init_info: PushInit) -> None:
        self.shutdown()  # the group of a learner that has been rebuilt since
        if init_info.transport == "ipc":
            return  # no group: buckets come as handles
        self._group = join_group(
            init_info.transport,
            Meeting(init_info.host, init_info.port, init_info.token),
            1 + self.parallel_config.rank,
            init_info.world_size,
            init_info.address,
            self.device,
            init_info.deadline_s,
        )

    def start_weight_update(self) -> None:
        self._digests = []
        initialize_layerwise_reload(self.model)
        self._effect.begin()

    def receive_weights(self, update_info: PushUpdate) -> None:
        for entries in update_info.buckets:
            bucket = Bucket(tuple(ParameterSpec(name, dtype, tuple(shape)) for name, dtype, shape in entries))
            buffer = self._receive(bucket.nbytes, update_info.handles)
            self._digests.append(digest(buffer))
            # The loader keeps views until a layer is complete, so every bucket has a buffer of its own.
            weights = bucket.unpack(buffer)
            with span("load", nbytes=bucket.nbytes), self._effect.loading(weights):
                self.model.load_weights(weights)
            del buffer, weights  # freed before the next bucket comes, unless a layer waits for its other half

    @traced("receive_bucket", "nbytes")
    def _receive(self, nbytes: int, handles: dict[str, list[Any]] | None) -> torch.Tensor:
        if handles is not None:
            if self._mapped is None or self._mapped[0] != handles:
                self._mapped = None  # first: not both at once
                self._mapped = handles, open_ipc(handles, self.device)
            return self._mapped[1][:nbytes].clone()
        assert self._group is not None, "update_weights before init_transfer_engine"
        buffer = torch.empty(nbytes, dtype=torch.uint8, device=self.device)
        self._group.broadcast(buffer)
        self._group.wait()
        return buffer

    @traced("finish_load")
    def finish_weight_update(self) -> None:
        with _unsaid(self._without_weights()):
            finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            self._repack_tied_heads()

    def _without_weights(self) -> set[str]:
        """Kinds of layers that a push brings nothing for: tied heads, and rotary ones, whose table is computed."""
        kinds = (RotaryEmbeddingBase, ParallelLMHead) if self._tied else RotaryEmbeddingBase
        return {type(module).__name__ for module in self.model.modules() if isinstance(module, kinds)}

    @property
    def _tied(self) -> bool:
        return bool(self.model_config.hf_config.get_text_config().tie_word_embeddings)

    def _repack_tied_heads(self) -> None:
        # On a CPU a tied head keeps its own packed copy of the embedding, which the reload does not renew.
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)

    @traced("prove")
    def receipt(self) -> dict[str, Any]:
        """What arrived in the last push.

        Returns:
            "digests": one integer per bucket as it came; "missing": what came and was not loaded, and parameters of the model
            that nothing was loaded into; "stale": what was loaded and is not what the model computes with.
        """
        heads = {f"{name}.weight" for name, module in self.model.named_modules() if isinstance(module, ParallelLMHead)}
        tied = heads if self._tied else set()
        return {
            "digests": [int(value) for value in self._digests],
            "missing": self._effect.missing(without=tied),
            "stale": self._effect.stale(),
        }

    def shutdown(self) -> None:
        """Let go of the learner: of its group, and of its memory, which stays taken as long as anybody has it mapped."""
        self._mapped = None
        if self._group is not None:
            self._group.close()
            self._group = None


@contextmanager
def _unsaid(kinds: set[str]) -> Iterator[None]:
    """vLLM warns at every reload of layers that got no weights, for these it is as it should be; of others it is still heard."""

    def heard(record: logging.LogRecord) -> bool:
        return record.getMessage() not in {f"{kind}: Failed to load weights" for kind in kinds}

    _RELOAD_LOG.addFilter(heard)
    try:
        yield
    finally:
        _RELOAD_LOG.removeFilter(heard)


class WorkerExtension:
    """Mixed into vLLM's worker class: `collective_rpc("push_receipt")` asks every worker what it received."""

    weight_transfer_engine: PushReceiver

    def push_receipt(self) -> dict[str, Any]:
        return self.weight_transfer_engine.receipt()


# Importing this module in the worker process is what makes the back end known there.
WeightTransferEngineFactory.register_engine(BACKEND, PushReceiver)
