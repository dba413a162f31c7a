"""A judge's server is started, replaced when it dies, and ends with its keeper. The server here stands in for vLLM's."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from places import PYTHONPATH, ROOT

from openrs_ray.errors import RunError
from openrs_ray.rewards.judge_model.server import ServedModel, Server

SERVES = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(f"{os.getpid()} {os.environ['VLLM_API_KEY']}".encode())
    def log_message(self, *_): pass
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


def command(host: str, port: int) -> list[str]:
    return [sys.executable, "-c", SERVES, host, str(port)]


def server(script: str | None = None, log: str = "", deadline_s: float = 30.0) -> Server:
    other = (lambda host, port: [sys.executable, "-c", script]) if script else command
    return Server(other, "127.0.0.1", deadline_s, "secret", lambda: None, lambda: log)


async def answer(url: str) -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        pid, key = (await client.get(url.removesuffix("/v1"))).text.split()
    return int(pid), key


def test_a_server_that_dies_is_replaced() -> None:
    async def live() -> None:
        kept = server()
        first, key = await answer(await kept.url())
        assert key == "secret"
        os.kill(first, signal.SIGKILL)
        while kept.starts == 1:
            await asyncio.sleep(0.05)
        second, _ = await answer(await kept.url())
        assert second != first and kept.starts == 2
        await kept.close()
        assert not psutil.pid_exists(second) or psutil.Process(second).status() == psutil.STATUS_ZOMBIE

    asyncio.run(asyncio.wait_for(live(), 60))


def test_one_that_cannot_start_is_given_up_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs_ray.rewards.judge_model.server._PAUSE_S", 0.01)
    kept = server("import sys; sys.exit(3)", "INFO all is well\nValueError: no such model\n")
    with pytest.raises(RunError, match="ended with exit code 3: ValueError: no such model"):
        asyncio.run(asyncio.wait_for(kept.url(), 30))
    assert kept.starts == 3


@pytest.mark.parametrize("fault", ["no port", "no program", "no log"])
def test_a_start_that_fails_in_any_way_is_a_failed_start(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr("openrs_ray.rewards.judge_model.server._PAUSE_S", 0.01)

    def raises(*_: object, **__: object) -> str:
        raise OSError(24, "Too many open files")

    if fault == "no port":
        monkeypatch.setattr("openrs_ray.rewards.judge_model.server._free_port", raises)
    if fault == "no program":
        monkeypatch.setattr(asyncio, "create_subprocess_exec", raises)
    log = raises if fault == "no log" else str
    kept = Server(
        lambda host, port: [sys.executable, "-c", "raise SystemExit(3)"], "127.0.0.1", 30.0, "", lambda: None, log
    )
    with pytest.raises(RunError, match=r"the judge's server could not be started: OSError: .* Too many open files"):
        asyncio.run(asyncio.wait_for(kept.url(), 30))


def test_one_that_never_answers_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs_ray.rewards.judge_model.server.STARTS", 1)
    kept = server("import time; time.sleep(60)", deadline_s=0.5)
    with pytest.raises(RunError, match=r"rewards.judge.serve.start_deadline_s, 0.5 s"):
        asyncio.run(asyncio.wait_for(kept.url(), 30))


KEEPS = """
import asyncio, sys, test_server
async def main():
    kept = test_server.server()
    print((await test_server.answer(await kept.url()))[0], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_it_ends_with_a_keeper_that_is_killed() -> None:
    path = os.pathsep.join([PYTHONPATH, str(Path(__file__).parent)])
    keeper = subprocess.Popen(
        [sys.executable, "-c", KEEPS],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline())
    keeper.kill()
    keeper.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_asks_for_what_is_set() -> None:
    on_gpus = ServedModel("judge", "/models/judge", "gpu", gpus=2, max_model_tokens=4096, dtype="bfloat16")
    given = on_gpus.command("10.0.0.7", 8123)
    assert given[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    pairs = dict(zip(given[3::2], given[4::2], strict=True))
    wanted = {"model": "/models/judge", "served-model-name": "judge", "port": "8123", "max-model-len": "4096"}
    wanted |= {"tensor-parallel-size": "2", "distributed-executor-backend": "mp"}
    assert {f"--{name}": value for name, value in wanted.items()}.items() <= pairs.items()
    assert "--api-key" not in given, "a command line is seen by everybody"
    on_cpu = ServedModel("judge", "/models/judge", "cpu", cpu_cache_gib=0.5).command("10.0.0.7", 8123)
    assert on_cpu[-3:] == ["--kv-cache-memory-bytes", str(2**29), "--enforce-eager"]
