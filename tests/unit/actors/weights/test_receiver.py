"""The receiving end by itself: the lines that are kept out of vLLM's log."""

import logging
import threading
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.model_loader.reload import layerwise

from actors.weights.receiver import PushReceiver, PushUpdate, _unsaid, ahead
from openrs_ray.errors import RunError


def test_only_layers_that_have_no_weights_are_left_unsaid(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    with caplog.at_level(logging.WARNING), _unsaid({"RotaryEmbedding", "ParallelLMHead"}):
        for kind in ("RotaryEmbedding", "QKVParallelLinear", "ParallelLMHead", "VocabParallelEmbedding"):
            layerwise.logger.warning("%s: Failed to load weights", kind)
        layerwise.logger.warning("ParallelLMHead: something else")
    layerwise.logger.warning("%s: Failed to load weights", "RotaryEmbedding")
    assert caplog.messages == [
        "QKVParallelLinear: Failed to load weights",
        "VocabParallelEmbedding: Failed to load weights",
        "ParallelLMHead: something else",
        "RotaryEmbedding: Failed to load weights",
    ]


def test_the_next_item_is_on_its_way_while_one_is_used() -> None:
    began: list[int] = []
    second = threading.Event()

    def act(item: int) -> int:
        began.append(item)
        if item == 2:
            second.set()
        return -item

    results = ahead(act, [1, 2, 3])
    assert next(results) == -1 and second.wait(10), "before the first is done with"
    assert 3 not in began, "no more than one ahead"
    assert list(results) == [-2, -3]


def test_what_goes_wrong_ahead_is_raised_in_its_turn() -> None:
    def act(item: int) -> int:
        if item == 2:
            raise RunError("a weight bucket did not get through")
        return item

    results = ahead(act, [1, 2])
    assert next(results) == 1
    with pytest.raises(RunError, match="did not get through"):
        next(results)


@pytest.mark.parametrize(("device", "most"), [("cuda", 0), ("cpu", 1)])
def test_no_more_buckets_are_held_than_one_is_ahead(device: str, most: int) -> None:
    """With a loader that keeps nothing, buckets are freed before the next is received; a CPU still holds the one being loaded."""
    buffers: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def receive(nbytes: int, parcel: object) -> torch.Tensor:
        alive.append(sum(buffer() is not None for buffer in buffers))
        buffer = torch.zeros(nbytes, dtype=torch.uint8)
        buffers.append(weakref.ref(buffer))
        return buffer

    receiver: Any = PushReceiver.__new__(PushReceiver)
    receiver.device = SimpleNamespace(type=device)
    receiver.end = SimpleNamespace(expect=lambda sizes: None, receive=receive)
    receiver.model = SimpleNamespace(load_weights=lambda weights: [tensor.sum() for _, tensor in weights])
    receiver._effect = SimpleNamespace(loading=lambda weights: nullcontext())
    receiver._adapted = SimpleNamespace(accepts=lambda weights: False)
    receiver._digests = []
    receiver.receive_weights(PushUpdate(buckets=[[("weight", "float32", [1 << 10])]] * 5))
    assert len(receiver._digests) == 5 and max(alive) <= most
