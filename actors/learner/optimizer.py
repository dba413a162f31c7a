"""The optimizer, and the settings of the DeepSpeed engine around it."""

from collections.abc import Iterable
from typing import Any

import torch

from openrs_ray.cluster.learner_memory import BUCKET_PARAMETERS
from openrs_ray.config.learner import Learner
from openrs_ray.config.schema import RunConfig


def optimizer(parameters: Iterable[torch.nn.Parameter], learner: Learner) -> torch.optim.Optimizer:
    """AdamW, before DeepSpeed gives it float32 parameters of its own."""
    return torch.optim.AdamW(
        parameters,
        lr=learner.learning_rate,
        betas=learner.adam_betas,
        weight_decay=learner.weight_decay,
        fused=True,  # one kernel, and no temporary as large as the rank's part of the model
    )


def deepspeed_settings(config: RunConfig, ranks: int) -> dict[str, Any]:
    """DeepSpeed's config of a rank."""
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
        },
        # Stage 0 with bfloat16 would give Adam a spurious first step; the config does not offer it.
        "bf16": {"enabled": config.model.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
