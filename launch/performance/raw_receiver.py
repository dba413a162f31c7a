"""The receiving end of `raw_push`: loaded inside vLLM's worker process."""

from collections.abc import Sequence

from actors.weights.receiver import WorkerExtension
from launch.performance.raw_push import MemoryMark, copy, receive


class RawReceiver(MemoryMark, WorkerExtension):
    def raw_receive(self, sizes: Sequence[int]) -> float:
        """Seconds; a push must have come before."""
        engine = self.weight_transfer_engine
        if engine._group is not None:
            return receive(engine._group, sizes, engine.device)
        assert engine._mapped is not None, "raw_receive before the first push"
        return copy(engine._mapped[1], sizes)
