"""How many bytes of tensors are alive, and their peak, counted storage by storage."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the storages of CPU tensors that operations under this mode make, real or fake, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.device.type == "cpu":
                self._count(value.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.bytes += storage.nbytes()
            weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self.bytes -= self._sizes.pop(key)

    def leave_out(self, tensors: Any) -> None:
        """Do not count these, nor views of them."""
        for tensor in tensors:
            self._sizes[tensor.untyped_storage()._cdata] = 0

    def restart(self) -> int:
        """The peak so far; a new one is counted from here."""
        peak, self.peak = self.peak, self.bytes
        return peak
