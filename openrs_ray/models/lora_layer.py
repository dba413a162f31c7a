"""A linear layer of peft that computes with the merged weight.

peft adds the adapter's small output to a bfloat16 sum, where most of it is rounded away, and engines would have to do the same.
Here the learner computes with the very weight that engines and exported policies have (`openrs_ray.models.merging`): one
product instead of three, and no difference between learner and sampler beyond that of full fine-tuning.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F

from openrs_ray.models.merging import merged

_ADAPTER = "default"  # peft's name for the only one


class MergedLinear(Linear):
    bypassed = False
    """True while the start model is asked."""

    @property
    def base(self) -> nn.Linear:
        return cast(nn.Linear, self.base_layer)

    @property
    def down(self) -> nn.Parameter:
        """[rank, in], peft's A."""
        return cast(nn.Parameter, self.lora_A[_ADAPTER].weight)

    @property
    def up(self) -> nn.Parameter:
        """[out, rank], peft's B."""
        return cast(nn.Parameter, self.lora_B[_ADAPTER].weight)

    @property
    def scale(self) -> float:
        return float(self.scaling[_ADAPTER])

    def forward(self, x: Float[Tensor, "... in"], *_: Any, **__: Any) -> Float[Tensor, "... out"]:
        if self.bypassed:
            found: Tensor = self.base(x)
            return found
        arguments = (x, self.base.weight, self.base.bias, self.down, self.up, self.scale)
        product: Tensor = _MergedProduct.apply(*arguments)  # type: ignore[no-untyped-call]
        return product


class _MergedProduct(torch.autograd.Function):
    """x @ merged.T + bias; the backward pass merges again, so no merged weight is kept.

    With G = dL/dy: dL/dx = G merged, dL/dA = scale (G B)^T x, dL/dB = scale G^T (x A^T), as if nothing were rounded in merging.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return F.linear(x, merged(weight, down, up, scale), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors
        x_gradient = gradient @ merged(weight, down, up, ctx.scale) if ctx.needs_input_grad[0] else None
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        down_gradient = ctx.scale * ((rows @ up).T @ inputs)
        up_gradient = ctx.scale * (rows.T @ (inputs @ down.T))
        return x_gradient, None, None, down_gradient, up_gradient, None
