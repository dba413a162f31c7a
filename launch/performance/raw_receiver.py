"""The receiving end of `raw_push`: loaded inside vLLM's worker process."""

from collections.abc import Sequence

from actors.weights.broadcast import BroadcastReceiver
from actors.weights.ipc import IpcReceiver
from actors.weights.receiver import WorkerExtension
from actors.weights.shared import SharedReceiver
from launch.performance.raw_push import MemoryMark, copy, copy_pieces, receive


class RawReceiver(MemoryMark, WorkerExtension):
    def raw_receive(self, sizes: Sequence[int]) -> float:
        """Seconds; a push must have come before."""
        engine = self.weight_transfer_engine
        if isinstance(engine.end, BroadcastReceiver):
            return receive(engine.end.group, sizes, engine.device)
        if isinstance(engine.end, SharedReceiver):
            return copy_pieces(engine.end, sizes)
        assert isinstance(engine.end, IpcReceiver) and engine.end.mapped is not None, (
            "raw_receive before the first push"
        )
        return copy(engine.end.mapped, sizes)
