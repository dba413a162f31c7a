"""The parts, in the order in which they run, and how long each takes on one H100.

Measured where docs/performance.md says that a part has run; else `expected_s` comes from trials of the ingredients on one H100
(an engine with compiled graphs starts in 60 to 95 s, again from its cache in less; a step of the 1.78 B model takes 7 to 14 s).
"""

from importlib import import_module
from typing import cast

from launch.performance.gpu_suite.rows import Function
from launch.performance.gpu_suite.runner import Part

PARTS = (
    Part("versions", "what is installed, and whether it has what the code calls", 35, 120, beside=True),
    Part("attention", "packed attention, forward and backward, against float64", 25, 120, beside=True),
    Part("head", "compiled head at 151,936 vocabulary, value and gradient against float64", 50, 210, beside=True),
    Part("model_tests", "the GPU tests of the model", 55, 240, beside=True),
    Part(
        "learner_rank",
        "ZeRO 1, 2, 3 and float32: gradient, NaN, save and load, time to the first score",
        65,
        240,
        beside=True,
    ),
    Part("ipc", "CUDA IPC between two processes: rewritten buffers, either side killed", 15, 120, beside=True),
    Part("nccl", "NCCL between two processes on one GPU: stopped, killed and absent peers", 70, 240, beside=True),
    Part("memory", "the memory plan against measured peaks, under 44 GiB too; MFU", 150, 360),
    Part("quickstart", "the quickstart with 20 of its 50 steps", 270, 480),
    Part("one_gpu", "three steps of the one-gpu recipe, engine and learner side by side", 110, 300),
    Part("one_gpu_asleep", "the same with an engine that sleeps while the learner works", 85, 300),
    Part("as_published", "an engine with raw log-probabilities starts and samples", 45, 180),
    Part("step_a", "whole steps against TRL, 1.78 B parameters", 370, 540),
    Part("step_b", "whole steps against TRL, SmolLM2-135M", 235, 420),
    Part("push_ipc", "seconds of a push by CUDA IPC, 1.78 B parameters", 115, 300),
    Part("push_nccl", "seconds of a push by NCCL on one GPU, 1.78 B parameters", 115, 300),
    Part("rollout", "a rollout worker against raw vLLM, 1.78 B parameters", 115, 360),
)

_FUNCTIONS = {
    "versions": "versions:versions",
    "attention": "kernels:attention",
    "head": "kernels:head",
    "model_tests": "model_tests:model_tests",
    "learner_rank": "ranks:learner_rank",
    "memory": "memory:memory",
    "ipc": "peers:ipc",
    "nccl": "peers:nccl",
    "quickstart": "runs:quickstart",
    "one_gpu": "runs:one_gpu",
    "one_gpu_asleep": "runs:one_gpu_asleep",
    "as_published": "runs:as_published",
    "step_a": "comparisons:step_a",
    "step_b": "comparisons:step_b",
    "push_ipc": "comparisons:push_ipc",
    "push_nccl": "comparisons:push_nccl",
    "rollout": "comparisons:rollout",
}


def function_of(name: str) -> Function:
    """Imported only when it runs: a part must not fail because of another one's imports."""
    module, function = _FUNCTIONS[name].split(":")
    return cast(Function, getattr(import_module(f"{__package__}.{module}"), function))
