"""CUDA IPC transport: learner ranks stage buckets in a buffer that the engine on the same GPU maps and copies."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import rebuild_cuda_tensor, reduce_tensor

from actors.weights.transport import Ends, Outgoing, PushGroup, Receiver, Sender, Transport
from openrs_ray.errors import RunError
from openrs_ray.run.spans import span
from openrs_ray.weights.digest import digest

Handles = dict[str, list[Any]]
"""Arguments that open a buffer, by the GPU's UUID."""


@dataclass(frozen=True, slots=True)
class Staged:
    index: int
    handles: Handles
    digest: int


class IpcSender(Sender):
    _staged: Iterator[Staged] | None = None
    _handles: Handles | None = None

    def stage(self, first: bool) -> Staged | None:
        """Stage the next (or first) bucket; None after the last, when nothing is gathered any more."""
        if first or self._staged is None:
            self._staged = self._stage_all()
        return next(self._staged, None)

    def _stage_all(self) -> Iterator[Staged]:
        if self._handles is None:  # once: every export must be matched by one release on the other side
            self._handles = export_ipc(self.weights.buffer)
        for index, (bucket, tensors) in enumerate(self.weights.gather()):
            with span("pack_bucket", bucket=index, nbytes=bucket.nbytes):
                value = int(digest(bucket.pack(tensors, self.weights.buffer)))  # reading it waits for the copies
            yield Staged(index, self._handles, value)


class IpcReceiver(Receiver):
    """Keeps the buffer mapped until `close`, and with it the learner's memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._handles: Handles | None = None
        self.mapped: torch.Tensor | None = None

    def receive(self, nbytes: int, parcel: Handles) -> torch.Tensor:
        if self.mapped is None or self._handles != parcel:
            self.mapped = None  # first: not both at once
            self.mapped = open_ipc(parcel, self._device)
            self._handles = parcel
        return self.mapped[:nbytes].clone()

    def close(self) -> None:
        self.mapped = self._handles = None


class Ipc(Transport):
    def sender(self, weights: Outgoing) -> Sender:
        return IpcSender(weights)

    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        return IpcReceiver(device)

    async def transfer(self, ends: Ends) -> list[int]:
        """Bucket by bucket: all ranks stage it, then all engines copy it."""
        digests: list[int] = []
        while staged := [part for part in await ends.send("stage", not digests) if part is not None]:
            index, value = staged[0].index, staged[0].digest
            if any(part.digest != value for part in staged):
                raise RunError(f"the learner ranks hold different weights in bucket {index} of the push")
            handles = {gpu: handle for part in staged for gpu, handle in part.handles.items()}
            await ends.receive([ends.buckets[index]], handles)
            digests.append(value)
        return digests

    def learner_variables(self) -> dict[str, str]:
        return {"PYTORCH_ALLOC_CONF": _fixed_segments(os.environ)}

    def engine_variables(self) -> dict[str, str]:
        return {"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}  # GPU memory handles are not plain data


def export_ipc(buffer: torch.Tensor) -> Handles:
    """Handle for processes on the same GPU."""
    _, arguments = reduce_tensor(buffer)
    return {str(torch.cuda.get_device_properties(buffer.device).uuid): list(arguments)}


def open_ipc(handles: Handles, device: torch.device) -> torch.Tensor:
    """RunError when no handle is for this process's GPU."""
    index = device.index or 0
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    if uuid not in handles:
        raise RunError(f"no learner rank shares GPU {uuid} with this rollout worker; ranks are on {sorted(handles)}")
    arguments = list(handles[uuid])
    arguments[6] = index  # the exporter's device index means nothing in this process
    tensor: torch.Tensor = rebuild_cuda_tensor(*arguments)
    return tensor


def _fixed_segments(environment: Mapping[str, str]) -> str:
    given = environment.get("PYTORCH_ALLOC_CONF") or environment.get("PYTORCH_CUDA_ALLOC_CONF") or ""
    kept = [setting for setting in given.split(",") if setting and "expandable_segments" not in setting]
    return ",".join([*kept, "expandable_segments:False"])  # their memory has another kind of handle
