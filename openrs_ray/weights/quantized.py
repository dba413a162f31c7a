"""Proves that layers in 8 bits compute with the pushed weights: quantizes them a second time, independently, and compares.

Kernels store the numbers of a layer in an order of their own, so they are read by a product with unit vectors. Each column comes
out as number times scale, rounded to the model's format, which is fine enough to recover the 8-bit number exactly. Columns that
changed since the last push are compared first, because a layer that was left out still has the old ones.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from openrs_ray.weights.digest import column_digests

_COLUMNS = 4  # compared per matrix
_CHUNK_ELEMENTS = 1 << 22  # quantized in one go: bounds the float32 temporaries to a few times 16 MiB
_LARGEST = {"int8": 127.0, "fp8": 448.0}  # fp8 is float8_e4m3fn
_LEAST_FP8 = 1.0 / (448.0 * 512.0)
_LEAST_INT8 = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Format:
    """A format of 8-bit numbers with float32 scales, as vLLM computes them. Example: Format("int8", by_rows=True)"""

    number: Literal["int8", "fp8"]
    by_rows: bool
    """True for a scale for each output row, False for one scale for the matrix."""

    def scale(self, largest: torch.Tensor) -> torch.Tensor:
        """Scales, [rows, 1] or [1, 1], from the largest magnitude of each row, [rows, 1]."""
        largest = largest.float() if self.by_rows else largest.float().amax().reshape(1, 1)
        # The divisor is a tensor, because with a Python number GPUs multiply by its rounded reciprocal.
        scale = largest / torch.tensor(_LARGEST[self.number], device=largest.device)
        if not self.by_rows:
            return scale
        return scale.clamp_min(_LEAST_INT8 if self.number == "int8" else _LEAST_FP8)

    def numbers(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The 8-bit numbers as float32, shaped as `weight`."""
        # vLLM's static kernel, which applies a single scale, multiplies by its reciprocal.
        scaled = weight / scale if self.by_rows else weight.float() * (1.0 / scale)
        return self._nearest(scaled.float())

    def read(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The 8-bit numbers, as float32, from number times scale rounded to 16 bits. NaN stays NaN."""
        return self._nearest(values.float() / scale)

    def _nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """The nearest 8-bit numbers, as float32. Overwrites `scaled`."""
        scaled = scaled.clamp_(-_LARGEST[self.number], _LARGEST[self.number])
        return scaled.round_() if self.number == "int8" else scaled.to(torch.float8_e4m3fn).float()


@dataclass(frozen=True, slots=True)
class _Expected:
    """Some columns of a layer as they should be, and its scale."""

    columns: torch.Tensor
    """Indices of the columns, int64 [few]."""
    values: torch.Tensor
    """Numbers times scale, [rows, few]."""
    scale: torch.Tensor
    width: int
    """Columns of the whole matrix."""


@dataclass
class QuantizedLayer:
    """Checks one linear layer of a worker in every push: begin(), add() for each received part, then differs()."""

    module: Any
    """A vLLM layer: `quant_method.apply(module, x, None)` is its product."""
    format: Format
    _whole: torch.Tensor | None = field(default=None, init=False)  # received weights, until complete
    _largest: torch.Tensor | None = field(default=None, init=False)  # largest magnitude of each row, over all ranks
    _filled: int = field(default=0, init=False)
    _parts: list[tuple[str, slice]] = field(default_factory=list, init=False)
    _expected: _Expected | None = field(default=None, init=False)
    _digests: torch.Tensor | None = field(default=None, init=False)  # digests of the columns at the last push

    def begin(self) -> None:
        self._whole = self._largest = self._expected = None
        self._filled, self._parts = 0, []

    @property
    def sources(self) -> list[str]:
        """Names of the received tensors, one for each part."""
        return [source for source, _ in self._parts]

    @property
    def is_whole(self) -> bool:
        """True once every number was received."""
        return self._expected is not None

    def add(self, source: str, tensor: torch.Tensor, place: torch.Tensor, piece: torch.Tensor) -> None:
        """Add `piece`, a part of the received `tensor`, at `place`, a view of the layer's matrix in the received format."""
        rows = slice(first := place.storage_offset() // place.stride(0), first + place.shape[0])
        if self._whole is None or self._largest is None:
            shape = torch.Size((place.untyped_storage().nbytes() // place.itemsize // place.stride(0), place.stride(0)))
            self._whole = torch.empty(shape, dtype=place.dtype, device=piece.device)
            self._largest = torch.zeros(shape[0], 1, dtype=place.dtype, device=piece.device)
        self._whole.as_strided(place.shape, place.stride(), place.storage_offset()).copy_(piece)
        own = _largest(self._seen(piece, tensor).to(place.dtype))
        self._largest[rows] = torch.maximum(self._largest[rows], own)
        self._filled += piece.numel()
        self._parts.append((source, rows))
        if self._filled == self._whole.numel():
            self._settle(self._whole, self._largest)
            self._whole = self._largest = None

    def _seen(self, piece: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        """The part of `tensor` that determines the scale of `piece`: ranks that share a row, or a matrix, share its scale."""
        shares_rows = tensor.dim() == 2 and piece.shape[0] == tensor.shape[0] and piece.shape[1] < tensor.shape[1]
        if self.format.by_rows:
            return tensor if shares_rows else piece
        return tensor.reshape(1, -1)

    def _settle(self, whole: torch.Tensor, largest: torch.Tensor) -> None:
        scale = self.format.scale(largest)
        step = max(1, _CHUNK_ELEMENTS // whole.shape[1])
        for start in range(0, len(whole), step):
            rows = slice(start, start + step)
            own = scale[rows] if self.format.by_rows else scale
            whole[rows] = self.format.numbers(whole[rows], own).mul_(own)
        columns = self._changed(column_digests(whole), whole.shape[1])
        self._expected = _Expected(columns, whole[:, columns], scale, whole.shape[1])

    def _changed(self, now: torch.Tensor, width: int) -> torch.Tensor:
        """Indices of a few columns, those first that changed since the last push, without synchronising with a GPU."""
        before, self._digests = self._digests, now
        differs = torch.ones_like(now) if before is None else (now != before).long()
        few = torch.topk(differs, min(_COLUMNS, len(now))).indices
        each = width // len(now)  # columns of one digest
        return (each * few[:, None] + torch.arange(each, device=now.device)).flatten()[:_COLUMNS]

    def differs(self) -> torch.Tensor:
        """bool [received parts], True for parts with whose rows the layer computes differently. The layer must be whole."""
        expected = self._expected
        assert expected is not None, "differs() before every part was received"
        wrong = (self._numbers(expected) != self.format.read(expected.values, expected.scale)).any(1)
        wrong = wrong | self._other_scale(expected.scale) | self._other_bias(wrong)
        return torch.stack([wrong[rows].any() for _, rows in self._parts])

    def _numbers(self, expected: _Expected) -> torch.Tensor:
        """The live numbers of the expected columns, [rows, few]."""
        columns, like = expected.columns, expected.values
        unit = torch.zeros(len(columns), expected.width, dtype=like.dtype, device=like.device)
        unit[torch.arange(len(columns), device=like.device), columns] = 1
        return self.format.read(self.module.quant_method.apply(self.module, unit, None).T, expected.scale)

    def _other_scale(self, scale: torch.Tensor) -> torch.Tensor:
        """True where the live scale differs, even by less than a product shows. A kernel's own form of it is not compared."""
        live: torch.Tensor | None = getattr(self.module, "weight_scale", None)
        if live is None or live.numel() != scale.numel():
            return torch.zeros(1, dtype=torch.bool, device=scale.device)
        return live.reshape(-1) != scale.reshape(-1)

    def _other_bias(self, like: torch.Tensor) -> torch.Tensor:
        """True where the float32 copy of the bias differs that some CPU kernels keep."""
        live: torch.Tensor | None = getattr(self.module, "bias_fp32", None)
        return torch.zeros_like(like) if live is None else torch.ne(live, self.module.bias.float())


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Largest magnitude of each row, [rows, 1]."""
    low, high = values.aminmax(dim=1, keepdim=True)
    return torch.maximum(low.abs(), high.abs())
