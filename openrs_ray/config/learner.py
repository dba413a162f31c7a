"""The config section `learner`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Amount, Count, Decay, Parts, Positive, Seconds, Section, Share, SomeAmount

HeadDtype = Literal["float32", "model"]


class Lora(Section):
    """Low-rank adapters (peft): only they are trained, saved and pushed."""

    rank: Count = 0
    """Rank of the adapters (0: none, all weights are trained)."""
    alpha: SomeAmount | None = None
    """Scale of the adapters: their product is multiplied by alpha / rank (default: twice the rank)."""
    layers: Literal["all", "attention"] = "all"
    """Linear layers that get an adapter: all of every block, or only the attention's."""

    @property
    def used_alpha(self) -> float:
        return 2.0 * self.rank if self.alpha is None else self.alpha

    @model_validator(mode="after")
    def _has_a_rank(self) -> Self:
        if self.rank == 0 and self.alpha is not None:
            raise ValueError(
                "learner.lora.alpha is set without adapters: give learner.lora.rank as well, for example 32"
            )
        return self


class Learner(Section):
    learning_rate: Annotated[float, Field(ge=0, le=1000), FREE] = 1e-6
    """Peak learning rate of AdamW."""
    schedule: Annotated[Literal["constant", "linear", "cosine"], FREE] = "cosine"
    """Fall of the learning rate after the warm-up."""
    warmup_share: Annotated[Share, FREE] = 0.1
    """Share of the steps over which the learning rate rises linearly: step n of w warm-up steps learns at n / w of the peak, so
    the first one is not at 0, as in trainers that set the rate after a step, and changes the weights."""
    final_share: Annotated[Share, FREE] = 0.1
    """Learning rate at the last step as a share of the peak."""
    weight_decay: Amount = 0.0
    """AdamW weight decay."""
    adam_betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW moment decays."""
    max_grad_norm: Annotated[float, Field(gt=0, le=10**12), FREE] = 1.0
    """Gradients are scaled down to this global norm."""
    optimizer: Literal["adamw", "adamw_8bit", "adamw_offload"] = "adamw"
    """adamw: float32 moments. adamw_8bit: moments of 8 bits (bitsandbytes). adamw_offload: as adamw, but in the host's memory and
    computed by its CPUs (DeepSpeed ZeRO-Offload). docs/memory.md says what each saves and costs."""
    offload_reference: Annotated[bool, FREE] = False
    """Keep the frozen start model in the host's memory and copy it to the GPU once per update; results stay the same."""
    offload_activations: Annotated[bool, FREE] = False
    """Recompute activations (gradient checkpointing), and keep the layers' inputs in the host's memory meanwhile."""
    lora: Lora = Lora()
    updates_per_batch: Parts = 1
    """Optimizer steps per step, each on an equal share of the step's groups and at the step's learning rate; ratios are
    taken to the policy that sampled (docs/losses.md)."""
    zero_stage: Literal[1, 2, 3] = 2
    """DeepSpeed ZeRO stage."""
    micro_batch_tokens: Annotated[int, Field(gt=0, le=2 * 10**9), FREE] = 16384
    """Token budget of one packed micro-batch (prompt and completion)."""
    micro_batch_sequences: Annotated[Positive | None, FREE] = None
    """Fixed number of completions per micro-batch, only for `loss.normalization: local_micro_batch`."""
    logprob_chunk_tokens: Annotated[Positive, FREE] = 2048
    """Tokens per chunk when logits are turned into log-probabilities."""
    head_dtype: HeadDtype = "float32"
    """Format of the learner's logits: float32 also for a bfloat16 model, or the model's (an engine's are in the model's)."""
    gradient_checkpointing: Annotated[Literal["auto"] | bool, FREE] = "auto"
    """Recompute activations in the backward pass; auto: only when the GPU would not hold them."""
    fused_kernels: Annotated[bool, FREE] = True
    """Liger's norm, rotary and SwiGLU kernels, on GPUs (where they exist for the model)."""
    start_deadline_s: Annotated[Seconds, FREE] = 600
    """Longest start of a learner rank, compiling its kernels included."""
    deadline_s: Annotated[Seconds, FREE] = 1800
    """Longest time for one optimizer step."""

    @model_validator(mode="after")
    def _recomputes(self) -> Learner:
        if self.offload_activations and self.gradient_checkpointing is False:
            raise ValueError(
                "learner.offload_activations needs gradient checkpointing: leave learner.gradient_checkpointing at auto"
            )
        return self
