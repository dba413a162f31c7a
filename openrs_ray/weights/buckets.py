"""Flat byte buckets for parameters on their way to the engines."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

_ALIGN = 16  # Tensors start at multiples of this, for a view of any dtype


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """Example: ParameterSpec("model.norm.weight", "bfloat16", (1536,))"""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(math.prod(self.shape) * getattr(torch, self.dtype).itemsize)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parameters of one flat buffer, in order."""

    parameters: tuple[ParameterSpec, ...]

    @classmethod
    def of(cls, plain: Sequence[tuple[str, str, Sequence[int]]]) -> "Bucket":
        """From the result of `plain`."""
        return cls(tuple(ParameterSpec(name, dtype, tuple(shape)) for name, dtype, shape in plain))

    def plain(self) -> list[tuple[str, str, list[int]]]:
        """(name, dtype, shape)."""
        return [(spec.name, spec.dtype, list(spec.shape)) for spec in self.parameters]

    @property
    def nbytes(self) -> int:
        return sum(_aligned(spec.nbytes) for spec in self.parameters)

    def pack(self, tensors: Sequence[torch.Tensor], buffer: torch.Tensor) -> torch.Tensor:
        """Copy the parameters into a uint8 buffer; returns the filled part. ValueError on another dtype or shape."""
        packed = buffer[: self.nbytes]
        self.pack_part(tensors, 0, packed)
        return packed

    def pack_part(self, tensors: Sequence[torch.Tensor], start: int, part: torch.Tensor) -> None:
        """Fill `part`, uint8, with the bucket's bytes from `start` on. ValueError on another dtype or shape."""
        at = -start  # where the parameter begins within the part
        for tensor, spec in zip(tensors, self.parameters, strict=True):
            end = at + _aligned(spec.nbytes)
            if end > 0 and at < len(part):
                if tuple(tensor.shape) != spec.shape or tensor.dtype != getattr(torch, spec.dtype):
                    raise ValueError(
                        f"{spec.name} is {tensor.dtype} {tuple(tensor.shape)}, not {spec.dtype} {spec.shape}"
                    )
                content = tensor.detach().reshape(-1).view(torch.uint8)[max(0, -at) : len(part) - at]
                first = max(0, at)
                part[first : first + len(content)].copy_(content)
                part[max(0, at + spec.nbytes) : end].zero_()
            at = end

    def unpack(self, buffer: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        """Views into the buffer, by name."""
        return [
            (spec.name, view[: spec.nbytes].view(getattr(torch, spec.dtype)).view(spec.shape))
            for view, spec in zip(self._slices(buffer), self.parameters, strict=True)
        ]

    def _slices(self, buffer: torch.Tensor) -> Iterator[torch.Tensor]:
        start = 0
        for spec in self.parameters:
            end = start + _aligned(spec.nbytes)
            yield buffer[start:end]
            start = end


def plan_buckets(parameters: Sequence[ParameterSpec], bucket_bytes: int) -> tuple[Bucket, ...]:
    """Fill buckets in parameter order up to `bucket_bytes`; a larger parameter gets its own."""
    buckets: list[Bucket] = []
    current: list[ParameterSpec] = []
    size = 0
    for spec in parameters:
        if current and size + _aligned(spec.nbytes) > bucket_bytes:
            buckets.append(Bucket(tuple(current)))
            current, size = [], 0
        current.append(spec)
        size += _aligned(spec.nbytes)
    if current:
        buckets.append(Bucket(tuple(current)))
    return tuple(buckets)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGN) * _ALIGN
