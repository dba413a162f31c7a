"""Proves that an engine computes with the pushed weights, in every tensor, however few bytes changed.

vLLM's loaders cut, fuse and shard tensors; on a CPU they pack matrices. Their copies are recorded. Afterwards live tensors
are compared by digest, and packed matrices by a product with unit vectors, which returns changed columns exactly. Layers in
8 bits have a proof of their own (`openrs_ray.weights.quantized`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from openrs_ray.weights.digest import column_digests, digest
from openrs_ray.weights.quantized import Format, QuantizedLayer

_COLUMNS = 4  # compared of a packed matrix, which is packed as a whole
_SMALLEST = torch.finfo(torch.float32).tiny  # below this, products may be flushed to zero

Target = tuple[str, str]
"""Names of a module and of one of its tensors."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a received tensor, and its place in the model."""

    source: str
    target: Target
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    digest: torch.Tensor
    columns: torch.Tensor
    """int64 [few]; empty except of a matrix on a CPU."""
    values: torch.Tensor
    """[rows, few], of those columns."""

    def live(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.as_strided(self.shape, self.stride, self.offset)

    def rows(self) -> slice:
        """Rows of the fused matrix that this piece fills."""
        first = self.offset // self.stride[0]
        return slice(first, first + self.shape[0])


class Effect:
    """Observes pushes into a model: begin(), loading() around every load, then missing() and stale()."""

    def __init__(self, model: nn.Module, formats: Mapping[str, Format] | None = None) -> None:
        """`formats`: by name of the modules that hold their weight in 8 bits."""
        self._model = model
        self._quantized = {
            name: QuantizedLayer(model.get_submodule(name), kind) for name, kind in (formats or {}).items()
        }
        self._found: dict[tuple[str, Target, int], Piece] = {}
        self._received: list[str] = []
        self._targets: dict[int, Target] = {}
        self._columns: dict[tuple[Target, int], torch.Tensor] = {}  # last digests of every piece's columns

    def begin(self) -> None:
        self._found, self._received = {}, []
        for layer in self._quantized.values():
            layer.begin()
        self._targets = {
            tensor.untyped_storage()._cdata: (name, own)
            for name, module in self._model.named_modules()
            for own, tensor in (module._parameters | module._buffers).items()
            if tensor is not None
        }

    @property
    def _pieces(self) -> list[Piece]:
        return list(self._found.values())

    @contextmanager
    def loading(self, weights: Sequence[tuple[str, torch.Tensor]]) -> Iterator[None]:
        """Record every copy out of these tensors into the model."""
        self._received += [name for name, _ in weights]
        with _Copies(self, weights):
            yield

    def record(self, source: str, tensor: torch.Tensor, place: torch.Tensor, piece: torch.Tensor) -> None:
        """Record that `piece`, a part of the received `tensor`, was copied into `place`, a view of one of the model's tensors."""
        target = self._targets.get(place.untyped_storage()._cdata)
        offset = int(place.storage_offset())
        if target is None or (source, target, offset) in self._found:  # a bias is loaded twice
            return
        piece = piece.to(place.dtype).expand(place.shape)
        if target[0] in self._quantized and target[1] == "weight":
            self._quantized[target[0]].add(source, tensor, place, piece)
            return
        columns, values, summed = torch.empty(0, dtype=torch.int64), torch.empty(0), piece
        if _by_columns(piece):
            summed = column_digests(piece)
            columns = self._changed((target, offset), summed, piece.shape[1] // len(summed))
            values = piece[:, columns]
        found = digest(_bytes(summed))
        self._found[source, target, offset] = Piece(
            source, target, tuple(place.shape), place.stride(), offset, found, columns, values
        )

    def _changed(self, key: tuple[Target, int], now: torch.Tensor, width: int) -> torch.Tensor:
        """A few columns that changed since the last push; a digest covers `width` of them."""
        before = self._columns.get(key)
        self._columns[key] = now
        changed = torch.arange(len(now)) if before is None else (now != before).nonzero()[:, 0]
        return (width * changed[:_COLUMNS, None] + torch.arange(width)).flatten()[:_COLUMNS]

    def missing(self, without: set[str]) -> list[str]:
        """Received tensors and parameters that were not loaded."""
        quantized = {source for layer in self._quantized.values() for source in layer.sources}
        unread = set(self._received) - {piece.source for piece in self._pieces} - quantized
        filled = {".".join(piece.target) for piece in self._pieces} | self._made_anew()
        empty = {name for name, _ in self._model.named_parameters()} - filled - without
        return sorted(unread | empty)

    def _made_anew(self) -> set[str]:
        """Parameters that layers in 8 bits compute from received weights: numbers, scales and the kernels' own."""
        return {
            f"{name}.{own}"
            for name, layer in self._quantized.items()
            if layer.is_whole
            for own in layer.module._parameters
            if own != "bias"
        }

    def stale(self) -> list[str]:
        """Loaded tensors that the model does not compute with."""
        proven, wrong = self._by_digest()
        by_columns, wrong_columns = self._by_packed()
        unproven = {piece.source for piece in self._pieces} - proven - by_columns
        return sorted(wrong | wrong_columns | unproven | self._by_numbers())

    def _by_digest(self) -> tuple[set[str], set[str]]:
        """Names of readable tensors, and those among them that differ."""
        modules = dict(self._model.named_modules())
        live = [(piece, getattr(modules[piece.target[0]], piece.target[1]).data) for piece in self._pieces]
        read = [(piece, tensor) for piece, tensor in live if tensor.numel()]
        if not read:
            return set(), set()
        found = torch.stack([_digest(piece.live(tensor)) for piece, tensor in read])
        came = torch.stack([piece.digest for piece, _ in read])
        differs = (found != came).tolist()  # the one synchronisation
        wrong = {piece.source for (piece, _), differ in zip(read, differs, strict=True) if differ}
        return {piece.source for piece, _ in read}, wrong

    def _by_numbers(self) -> set[str]:
        """Names of tensors in 8-bit layers that compute with other numbers or that lack a part."""
        layers = [layer for layer in self._quantized.values() if layer.sources]
        lacking = {source for layer in layers if not layer.is_whole for source in layer.sources}
        whole = [layer for layer in layers if layer.is_whole]
        if not whole:
            return lacking
        sources = [source for layer in whole for source in layer.sources]
        differs = torch.cat([layer.differs() for layer in whole]).tolist()  # the one synchronisation
        return lacking | {source for source, differ in zip(sources, differs, strict=True) if differ}

    def _by_packed(self) -> tuple[set[str], set[str]]:
        """Names of tensors in packed matrices, and those among them that differ."""
        modules = dict(self._model.named_modules())
        packed = [module for module in modules.values() if hasattr(module, "cpu_linear")]
        seen, wrong = set(), set()
        for module in packed:
            pieces = [
                piece for piece in self._pieces if getattr(modules[piece.target[0]], piece.target[1]) is module.weight
            ]
            seen |= {piece.source for piece in pieces}
            wrong |= _wrong_columns(module, [piece for piece in pieces if piece.columns.numel()])
        return seen, wrong


def _by_columns(tensor: torch.Tensor) -> bool:
    """True for matrices that may end up packed."""
    return tensor.device.type == "cpu" and tensor.dim() == 2


def _digest(tensor: torch.Tensor) -> torch.Tensor:
    return digest(_bytes(column_digests(tensor) if _by_columns(tensor) else tensor))


def _wrong_columns(module: Any, pieces: Sequence[Piece]) -> set[str]:
    if not pieces:
        return set()
    columns = torch.cat([piece.columns for piece in pieces])
    unit = torch.zeros(len(columns), pieces[0].shape[1], dtype=pieces[0].values.dtype)
    unit[torch.arange(len(columns)), columns] = 1
    found = module.cpu_linear(unit, module.weight, None).float()
    wrong, start = set(), 0
    for piece in pieces:
        own = found[start : start + len(piece.columns), piece.rows()].T
        start += len(piece.columns)
        if not bool(((own - piece.values).abs() <= _SMALLEST).all()):
            wrong.add(piece.source)
    return wrong


class _Copies(TorchDispatchMode):
    """Sees every copy out of received tensors, or of tensors made from them: some families reorder their heads."""

    def __init__(self, effect: Effect, weights: Sequence[tuple[str, torch.Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._effect = effect
        self._received = dict(weights)
        self._spans = [(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, name) for name, tensor in weights]
        self._made: list[torch.Tensor] = []  # kept alive: their addresses must not be reused

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:
            for name in self._sources(args[1]):
                self._effect.record(name, self._received[name], args[0], args[1])
            return func(*args, **(kwargs or {}))
        found = func(*args, **(kwargs or {}))
        read = args[0] if args and isinstance(args[0], list | tuple) else args[:1]
        names = set().union(*map(self._sources, read))
        is_new = isinstance(found, torch.Tensor) and not found.is_meta and found.numel() and not self._sources(found)
        if names and is_new:
            self._made.append(found)
            self._spans += [(found.data_ptr(), found.data_ptr() + found.nbytes, name) for name in names]
        return found

    def _sources(self, tensor: Any) -> set[str]:
        """Names of the received tensors that a tensor is part of or was made from."""
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
            return set()
        at = tensor.data_ptr()
        return {name for first, end, name in self._spans if first <= at < end}


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
