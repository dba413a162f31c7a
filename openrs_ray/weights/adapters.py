"""Base and adapter as an engine receives and merges them.

An engine keeps the frozen base in the host's memory, as it came before the first push. Every push brings the adapters alone. They
are merged into the base, never into weights of an earlier push, and every weight is loaded again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from openrs_ray.models.merging import merged

BASE, DOWN, UP, SQUARE, SCALE = "base:", "lora_A:", "lora_B:", "lora_square:", "lora_scale"
"""Prefixes of names in a push. Examples: "base:model.norm.weight", "lora_A:model.layers.0.mlp.up_proj.weight"."""
_KEPT_WITHIN, _DEVIATIONS = 0.1, 6
"""Tolerances of a merged change: a share of it, and standard deviations of its rounding."""

Weights = Sequence[tuple[str, torch.Tensor]]


def pairs(adapters: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B by the layer's name, from tensors named as in a push."""
    weights = [name.removeprefix(DOWN) for name in adapters if name.startswith(DOWN)]
    return {name.removesuffix(".weight"): (adapters[DOWN + name], adapters[UP + name]) for name in weights}


def squared_change(down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
    """Squared Frobenius norm of scale * up @ down, float64 [1], by traces. An engine must merge a change of this norm."""
    down, up = down.double(), up.double()
    return (scale**2 * ((up.T @ up) * (down @ down.T)).sum()).reshape(1)


@dataclass
class Adapted:
    """An engine's base and last adapters: begin(), take() for each bucket, policy(), then unmerged() and without_place()."""

    base_digests: list[torch.Tensor] = field(default_factory=list)
    """Digests of the base's buckets, as they came."""
    _base: list[dict[str, torch.Tensor]] = field(default_factory=list)  # by bucket
    _adapters: dict[str, torch.Tensor] = field(default_factory=dict)
    _squares: dict[str, torch.Tensor] = field(
        default_factory=dict
    )  # squared changes by weight, as the learner sent them
    _merged: dict[str, torch.Tensor] = field(default_factory=dict)  # by weight: see `_projection`
    _new: bool = True

    def begin(self) -> None:
        """A push begins."""
        self._adapters, self._squares, self._merged, self._new = {}, {}, {}, True

    def accepts(self, weights: Weights) -> bool:
        """True for a bucket of the base or of adapters, False for one of a policy that is trained whole."""
        return all(name.startswith((BASE, DOWN, UP, SQUARE, SCALE)) for name, _ in weights)

    def take(self, weights: Weights, digest: torch.Tensor) -> bool:
        """Keep a bucket of the base (which replaces an earlier base) or of adapters. Returns True for the base."""
        if not weights[0][0].startswith(BASE):
            for name, tensor in weights:
                kind = self._squares if name.startswith(SQUARE) else self._adapters
                kind[name.removeprefix(SQUARE)] = tensor.clone()
            return False
        if self._new:
            self._base, self.base_digests, self._new = [], [], False
        self._base.append({name.removeprefix(BASE): tensor.cpu() for name, tensor in weights})
        self.base_digests.append(digest)
        return True

    def policy(self, device: torch.device) -> Iterator[Weights]:
        """All weights, merged, one bucket of the base at a time; none before the first adapters."""
        if SCALE not in self._adapters:
            return
        scale = float(self._adapters[SCALE])
        for bucket in self._base:
            yield [(name, self._weight(name, base.to(device), scale)) for name, base in bucket.items()]

    def _weight(self, name: str, base: torch.Tensor, scale: float) -> torch.Tensor:
        down, up = self._adapters.get(DOWN + name), self._adapters.get(UP + name)
        if down is None or up is None:
            return base
        weight = merged(base, down, up, scale)
        self._merged[name] = _projection(weight, base, down, up, scale)
        return weight

    def unmerged(self) -> list[str]:
        """Weights whose change is not the learner's: its projection on the exact change is not as long as that is."""
        if not self._squares:
            return []
        names = list(self._squares)
        nothing = torch.zeros_like(next(iter(self._squares.values()))).repeat(2)
        found = torch.stack([self._merged.get(name, nothing) for name in names])
        square = torch.cat([self._squares[name] for name in names])
        wrong = ~(
            (found[:, 0] - square).abs() <= _KEPT_WITHIN * square + _DEVIATIONS * found[:, 1]
        )  # negated, so that NaN is wrong
        return [name for name, is_wrong in zip(names, wrong.tolist(), strict=True) if is_wrong]

    def without_place(self) -> list[str]:
        """Adapters without a weight in the base, or whose other half did not come."""
        known = {name for bucket in self._base for name in bucket}
        halves = {name for name in self._adapters if name != SCALE}
        return sorted(
            name
            for name in halves
            if name.split(":", 1)[1] not in known
            or not {DOWN + name.split(":", 1)[1], UP + name.split(":", 1)[1]} <= halves
        )


def _projection(
    weight: torch.Tensor, base: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float
) -> torch.Tensor:
    """Inner product of a weight's actual and exact change, and how far rounding alone takes it, float64 [2].

    A bfloat16 number is moved by a whole step of its format with the probability change / step, so the inner product has the
    variance sum of step * |change|^3: the expected one, since a young adapter may move no number of a small weight. What
    float32 sums lose, half of a last digit each, is added. Both steps are at most that share of the larger number.
    """
    change = scale * (up.float() @ down.float())
    along = weight.to(torch.float32, copy=True).sub_(base).mul_(change).sum(dtype=torch.float64)
    change = change.abs_()
    weighed = torch.maximum(base.abs(), change).mul_(change)  # float32: what vanishes here is far less than `by_sums`
    by_sums = 2.0**-24 * weighed.sum(dtype=torch.float64)
    by_steps = 2.0**-7 * weighed.mul_(change).mul_(change).sum(dtype=torch.float64)
    return torch.stack([along, by_sums + by_steps.sqrt() if base.dtype == torch.bfloat16 else by_sums])
