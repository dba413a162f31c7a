"""Liger's kernels by Triton's interpreter on CPU tensors: `python liger_worker.py FOLDER FAMILY ...`.

A process of its own, because Triton reads TRITON_INTERPRET when a kernel is defined. Leaves FOLDER/<family>.pt.
"""

import copy
import os
import sys
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton.language as tl
from tiny import make_sequences, save_model
from triton.language.extra import libdevice
from triton.runtime import interpreter

from openrs_ray.algorithm.packing import pack
from openrs_ray.algorithm.policy import Policy, adapt, fuse_kernels, load_policy, micro_batch_arguments
from openrs_ray.config.learner import Lora
from openrs_ray.models.lora import adapted_layers

libdevice.rsqrt = lambda x: tl.rsqrt(x)  # the library is CUDA code, nothing to an interpreter
_convert = interpreter._implicit_cvt


def _convert_float(argument: Any) -> Any:
    """The interpreter hands a float on as Python's; a compiled kernel gets it as float32, and Liger counts on that."""
    if isinstance(argument, float):
        return tl.tensor(interpreter.TensorHandle(np.array([argument], dtype=np.float32), tl.float32), tl.float32)
    return _convert(argument)


interpreter._implicit_cvt = _convert_float


def load(path: Path, checkpointing: bool = False) -> Policy:
    policy = load_policy(str(path), "float32", chunk_tokens=5)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return policy


def adapted(policy: Policy) -> Policy:
    """With adapters that change its weights."""
    adapt(policy, Lora(rank=4), 1)
    generator = torch.Generator().manual_seed(0)
    for layer in adapted_layers(policy.model).values():
        layer.up.data.copy_(0.1 * torch.randn(layer.up.shape, generator=generator))
    return policy


def outcome(policy: Policy) -> dict[str, Any]:
    """Log-probabilities, gradients by parameter, and which of Liger's kernels took part."""
    used.clear()
    arguments = micro_batch_arguments(pack(make_sequences(4)), torch.device("cpu"))
    logprobs = policy(**arguments, temperature=0.7)
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    trained = {name: parameter for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    gradients = {name: parameter.grad.clone() for name, parameter in trained.items()}
    policy.zero_grad()
    return {"logprobs": logprobs.detach(), "gradients": gradients, "kernels": set(used)}


used: set[str] = set()
_launch = interpreter.InterpretedFunction.run


def _noted_launch(self: Any, *arguments: Any, **named: Any) -> Any:
    used.add(self.fn.__name__)
    return _launch(self, *arguments, **named)


interpreter.InterpretedFunction.run = _noted_launch

folder = Path(sys.argv[1])
for family in sys.argv[2:]:
    path = save_model(folder / family, family, kv_heads={"qwen2": 1, "llama": 2}[family])
    earlier, fused, recomputing = load(path), load(path), load(path, checkpointing=True)
    fuse_kernels(fused)
    fuse_kernels(recomputing)
    outcomes = {
        "fused": outcome(fused),
        "fused, with recomputation": outcome(recomputing),
        "copied": outcome(copy.deepcopy(fused)),
        "plain, made earlier": outcome(earlier),
        "plain, made later": outcome(load(path)),
        "fused, with adapters": outcome(adapted(fused)),
        "plain, with adapters": outcome(adapted(earlier)),
    }
    torch.save(outcomes, folder / f"{family}.pt")
