"""Receives pushes in every vLLM worker, as vLLM's weight-transfer engine; loaded through `worker_extension_cls`."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from vllm.config import VllmConfig
from vllm.config.weight_transfer import WeightTransferConfig
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbeddingBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.weights.formats import layer_formats
from actors.weights.transport import PushGroup, Receiver, find
from openrs_ray.run.spans import span, traced
from openrs_ray.weights.adapters import Adapted, Weights
from openrs_ray.weights.buckets import Bucket
from openrs_ray.weights.digest import digest
from openrs_ray.weights.effect import Effect
from openrs_ray.weights.meeting import Meeting

BACKEND = "openrs"
S = TypeVar("S")
T = TypeVar("T")
_RELOAD_LOG = logging.getLogger(initialize_layerwise_reload.__module__)


@dataclass
class PushInit(WeightTransferInitInfo):
    transport: str
    meeting: dict[str, Any]
    world_size: int
    deadline_s: float

    def group(self) -> PushGroup:
        return PushGroup(self.transport, Meeting(**self.meeting), self.world_size, self.deadline_s)


@dataclass
class PushUpdate(WeightTransferUpdateInfo):
    """Buckets as `Bucket.plain`, and the transport's parcel."""

    buckets: list[list[tuple[str, str, list[int]]]]
    parcel: Any = None


class PushReceiver(WeightTransferEngine[PushInit, PushUpdate]):
    """Receives buckets, digests them, loads them into the live model; adapters once they are merged into the kept base.

    Life cycle: init_transfer_engine for every learner; then per push start_weight_update, update_weights, finish_weight_update.
    Between start and finish the model must not run.
    """

    init_info_cls = PushInit
    update_info_cls = PushUpdate

    def __init__(
        self, config: WeightTransferConfig, vllm_config: VllmConfig, device: torch.device, model: torch.nn.Module
    ) -> None:
        super().__init__(config, vllm_config, device, model)
        self.end: Receiver | None = None
        self._digests: list[torch.Tensor] = []
        self._effect = Effect(model, layer_formats(model))
        self._adapted = Adapted()

    def init_transfer_engine(self, init_info: PushInit) -> None:
        self.shutdown()  # lets go of a learner that has been rebuilt since
        group = init_info.group()
        self.end = find(group.transport).receiver(group, 1 + self.parallel_config.rank, self.device)

    def start_weight_update(self) -> None:
        self._digests = []
        initialize_layerwise_reload(self.model)
        self._effect.begin()
        self._adapted.begin()

    def receive_weights(self, update_info: PushUpdate) -> None:
        buckets = [*map(Bucket.of, update_info.buckets)]
        arrivals = self._arrivals(buckets, update_info.parcel)
        for bucket in buckets:
            buffer, found = next(arrivals)
            # The loader keeps views until a layer is complete, so every bucket has a buffer of its own.
            weights = bucket.unpack(buffer)
            if self._adapted.accepts(weights):
                if not self._adapted.take(weights, found):
                    self._digests.append(found)
            else:
                self._digests.append(found)
                self._load(weights)
            del buffer, weights  # freed before the next bucket comes, unless a layer waits for its other half

    def _arrivals(self, buckets: Sequence[Bucket], parcel: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """A buffer for every bucket, and its digest; the next one is on its way while one is loaded."""
        assert self.end is not None, "update_weights before init_transfer_engine"
        self.end.expect([bucket.nbytes for bucket in buckets])
        receive = partial(self._receive_and_digest, parcel=parcel)
        # On a GPU the digest is queued, and pieces arrive, on streams of their own.
        return ahead(receive, buckets) if self.device.type == "cpu" else map(receive, buckets)

    def _receive_and_digest(self, bucket: Bucket, parcel: Any) -> tuple[torch.Tensor, torch.Tensor]:
        buffer = self._receive(bucket.nbytes, parcel)
        return buffer, digest(buffer)

    def _load(self, weights: Weights) -> None:
        with span("load", nbytes=sum(tensor.nbytes for _, tensor in weights)), self._effect.loading(weights):
            self.model.load_weights(weights)

    @traced("receive_bucket", "nbytes")
    def _receive(self, nbytes: int, parcel: Any) -> torch.Tensor:
        assert self.end is not None, "update_weights before init_transfer_engine"
        return self.end.receive(nbytes, parcel)

    @traced("finish_load")
    def finish_weight_update(self) -> None:
        for weights in self._adapted.policy(self.device):
            self._load(weights)
        with _unsaid(self._without_weights()):
            finalize_layerwise_reload(self.model, self.model_config)
        if self.device.type == "cpu":
            self._repack_tied_heads()

    def _without_weights(self) -> set[str]:
        """Layers without their own weights: tied heads, and rotary ones, whose table is computed."""
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
        """Proof of the last push: "digests" of its buckets and of the "base" that is kept, and tensors "missing" and "stale"."""
        heads = {f"{name}.weight" for name, module in self.model.named_modules() if isinstance(module, ParallelLMHead)}
        tied = heads if self._tied else set()
        return {
            "digests": [int(value) for value in self._digests],
            "base": [int(value) for value in self._adapted.base_digests],
            "missing": self._effect.missing(without=tied) + self._adapted.without_place(),
            "stale": self._effect.stale() + self._adapted.unmerged(),
        }

    def shutdown(self) -> None:
        end, self.end = self.end, None
        if end is not None:
            end.close()


@contextmanager
def _unsaid(kinds: set[str]) -> Iterator[None]:

    def heard(record: logging.LogRecord) -> bool:
        return record.getMessage() not in {f"{kind}: Failed to load weights" for kind in kinds}

    _RELOAD_LOG.addFilter(heard)
    try:
        yield
    finally:
        _RELOAD_LOG.removeFilter(heard)


def ahead(act: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """`map` over at least one item, in another thread and one item ahead of the caller."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(act, items[0])
        for following in items[1:]:
            arrived = [coming.result()]
            coming = thread.submit(act, following)
            yield arrived.pop()  # kept by nobody but the caller
        yield coming.result()


class WorkerExtension:
    """Mixed into vLLM's worker class, for `collective_rpc("push_receipt")`."""

    weight_transfer_engine: PushReceiver

    def push_receipt(self) -> dict[str, Any]:
        return self.weight_transfer_engine.receipt()


# Importing this module in the worker process is what makes the back end known there.
WeightTransferEngineFactory.register_engine(BACKEND, PushReceiver)
