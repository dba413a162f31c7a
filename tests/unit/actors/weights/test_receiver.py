"""The receiving end by itself: the lines that are kept out of vLLM's log."""

import logging

import pytest
from vllm.model_executor.model_loader.reload import layerwise

from actors.weights.receiver import _unsaid


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
