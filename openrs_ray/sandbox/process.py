"""The caller's side of confined programs: starts launchers, feeds and reads programs, holds them to time and output."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path, PurePosixPath

from openrs_ray.sandbox import interpreter
from openrs_ray.sandbox.inside.job import Job, Route
from openrs_ray.sandbox.records import Limits, Outcome, Ran, SandboxFailed

SCRATCH = "/tmp"
"""Scratch folder of a program with a file system of its own."""
BESIDE = "it was ended with the program beside it"
"""Detail of a program that another one's end has ended."""
_START_DEADLINE_S = 60.0
_END_DEADLINE_S = 30.0
_CHUNK_BYTES = 1 << 16
_CPU_SHARE = 0.7
"""Of the limit: the kernel counts a killed process by its ticks, and reports it otherwise."""
_PACKAGE_ROOT = str(Path(__file__).parents[2])
_BOOT = """import sys
sys.path.insert(0, sys.argv.pop(1))
from openrs_ray.sandbox.inside.launcher import main
main(*map(int, sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True)
class Task:
    """One program to run."""

    source: str
    stdin: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    channel: tuple[int, ...] = ()
    """Descriptors, one to read and one to write, that the program gets as 3 and 4; they are closed here."""


def run_together(tasks: Sequence[Task], route: Route, walls: list[str] | None) -> list[Running]:
    """Runs programs side by side until the first of the list ends; the others are killed then.

    Those are told as TIMEOUT, unless they had ended by themselves before.
    """
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        running = [stack.enter_context(Running(task, route, walls)) for task in tasks]
        for one in running:
            one.register(selector)
        while not running[0].ended:
            _wait(selector, running)
        for one in running:
            one.stop(Outcome.TIMEOUT, BESIDE)
        while not all(one.ended for one in running):
            _wait(selector, running)
        return running


def _wait(selector: selectors.BaseSelector, running: Sequence[Running]) -> None:
    now = time.monotonic()
    left_s = max(0.0, min(one.deadline for one in running if not one.ended) - now)
    for key, _ in selector.select(left_s):
        one, name = key.data
        one.read(name, selector)
    for one in running:
        one.check_deadline()


class Running:
    """One launcher and its program."""

    def __init__(self, task: Task, route: Route, walls: list[str] | None) -> None:
        _check_names(task.files)
        self._task = task
        self._files = ExitStack()
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._reports = bytearray()
        self._report: dict[str, str] = {}
        self._open = {"stdout", "stderr", "control"}
        self._stopped: tuple[Outcome, str] | None = None
        self._start = time.monotonic()
        self.deadline = self._start + _START_DEADLINE_S
        try:
            self._launch(task, route, walls)
        except OSError as error:
            self.__exit__()
            raise SandboxFailed(f"a sandbox could not be started: {error}") from error
        finally:
            for descriptor in task.channel:
                os.close(descriptor)

    def _launch(self, task: Task, route: Route, walls: list[str] | None) -> None:
        scratch = SCRATCH if route in ("privileged", "user") else self._own_folder()
        job = self._in_memory(_job(task, scratch, route, walls).packed())
        stdin = self._in_memory(task.stdin.encode("utf-8", "surrogatepass"))
        self._control, theirs = socket.socketpair()
        self._files.callback(self._control.close)
        with theirs:
            self._popen = subprocess.Popen(
                [interpreter.executable(), "-I", "-S", "-c", _BOOT, _PACKAGE_ROOT, str(job), str(theirs.fileno())],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[job, theirs.fileno(), *task.channel],
                env={name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"},
                cwd="/",
                process_group=0,
            )
        assert self._popen.stdout is not None and self._popen.stderr is not None
        self._pipes = {
            "stdout": self._popen.stdout.fileno(),
            "stderr": self._popen.stderr.fileno(),
            "control": self._control.fileno(),
        }

    def _in_memory(self, content: bytes) -> int:
        """Descriptor of a file that only exists in memory, at its start."""
        descriptor = os.memfd_create("openrs")
        self._files.callback(os.close, descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _own_folder(self) -> str:
        folder = tempfile.mkdtemp(prefix="openrs-sandbox-")
        self._files.callback(shutil.rmtree, folder, ignore_errors=True)  # should the launcher have been killed
        return folder

    @property
    def ended(self) -> bool:
        return not self._open

    def register(self, selector: selectors.BaseSelector) -> None:
        for name, pipe in self._pipes.items():
            selector.register(pipe, selectors.EVENT_READ, (self, name))

    def read(self, name: str, selector: selectors.BaseSelector) -> None:
        content = os.read(self._pipes[name], _CHUNK_BYTES)
        if not content:
            selector.unregister(self._pipes[name])
            self._open.discard(name)
        elif name == "control":
            self._reports += content
            self._take_reports()
        else:
            self._take_output(self._output[name], content)

    def _take_output(self, kept: bytearray, content: bytes) -> None:
        most = self._task.limits.output_bytes
        kept += content[: most - len(kept)]
        if len(kept) == most and len(content) > 0:
            self.stop(Outcome.OUTPUT, f"it wrote more than {most:,} bytes")

    def _take_reports(self) -> None:
        *lines, rest = self._reports.split(b"\n")
        self._reports = bytearray(rest)
        for line in lines:
            name, _, value = line.decode(errors="replace").partition(" ")
            self._report[name] = value
            if name == "walls" and not self._stopped:
                self._start = time.monotonic()
                self.deadline = self._start + self._task.limits.wall_s

    def check_deadline(self) -> None:
        if self.ended or time.monotonic() < self.deadline:
            return
        if self._stopped:
            raise SandboxFailed(f"a sandbox did not end within {_END_DEADLINE_S:g} s of being told to")
        self.stop(Outcome.TIMEOUT, f"it had not ended after {self._task.limits.wall_s:g} s")

    def stop(self, outcome: Outcome, detail: str) -> None:
        """Have the launcher kill the program; the first reason stays."""
        if self._stopped is None and "status" not in self._report and not self.ended:
            self._stopped = outcome, detail
            self._control.shutdown(socket.SHUT_WR)
            self.deadline = time.monotonic() + _END_DEADLINE_S

    @property
    def walls(self) -> list[str]:
        return self._report.get("walls", "").split()

    def ran(self) -> Ran:
        """SandboxFailed if the program was never started."""
        stdout, stderr = (bytes(self._output[name]).decode("utf-8", "replace") for name in ("stdout", "stderr"))
        if "status" not in self._report or "walls" not in self._report:
            why = self._report.get("failed") or stderr.strip()[-300:] or "its launcher died"
            raise SandboxFailed(f"a sandbox could not be started: {why}")
        status, cpu_s, by_itself = self._report["status"].split()
        code = os.waitstatus_to_exitcode(int(status))
        # Its own end may be told only after that of the program beside it, which may have ended because of it.
        stopped = None if by_itself == "1" and self._stopped == (Outcome.TIMEOUT, BESIDE) else self._stopped
        outcome, detail = stopped or _ending(code, float(cpu_s), self._task.limits, stderr)
        seconds = time.monotonic() - self._start
        return Ran(outcome, stdout, stderr, seconds, float(cpu_s), code if code >= 0 else None, detail)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        """The launcher kills its program when the control socket closes."""
        self._files.close()
        if hasattr(self, "_popen"):
            for pipe in (self._popen.stdout, self._popen.stderr):
                if pipe is not None:
                    pipe.close()
            self._wait()

    def _wait(self) -> None:
        try:
            self._popen.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()  # and with it, by the kernel, its program
            self._popen.wait()


def _job(task: Task, scratch: str, route: Route, walls: list[str] | None) -> Job:
    limits = task.limits
    return Job(
        source=task.source,
        files=dict(task.files),
        arguments=interpreter.arguments(),
        environment=interpreter.environment(scratch),
        readable=interpreter.readable(),
        scratch=scratch,
        channel=list(task.channel),
        route=route,
        walls=walls,
        cpu_s=ceil(limits.cpu_s),
        memory_bytes=int(limits.memory_gib * 2**30),
        processes=limits.processes,
        scratch_bytes=limits.scratch_mib << 20,
    )


def _ending(code: int, cpu_s: float, limits: Limits, stderr: str) -> tuple[Outcome, str]:
    last = stderr.strip().rpartition("\n")[2][:300]
    if code == 0:
        return Outcome.FINISHED, ""
    if code in (-signal.SIGKILL, -signal.SIGXCPU) and cpu_s >= _CPU_SHARE * ceil(limits.cpu_s):
        return Outcome.TIMEOUT, f"it had computed for {cpu_s:.1f} s"
    if last.startswith("MemoryError") or code == -signal.SIGKILL:
        return Outcome.MEMORY, f"it asked for more than {limits.memory_gib:g} GiB of memory"
    if code < 0:
        return Outcome.FAILED, f"it died of {signal.Signals(-code).name}"
    return Outcome.FAILED, last or f"it ended with exit code {code}"


def _check_names(names: Mapping[str, str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"a file of a program lies in its scratch folder, unlike {name!r}")
