"""The parent's side of one checking process."""

import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from openrs_ray.common.private_folder import MARK
from openrs_ray.errors import RunError

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


class Raised(Exception):
    """The check raised; its process can go on."""


class OutOfMemory(Exception):
    """The check ran into the memory limit."""


class OwnRecords(pickle.Unpickler):
    """Makes objects of this project's classes only: what a user's code has made would import that code here."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] != __package__.partition(".")[0]:
            raise Raised(f"its result holds an object of {module}.{name}, which stays in its process")
        return super().find_class(module, name)


class CheckProcess:
    """Judges one item at a time: `wait_ready`, `check` until it raises anything but Raised, `end`.

    A fresh interpreter: the parent's threads, CUDA and main module stay out. It ends with the thread that made it, and takes
    the processes that a check has started with it, as far as they stayed in its group.
    """

    def __init__(
        self,
        pickled_start: bytes,
        memory_gib: float,
        printed: Callable[[str], None] | None = None,
        reader: type[pickle.Unpickler] = OwnRecords,
    ) -> None:
        """`pickled_start`: check, warm-up items, preparation. `printed` gets each line that a part of a check prints.

        `reader` makes the results.
        """
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
        self._printed = printed
        self._reader = reader
        self.checks = 0
        self.part = ""
        """Of the check that runs or was killed (`openrs_ray.common.telling`)."""

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_ready(self) -> None:
        """RunError when the warm-up fails or takes too long."""
        try:
            self._pipe.send_bytes(self._pickled_start)
            until = time.monotonic() + START_DEADLINE_S
            answer = None
            while answer is None:
                if not self._pipe.poll(max(0.0, until - time.monotonic())):
                    raise RunError(
                        f"A process to check answers was not ready within {START_DEADLINE_S:g} s{self.where}."
                    )
                answer = self._answer()
        except (EOFError, OSError) as error:
            code = self.end()
            raise RunError(
                f"A process to check answers ended with exit code {code} while it started{self.where}."
            ) from error
        if answer[0] == "unready":
            raise RunError(f"A process to check answers failed while it started: {answer[1]}")

    def check(self, pickled_item: bytes, deadline_s: float) -> Any:
        """The result. TimeoutError past the deadline, EOFError or OSError for a dead process, Raised, OutOfMemory.

        The deadline is CPU time, so that load does not change verdicts; a process that sleeps has wall time.
        """
        start, cpu_start = time.monotonic(), self._cpu()[0]
        self.part = ""
        self._pipe.send_bytes(pickled_item)
        wait_s = deadline_s
        answer = None
        while answer is None:
            if self._pipe.poll(wait_s):
                answer = self._answer()
                continue
            cpu_s, wants_cpu = self._cpu()
            cpu_left_s = deadline_s - (cpu_s - cpu_start)
            clock_left_s = start + WALL_FACTOR * deadline_s - time.monotonic()
            # The parent may have been kept waiting itself: an answer that is there is in time.
            if (min(cpu_left_s, clock_left_s) <= 0 or not wants_cpu) and not self._pipe.poll(0):
                raise TimeoutError
            # CPU time is counted in ticks of 10 ms.
            wait_s = max(0.0, min(max(cpu_left_s, _SHORTEST_WAIT_S), clock_left_s))
        self.checks += 1
        kind, content = answer
        if kind == "done":
            return content
        raise OutOfMemory(content) if kind == "no_memory" else Raised(content)

    def _answer(self) -> tuple[str, Any] | None:
        """The next message; None for one that is told beside the result. EOFError for one that cannot be read, Raised."""
        message = self._pipe.recv_bytes()
        try:
            kind, content = self._reader(io.BytesIO(message)).load()
        except Raised:
            self.checks += 1
            raise
        except Exception as error:  # a check has written into the pipe
            raise EOFError(f"{type(error).__name__}: {error}") from error
        if kind == "part":
            self.part = content
        elif kind == "printed":
            if self._printed is not None:
                self._printed(content)
        else:
            return kind, content
        return None

    @property
    def where(self) -> str:
        """Example: " in my_rewards.py:brevity"; empty outside a named part."""
        return f" in {self.part}" if self.part else ""

    def _cpu(self) -> tuple[float, bool]:
        """CPU seconds so far, and True if it computes or waits for a CPU. OSError when it is gone."""
        state, *fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = fields[10:12]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"), state == "R"

    def kill(self) -> None:
        """Callable from any thread; a running `check` raises."""
        with suppress(ProcessLookupError):
            if self._popen.returncode is None:  # unreaped, so that the number is still its own
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill the process and return its exit code. May be called twice."""
        self.kill()
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
