"""The parent's side of one checking process."""

import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from openrs_ray.common.private_folder import MARK
from openrs_ray.errors import RunError
from openrs_ray.records import Verdict

START_DEADLINE_S = 120.0
"""For imports and warm-up, which take about a second."""
WALL_FACTOR = 6
"""Deadlines of wall time that a check may take on a loaded machine."""
_SHORTEST_WAIT_S = 0.05
_KEPT = frozenset(
    {
        *("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("OPENRS_CACHE", MARK),
    }
)
_KEPT_PREFIXES = ("LC_", "PYTHON")  # Variables of a Python program, and the mark of an actor's processes


class CheckProcess:
    """Judges one item at a time: `wait_ready`, `check` until it raises, `end`.

    A fresh interpreter: the parent's threads, CUDA and main module stay out. It ends with the thread that made it.
    """

    def __init__(self, pickled_start: bytes, memory_gib: float) -> None:
        """`pickled_start`: check and warm-up items."""
        ours, theirs = socket.socketpair()
        command = [
            *(sys.executable, "-P", "-m", "openrs_ray.rewards.child"),
            *map(str, (theirs.fileno(), int(memory_gib * 2**30), os.getpid())),
        ]
        self._pipe = Connection(ours.detach())
        try:
            with theirs:
                self._popen = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                    process_group=0,  # Ctrl-C is for the parent, which then ends its processes
                )
        except OSError as error:
            self._pipe.close()
            raise RunError(f"A process to check answers could not be started: {error}.") from error
        self._pickled_start = pickled_start
        self.checks = 0

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_ready(self) -> None:
        """RunError when the warm-up fails or takes too long."""
        try:
            self._pipe.send_bytes(self._pickled_start)
            if not self._pipe.poll(START_DEADLINE_S):
                raise RunError(f"A process to check answers was not ready within {START_DEADLINE_S:g} s.")
            self._pipe.recv()
        except (EOFError, OSError) as error:
            code = self.end()
            raise RunError(
                f"A process to check answers ended with exit code {code} while it started; its error stands above."
            ) from error

    def check(self, pickled_item: bytes, deadline_s: float) -> Verdict:
        """TimeoutError past the deadline, EOFError or OSError for a dead process.

        The deadline is CPU time, so that load does not change verdicts; a process that sleeps has wall time.
        """
        start, cpu_start = time.monotonic(), self._cpu()[0]
        self._pipe.send_bytes(pickled_item)
        wait_s = deadline_s
        while not self._pipe.poll(wait_s):
            cpu_s, wants_cpu = self._cpu()
            cpu_left_s = deadline_s - (cpu_s - cpu_start)
            clock_left_s = start + WALL_FACTOR * deadline_s - time.monotonic()
            # The parent may have been kept waiting itself: an answer that is there is in time.
            if (min(cpu_left_s, clock_left_s) <= 0 or not wants_cpu) and not self._pipe.poll(0):
                raise TimeoutError
            # CPU time is counted in ticks of 10 ms.
            wait_s = max(0.0, min(max(cpu_left_s, _SHORTEST_WAIT_S), clock_left_s))
        verdict: Verdict = self._pipe.recv()
        self.checks += 1
        return verdict

    def _cpu(self) -> tuple[float, bool]:
        """CPU seconds so far, and True if it computes or waits for a CPU. OSError when it is gone."""
        state, *fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = fields[10:12]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"), state == "R"

    def kill(self) -> None:
        """Callable from any thread; a running `check` raises."""
        self._popen.kill()

    def end(self) -> int:
        """Kill the process and return its exit code. May be called twice."""
        self._popen.kill()
        code = self._popen.wait()
        self._pipe.close()
        return code


def _environment() -> dict[str, str]:
    """Variables without tokens of Ray, the Hub or a cloud."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "PYTHONHASHSEED": "0",  # SymPy's order of terms follows hashes: the same answer gets the same verdict
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
