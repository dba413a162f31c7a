"""vLLM's OpenAI server for a judge model, as a process that is started, watched and replaced."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import httpx

from openrs_ray.common.last_error import last_error
from openrs_ray.errors import RunError

_LOOK_S = 0.25
"""Between two looks at a server that starts."""
_CHECK_S = 5.0
_SILENT_S = 120.0
"""A running server that does not answer its health check for so long is replaced."""
STARTS = 3
"""Failed starts in a row before it is given up."""
_PAUSE_S = 2.0
_END_S = 10.0


@dataclass(frozen=True)
class ServedModel:
    """Settings of a server of vLLM. Example: ServedModel("judge", "/models/judge", "gpu", gpus=1)"""

    name: str
    """In requests."""
    path: str
    """A folder or Hub id."""
    device: Literal["cpu", "gpu"]
    gpus: int = 1
    dtype: str = "auto"
    max_model_tokens: int | None = None
    gpu_memory_fraction: float = 0.9
    cpu_cache_gib: float = 1.0
    sequences: int = 16
    start_deadline_s: float = 600.0

    def command(self, host: str, port: int) -> list[str]:
        options: dict[str, object] = {
            "model": self.path,
            "served-model-name": self.name,
            "host": host,
            "port": port,
            "dtype": self.dtype,
            "max-num-seqs": self.sequences,
            "generation-config": "vllm",  # a model's own would change what temperature 0 means
            "uvicorn-log-level": "warning",
        }
        if self.max_model_tokens is not None:
            options["max-model-len"] = self.max_model_tokens
        flags = []
        if self.device == "cpu":
            options["kv-cache-memory-bytes"] = int(self.cpu_cache_gib * 2**30)
            flags = ["--enforce-eager"]
        else:
            options |= {"gpu-memory-utilization": self.gpu_memory_fraction, "tensor-parallel-size": self.gpus}
        if self.gpus > 1 and self.device == "gpu":
            options["distributed-executor-backend"] = "mp"  # inside a placement group vLLM would start Ray workers
        given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *given, *flags]


Command = Callable[[str, int], Sequence[str]]
"""By host and port."""


class Server:
    """Keeps a server running from the first `url()` on, on one event loop. `close` ends it.

    server = Server(model.command, "10.0.0.7", start_deadline_s=600, key="...", kill_leftovers=kill)
    await server.url()  # http://10.0.0.7:41234/v1
    """

    def __init__(
        self,
        command: Command,
        host: str,
        start_deadline_s: float,
        key: str,
        kill_leftovers: Callable[[], None],
        log: Callable[[], str] = lambda: "",
    ) -> None:
        """`key`: demanded from clients. `kill_leftovers`: ends what a dead server has left. `log`: its newest lines."""
        self._command, self._host, self._start_deadline_s = command, host, start_deadline_s
        self._key, self._kill_leftovers, self._log = key, kill_leftovers, log
        self._keeping: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._url = ""
        self._failed: RunError | None = None
        self.starts = 0

    async def url(self) -> str:
        """Waits while it starts. RunError when it was given up."""
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        await self._ready.wait()
        if self._failed is not None:
            raise RunError(*self._failed.args)
        return self._url

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._kill_leftovers()

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                self._kill_leftovers()
                process = await self._started()
            except Exception as error:  # no port, no process, or a server that ended: those who wait are to hear of it
                failures += 1
                if failures == STARTS:
                    self._failed = _as_run_error(error)
                    self._ready.set()
                    return
                await asyncio.sleep(_PAUSE_S * failures)
                continue
            failures = 0
            self._ready.set()
            try:
                await self._until_dead(process)
            finally:
                self._ready.clear()
                await _end(process)

    async def _started(self) -> asyncio.subprocess.Process:
        """A server that answers. RunError with its reason."""
        port, self.starts = _free_port(self._host), self.starts + 1
        tied = [sys.executable, "-P", "-m", "openrs_ray.common.parent", str(os.getpid())]
        variables = os.environ | {"VLLM_API_KEY": self._key, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = await asyncio.create_subprocess_exec(*tied, *self._command(self._host, port), env=variables)
        began = time.monotonic()
        self._url = f"http://{self._host}:{port}/v1"
        try:
            while not await self._healthy():
                if process.returncode is not None:
                    raise RunError(f"the judge's server ended with exit code {process.returncode}{self._why()}")
                if time.monotonic() - began > self._start_deadline_s:
                    limit = f"rewards.judge.serve.start_deadline_s, {self._start_deadline_s:g} s"
                    raise RunError(f"the judge's server did not answer within {limit}{self._why()}")
                await asyncio.sleep(_LOOK_S)
        except BaseException:
            await _end(process)
            raise
        return process

    def _why(self) -> str:
        error = last_error(self._log())
        return f": {error}" if error else ""

    async def _until_dead(self, process: asyncio.subprocess.Process) -> None:
        """Return when it has ended, or is silent."""
        heard = time.monotonic()
        while process.returncode is None and time.monotonic() - heard < _SILENT_S:
            try:
                await asyncio.wait_for(process.wait(), _CHECK_S)
            except TimeoutError:
                if await self._healthy():
                    heard = time.monotonic()

    async def _healthy(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=_SILENT_S / 4) as client:
                answer = await client.get(self._url.removesuffix("/v1") + "/health")
        except (httpx.HTTPError, OSError):
            return False
        return answer.status_code == 200


def _as_run_error(error: Exception) -> RunError:
    if isinstance(error, RunError):
        return error
    return RunError(f"the judge's server could not be started: {type(error).__name__}: {error}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Killed where it does not end by itself, with its engine, which outlives a killed server."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _END_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
