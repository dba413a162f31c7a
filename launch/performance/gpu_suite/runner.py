"""Runs independent parts, each in a process of its own with a limit, and remembers their results.

A part is a command that writes a JSON result. It ends at its limit with everything it has started; one that fails, crashes
or hangs stops none of the others. Nothing here knows what the parts do.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from openrs_ray.common.files import read_json, write_json
from openrs_ray.common.parent import end_with_parent
from openrs_ray.errors import UserError

Result = dict[str, Any]
"""As in its file: part, state (passed, failed, skipped; running while it is written), reason, seconds, rows, and more."""

PASSED, FAILED, SKIPPED, RUNNING = "passed", "failed", "skipped", "running"
_MARK = "OPENRS_SUITE_PART"
_GRACE_S = 10.0
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    shows: str
    """In a line, for people."""
    expected_s: float
    """Begun only where so much time is left."""
    limit_s: float
    """Ended after this."""
    beside: bool = False
    """Measures nothing that another part on the same GPU would change."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Parts, and how to run one of them here."""

    parts: Sequence[Part]
    command: Callable[[Part, Path], list[str]]
    """Runs a part and writes its result to a file."""
    folder: Path
    """Of the results: PART.json, and what the part printed in PART.log."""
    setting: Mapping[str, Any]
    """Written into every result; one that was found under another setting counts for nothing."""
    environment: Mapping[str, str]
    """Variables of every part, besides those of this process."""
    together: bool = False
    """Parts that may run beside each other do."""

    def known(self, part: Part) -> Result | None:
        """The part's result so far."""
        result = read_json(self.folder / f"{part.name}.json")
        same = result is not None and all(result.get(name) == value for name, value in self.setting.items())
        return result if same else None

    def due(self, named: Collection[str]) -> list[Part]:
        """Parts to run: those that were named, else those never run and after them those that did not pass.

        Raises:
            UserError: there is no part of a given name.
        """
        names = [part.name for part in self.parts]
        if unknown := [name for name in named if name not in names]:
            raise UserError(f"no part is named {', '.join(unknown)}; there are: {', '.join(names)}")
        if named:
            return [part for part in self.parts if part.name in named]
        results = [(part, self.known(part)) for part in self.parts]
        again = [part for part, result in results if result is not None and result["state"] != PASSED]
        return [part for part, result in results if result is None] + again

    def run(self, parts: Sequence[Part], minutes: float) -> Iterator[tuple[Part, Result | None]]:
        """Each part's result as soon as it has ended; None for one that no longer fits into the time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ends = time.monotonic() + 60 * minutes
        for batch in self._batches(parts):
            left = ends - time.monotonic()
            fit = [part for part in batch if part.expected_s + _GRACE_S <= left]
            yield from ((part, None) for part in batch if part not in fit)
            yield from self._run(fit, left - _GRACE_S)

    def _batches(self, parts: Sequence[Part]) -> list[list[Part]]:
        beside = [part for part in parts if self.together and part.beside]
        return [*filter(None, [beside]), *([part] for part in parts if part not in beside)]

    def _run(self, parts: Sequence[Part], left_s: float) -> Iterator[tuple[Part, Result]]:
        """At once; each result when its part has ended."""
        with ExitStack() as ending:
            began, running = time.monotonic(), {}
            for part in parts:
                file, log = (self.folder / f"{part.name}.{kind}" for kind in ("json", "log"))
                file.unlink(missing_ok=True)
                end = ending.enter_context(ExitStack())
                running[part] = end, end.enter_context(started(self.command(part, file), log, self.environment))
            while running:
                for part, (end, process) in list(running.items()):
                    seconds, limit_s = time.monotonic() - began, min(part.limit_s, left_s)
                    if process.poll() is not None or seconds > limit_s:
                        code = process.poll()
                        end.close()
                        del running[part]
                        yield part, self._result(part, code, limit_s, seconds)
                time.sleep(_PAUSE_S)

    def _result(self, part: Part, code: int | None, limit_s: float, seconds: float) -> Result:
        file, log = (self.folder / f"{part.name}.{kind}" for kind in ("json", "log"))
        result = _read(file) or {"rows": []}
        if result.get("state") not in (PASSED, FAILED, SKIPPED):  # it did not come to its end
            what = f"did not end within {limit_s:.0f} s" if code is None else f"ended with exit code {code}"
            result |= {"state": FAILED, "reason": f"{what}: see {log.name}"}
        result |= {"part": part.name, "seconds": seconds, **self.setting}
        write_json(file, result)
        return result


def _read(file: Path) -> Result | None:
    try:
        return read_json(file)
    except UserError:  # not JSON, whatever wrote it
        return None


@contextmanager
def started(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """A command whose output goes to a file.

    In the end nothing that it has started is left: its process group gets SIGTERM and SIGKILL, and so does what left the group
    (Ray's processes do), known by a variable in its environment.
    """
    mark = uuid4().hex
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment, _MARK: mark},
            start_new_session=True,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),
        )
        try:
            yield process
        finally:
            _end(process, mark)


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S / 2)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Ray ends its own processes when their driver is gone, but not at once; the next part wants all of the machine.
    psutil.wait_procs(_marked(mark), timeout=_GRACE_S / 4)
    left = _marked(mark)
    for other in left:
        with suppress(psutil.NoSuchProcess):
            other.kill()
    psutil.wait_procs(left, timeout=_GRACE_S / 4)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # gone, or not ours
            continue
    return found
