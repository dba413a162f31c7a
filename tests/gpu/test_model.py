"""The learner's model on a GPU, by the kernels that only run there, against plain transformers in float64 on the CPU."""

from pathlib import Path

import pytest
import torch
from tiny import make_sequences, naive_logprobs, naive_model, save_model

from openrs_ray.algorithm.packing import pack
from openrs_ray.algorithm.policy import fuse_kernels, load_policy, micro_batch_arguments

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda:0")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("family", "kv_heads"), [("qwen2", 1), ("llama", 2)])
def test_packed_attention_and_fused_kernels(
    tmp_path: Path, family: str, kv_heads: int, fused: bool, checkpointing: bool
) -> None:
    """Log-probabilities and the gradient of every parameter, as near to the reference as bfloat16 on a CPU comes."""
    folder = save_model(tmp_path, family, kv_heads=kv_heads)
    sequences = make_sequences(9)
    reference = naive_model(folder)
    expected = torch.cat([naive_logprobs(reference, s.prompt_ids, s.completion_ids, 0.7) for s in sequences])
    weights = torch.linspace(-1, 1, len(expected), dtype=torch.float64)
    (expected * weights).sum().backward()

    policy = load_policy(str(folder), "bfloat16", chunk_tokens=5)
    if fused:
        fuse_kernels(policy)
        layer = policy.model.base_model.layers[0]
        assert all("forward" in vars(part) for part in (layer.mlp, layer.self_attn)), (
            "Liger must have put its own in place"
        )
    policy.to(GPU)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    got = policy(**micro_batch_arguments(pack(sequences), GPU), temperature=0.7)
    (got * weights.float().to(GPU)).sum().backward()

    assert (got.double().cpu() - expected).abs().mean() < 0.04
    for (name, own), (_, its) in zip(policy.model.named_parameters(), reference.named_parameters(), strict=True):
        error = (own.grad.double().cpu() - its.grad).norm() / its.grad.norm().clamp(min=1e-6)
        assert error < 0.1, name
