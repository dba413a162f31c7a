"""A transport by way of a folder that the learner and the engines both see."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from actors.weights.transport import Ends, Outgoing, PushGroup, Receiver, Sender, Transport
from openrs_ray.weights.digest import digest


class FileSender(Sender):
    def __init__(self, weights: Outgoing) -> None:
        super().__init__(weights)
        self.folder = TemporaryDirectory()

    def write(self) -> list[tuple[str, int]]:
        """File and digest of every bucket, from rank 0; the other ranks are here to gather."""
        written = []
        for number, (bucket, tensors) in enumerate(self.weights.gather()):
            if self.weights.rank == 0:
                file = Path(self.folder.name, str(number))
                buffer = bucket.pack(tensors, self.weights.buffer)
                buffer.cpu().numpy().tofile(file)
                written.append((str(file), int(digest(buffer))))
        return written


class FileReceiver(Receiver):
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def receive(self, nbytes: int, parcel: str) -> torch.Tensor:
        return torch.from_file(parcel, size=nbytes, dtype=torch.uint8).clone().to(self.device)

    def close(self) -> None: ...


class Files(Transport):
    def sender(self, weights: Outgoing) -> Sender:
        return FileSender(weights)

    def receiver(self, group: PushGroup, rank: int, device: torch.device) -> Receiver:
        return FileReceiver(device)

    async def transfer(self, ends: Ends) -> list[int]:
        written = (await ends.send("write"))[0]
        for bucket, (file, _) in zip(ends.buckets, written, strict=True):
            await ends.receive([bucket], file)
        return [value for _, value in written]
