"""Proves that layers in 8 bits compute with the pushed weights: quantizes what came once more, by itself, and compares.

A layer's numbers may lie in any order that its kernel likes, so they are read by a product with unit vectors: each column comes
out as number times scale, rounded to the model's format, from which the number follows exactly (16-bit formats are finer than
8-bit ones). Columns are those that changed since the last push: a layer that was left out still has the old ones.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from openrs_ray.weights.digest import column_digests

_COLUMNS = 4  # compared of a matrix, which a kernel takes as a whole
_CHUNK_ELEMENTS = 1 << 22  # quantized at once: bounds the float32 temporaries to a few times 16 MiB
_LARGEST = {"int8": 127.0, "fp8": 448.0}  # float8_e4m3fn's
_LEAST_FP8 = 1.0 / (448.0 * 512.0)
_LEAST_INT8 = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Format:
    """8-bit numbers and their float32 scale, as vLLM makes them. Example: Format("int8", by_rows=True)"""

    number: Literal["int8", "fp8"]
    by_rows: bool
    """A scale for each output row, else one for the matrix."""

    def scale(self, largest: torch.Tensor) -> torch.Tensor:
        """Scale, [rows, 1] or [1, 1], for the largest magnitudes of the rows [rows, 1]."""
        largest = largest.float() if self.by_rows else largest.float().amax().reshape(1, 1)
        # Divided by a tensor: by a Python number, GPUs multiply with the rounded reciprocal.
        scale = largest / torch.tensor(_LARGEST[self.number], device=largest.device)
        if not self.by_rows:
            return scale
        return scale.clamp_min(_LEAST_INT8 if self.number == "int8" else _LEAST_FP8)

    def numbers(self, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The 8-bit numbers as float32, shaped as `weight`."""
        # One scale for a matrix is applied by vLLM's static kernel, which multiplies with its reciprocal.
        scaled = weight / scale if self.by_rows else weight.float() * (1.0 / scale)
        return self._nearest(scaled.float())

    def read(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """The numbers, as float32, in products that were rounded to 16 bits. NaN stays."""
        return self._nearest(values.float() / scale)

    def _nearest(self, scaled: torch.Tensor) -> torch.Tensor:
        """Overwrites `scaled`, float32 of the caller's own making."""
        scaled = scaled.clamp_(-_LARGEST[self.number], _LARGEST[self.number])
        return scaled.round_() if self.number == "int8" else scaled.to(torch.float8_e4m3fn).float()


@dataclass(frozen=True, slots=True)
class _Expected:
    """Of a layer: some columns, and the scale."""

    columns: torch.Tensor
    """int64 [few]."""
    values: torch.Tensor
    """[rows, few]: numbers times scale."""
    scale: torch.Tensor
    width: int
    """Of the matrix."""


@dataclass
class QuantizedLayer:
    """One linear layer of a worker, over its pushes: begin(), add() for each part that comes, then differs()."""

    module: Any
    """A vLLM layer: `quant_method.apply(module, x, None)` is its product."""
    format: Format
    _whole: torch.Tensor | None = field(default=None, init=False)  # what came, until all of it has
    _largest: torch.Tensor | None = field(default=None, init=False)  # magnitude of each row, over all ranks
    _filled: int = field(default=0, init=False)
    _parts: list[tuple[str, slice]] = field(default_factory=list, init=False)
    _expected: _Expected | None = field(default=None, init=False)
    _digests: torch.Tensor | None = field(default=None, init=False)  # of the columns at the last push

    def begin(self) -> None:
        self._whole = self._largest = self._expected = None
        self._filled, self._parts = 0, []

    @property
    def sources(self) -> list[str]:
        """Names of the tensors that came, one for each part."""
        return [source for source, _ in self._parts]

    @property
    def is_whole(self) -> bool:
        """True when every number came."""
        return self._expected is not None

    def add(self, source: str, tensor: torch.Tensor, place: torch.Tensor, piece: torch.Tensor) -> None:
        """Take `piece`, of the received `tensor`, for `place`: a view of the layer's matrix in the received format."""
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
        """All that the scale of the piece is made for: ranks that share a row, or a matrix, share its scale."""
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
        """A few columns, those first that changed since the last push. No synchronisation with a GPU."""
        before, self._digests = self._digests, now
        differs = torch.ones_like(now) if before is None else (now != before).long()
        few = torch.topk(differs, min(_COLUMNS, len(now))).indices
        each = width // len(now)  # columns of one digest
        return (each * few[:, None] + torch.arange(each, device=now.device)).flatten()[:_COLUMNS]

    def differs(self) -> torch.Tensor:
        """bool [parts that came]: True where the whole layer computes with other numbers."""
        expected = self._expected
        assert expected is not None, "asked before every part came"
        wrong = (self._numbers(expected) != self.format.read(expected.values, expected.scale)).any(1)
        wrong = wrong | self._other_scale(expected.scale) | self._other_bias(wrong)
        return torch.stack([wrong[rows].any() for _, rows in self._parts])

    def _numbers(self, expected: _Expected) -> torch.Tensor:
        """[rows, few]: the live numbers of the expected columns."""
        columns, like = expected.columns, expected.values
        unit = torch.zeros(len(columns), expected.width, dtype=like.dtype, device=like.device)
        unit[torch.arange(len(columns), device=like.device), columns] = 1
        return self.format.read(self.module.quant_method.apply(self.module, unit, None).T, expected.scale)

    def _other_scale(self, scale: torch.Tensor) -> torch.Tensor:
        """Where the live scale differs: also by less than the product shows, unless the kernel has its own form of it."""
        live: torch.Tensor | None = getattr(self.module, "weight_scale", None)
        if live is None or live.numel() != scale.numel():
            return torch.zeros(1, dtype=torch.bool, device=scale.device)
        return live.reshape(-1) != scale.reshape(-1)

    def _other_bias(self, like: torch.Tensor) -> torch.Tensor:
        """Some CPU kernels keep a float32 copy of the bias."""
        live: torch.Tensor | None = getattr(self.module, "bias_fp32", None)
        return torch.zeros_like(like) if live is None else torch.ne(live, self.module.bias.float())


def _largest(values: torch.Tensor) -> torch.Tensor:
    """Largest magnitude of each row, [rows, 1]."""
    low, high = values.aminmax(dim=1, keepdim=True)
    return torch.maximum(low.abs(), high.abs())
