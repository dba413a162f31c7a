"""An OpenAI-compatible endpoint that misbehaves as it is told to, in a thread of the test.

Says which prompts came when, over how many connections at once. A behaviour is a reply's text, a status (429 with the seconds of
Retry-After behind a colon), or one of: reset, hang, trickle, garbage, truncated, no-choices, endless.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[[str, int], str]
"""By the prompt and how often it has come before."""

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def chat(text: str) -> bytes:
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [message], "usage": USAGE}).encode()


@dataclass
class FlakyJudge:
    """with FlakyJudge(lambda prompt, before: ["500", "reset", "Score: 7"][before]) as judge: ..."""

    behaviour: Behaviour
    times: dict[str, list[float]] = field(default_factory=dict)
    """Of every request, by prompt."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> int:
        return sum(map(len, self.times.values()))

    def __enter__(self) -> FlakyJudge:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True if the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        before = len(self.times.setdefault(prompt, []))
        self.times[prompt].append(time.monotonic())
        self.bodies.append(body)
        self.keys.append(headers.get("authorization", ""))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._behave(self.behaviour(prompt, before), writer)
        finally:
            self._now -= 1

    async def _behave(self, how: str, writer: asyncio.StreamWriter) -> bool:
        match how.split(":")[0]:
            case "reset":
                writer.transport.abort()
                return False
            case "hang":
                await asyncio.sleep(3600)
            case "trickle":  # a byte at a time: no read takes long
                writer.write(_head(200, 10_000))
                for _ in range(10_000):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            case "truncated":
                content = chat("Score: 1")
                writer.write(_head(200, len(content)) + content[: len(content) // 2])
                await writer.drain()
                return False
            case "endless":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                while True:
                    writer.write(b" " * 65536)
                    await writer.drain()
            case "garbage":
                _send(writer, 200, b"<html>Score: 3</html>")
            case "no-choices":
                _send(writer, 200, b'{"choices": [], "usage": null}')
            case status if status.isdigit() and len(status) == 3:
                after = f"Retry-After: {how.partition(':')[2]}\r\n" if ":" in how else ""
                _send(writer, int(status), json.dumps({"error": {"message": f"told to: {how}"}}).encode(), after)
            case _:
                if how.startswith("slowly "):
                    await asyncio.sleep(0.2)
                _send(writer, 200, chat(how.removeprefix("slowly ")))
        await writer.drain()
        return True


def _head(status: int, length: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {length}\r\n\r\n".encode()


def _send(writer: asyncio.StreamWriter, status: int, content: bytes, more: str = "") -> None:
    writer.write(_head(status, len(content), more) + content)
