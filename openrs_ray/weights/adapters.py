"""Base and adapter as an engine receives and merges them.

An engine keeps the frozen base in the host's memory, as it came with the first push. Later pushes bring the adapters alone; they
are merged into the base, never into what an earlier push has left, and every weight is loaded again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from openrs_ray.models.merging import merged

BASE, DOWN, UP, SCALE = "base:", "lora_A:", "lora_B:", "lora_scale"
"""How names begin on their way to an engine: "base:model.norm.weight", "lora_A:model.layers.0.mlp.up_proj.weight"."""

Weights = Sequence[tuple[str, torch.Tensor]]


def pairs(adapters: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B by the layer's name, from tensors by their names here."""
    weights = [name.removeprefix(DOWN) for name in adapters if name.startswith(DOWN)]
    return {name.removesuffix(".weight"): (adapters[DOWN + name], adapters[UP + name]) for name in weights}


@dataclass
class Adapted:
    """The base of an engine and its last adapters: begin(), then keep() and take() in any order, then policy()."""

    base_digests: list[torch.Tensor] = field(default_factory=list)
    """Of the base's buckets, as they came."""
    _base: list[dict[str, torch.Tensor]] = field(default_factory=list)  # by bucket
    _adapters: dict[str, torch.Tensor] = field(default_factory=dict)
    _new: bool = True

    def begin(self) -> None:
        """A push begins."""
        self._adapters, self._new = {}, True

    def accepts(self, weights: Weights) -> bool:
        """False for a bucket of a policy whose weights are all trained."""
        return all(name.startswith((BASE, DOWN, UP, SCALE)) for name, _ in weights)

    def take(self, weights: Weights, digest: torch.Tensor) -> bool:
        """Keep a bucket of the base (in place of an earlier base), or of adapters; True for the base."""
        if not weights[0][0].startswith(BASE):
            self._adapters |= {name: tensor.clone() for name, tensor in weights}
            return False
        if self._new:
            self._base, self.base_digests, self._new = [], [], False
        self._base.append({name.removeprefix(BASE): tensor.cpu() for name, tensor in weights})
        self.base_digests.append(digest)
        return True

    def policy(self, device: torch.device) -> Iterator[Weights]:
        """All weights, merged, a bucket of the base at a time; nothing without adapters."""
        scale = self._adapters.get(SCALE)
        for bucket in self._base if scale is not None else ():
            yield [(name, self._weight(name, base.to(device), float(scale))) for name, base in bucket.items()]

    def _weight(self, name: str, base: torch.Tensor, scale: float) -> torch.Tensor:
        down, up = self._adapters.get(DOWN + name), self._adapters.get(UP + name)
        return base if down is None or up is None else merged(base, down, up, scale)

    def without_place(self) -> list[str]:
        """Adapters that no weight of the base is for, or whose other half did not come."""
        known = {name for bucket in self._base for name in bucket}
        halves = {name for name in self._adapters if name != SCALE}
        return sorted(
            name
            for name in halves
            if name.split(":", 1)[1] not in known
            or not {DOWN + name.split(":", 1)[1], UP + name.split(":", 1)[1]} <= halves
        )
