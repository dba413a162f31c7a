"""The optimizer, and the settings of the DeepSpeed engine around it."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from openrs_ray.cluster.learner_memory import BUCKET_PARAMETERS
from openrs_ray.config.learner import Learner
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.moments import bitsandbytes

_GROUP_PARAMETERS = 2**31 - 1
"""Most elements in a parameter group: bitsandbytes counts them in a signed 32-bit integer."""


def optimizer(parameters: Iterable[torch.nn.Parameter], learner: Learner) -> torch.optim.Optimizer:
    """AdamW over the trained parameters, for which DeepSpeed later substitutes its float32 copies.

    It runs on the GPU, or with `adamw_offload` on the host. On the host, too, it is torch's fused AdamW, which passes over the
    memory once; memory bandwidth is its limit. DeepSpeed's CPU Adam would be compiled from C++ at the first start.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    settings: dict[str, Any] = {
        "lr": learner.learning_rate,
        "betas": learner.adam_betas,
        "weight_decay": learner.weight_decay,
    }
    if learner.optimizer == "adamw_8bit":
        return _adamw_8bit(trained, settings)
    # Fused: one kernel, and no temporary as large as the rank's part of the model.
    return torch.optim.AdamW(trained, **settings, fused=True)


def _adamw_8bit(trained: list[torch.nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW of bitsandbytes: moments have 8 bits per number and a float32 scale for each block of 256 numbers."""
    from deepspeed.runtime.zero import utils

    kind = bitsandbytes().optim.AdamW8bit
    if kind not in utils.ZERO_SUPPORTED_OPTIMIZERS:
        utils.ZERO_SUPPORTED_OPTIMIZERS.append(kind)  # DeepSpeed warns of others
    made: torch.optim.Optimizer = kind([{"params": group} for group in _countable(trained)], **settings)
    return made


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Reset the moments and their number of steps to those of a new optimizer; learning rate and weights stay."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if name == "step" and not isinstance(value, torch.Tensor):
                state[name] = 0
            # Of 8 bits, a moment is its scale (absmax) times a number of the table (qmap): with a scale of 0 it is 0.
            elif isinstance(value, torch.Tensor) and value.is_floating_point() and not name.startswith("qmap"):
                value.zero_()


def _countable(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Groups of parameters whose elements a 32-bit integer can count. Each rank holds one part of every group."""
    group: list[torch.nn.Parameter] = []
    elements = 0
    for parameter in parameters:
        size = getattr(parameter, "ds_numel", parameter.numel())
        if group and elements + size > _GROUP_PARAMETERS:
            yield group
            group, elements = [], 0
        group.append(parameter)
        elements += size
    yield group


def deepspeed_settings(config: RunConfig, ranks: int) -> dict[str, Any]:
    """The DeepSpeed config of a rank."""
    offload = {"offload_optimizer": {"device": "cpu"}} if config.learner.optimizer == "adamw_offload" else {}
    return {
        # DeepSpeed checks their product and uses nothing else of them: see `LearnerRank.train_step`.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.learner.max_grad_norm,
        "zero_optimization": {
            "stage": config.learner.zero_stage,
            "overlap_comm": ranks > 1,  # gradients travel while the backward pass goes on
            "reduce_bucket_size": BUCKET_PARAMETERS,
            "stage3_prefetch_bucket_size": BUCKET_PARAMETERS,
            **offload,
        },
        "zero_force_ds_cpu_optimizer": False,  # see `optimizer`
        # Stage 0 with bfloat16 would give Adam a spurious first step; the config does not offer it.
        "bf16": {"enabled": config.model.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
