"""The optimizer, and the settings of the DeepSpeed engine around it."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from openrs_ray.cluster.learner_memory import BUCKET_PARAMETERS
from openrs_ray.config.learner import Learner
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.moments import bitsandbytes

_GROUP_PARAMETERS = 2**31 - 1
"""bitsandbytes counts the elements of a part in 32 bits."""


def optimizer(parameters: Iterable[torch.nn.Parameter], learner: Learner) -> torch.optim.Optimizer:
    """AdamW on what is trained, before DeepSpeed gives it float32 parameters of its own: on the GPU, or with
    `adamw_offload` in the host's memory.

    There, too, it is torch's fused AdamW: one pass over the memory, which is what bounds it. DeepSpeed's own for the host would
    be compiled from C++ at the first start.
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
    """bitsandbytes' AdamW: each 256 numbers of a moment share a float32 scale, and have 8 bits each."""
    from deepspeed.runtime.zero import utils

    kind = bitsandbytes().optim.AdamW8bit
    if kind not in utils.ZERO_SUPPORTED_OPTIMIZERS:
        utils.ZERO_SUPPORTED_OPTIMIZERS.append(kind)  # DeepSpeed warns of others
    made: torch.optim.Optimizer = kind([{"params": group} for group in _countable(trained)], **settings)
    return made


def _countable(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Groups of parameters whose elements 32 bits can count; a group is one part on each rank."""
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
    """DeepSpeed's config of a rank."""
    offload = {"offload_optimizer": {"device": "cpu"}} if config.learner.optimizer == "adamw_offload" else {}
    return {
        # Only their product matters to DeepSpeed, and nothing here: see `LearnerRank.train_step`.
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
