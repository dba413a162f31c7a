"""Asks an OpenAI-compatible endpoint: bounded in number, time and size, with retries and a cache."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import httpx

from openrs_ray.common.foreign import parse_json, why
from openrs_ray.common.formatting import shortened
from openrs_ray.common.redaction import HIDDEN, hide_secrets
from openrs_ray.records import Status
from openrs_ray.rewards.judge_model.replies import Replies, Reply, request_key
from openrs_ray.rewards.judge_model.scores import Unreadable
from openrs_ray.rewards.judge_model.settings import JudgeSettings

_MOST_BYTES = 8 << 20
"""Of one answer."""
_LONGEST_BACKOFF_S = 60.0
_SHOWN = 200
_AGAIN = {408, 409, 425, 429}
"""Statuses of a refusal that may not last, besides 5xx."""

T = TypeVar("T")
Address = Callable[[], Awaitable[str]]
"""The endpoint's URL up to `/v1`, waited for while a server starts. ConnectionError when it is lost."""


class Unjudged(Exception):
    """No judgement: TIMEOUT or ERROR, and why."""

    def __init__(self, status: Status, detail: str, lasting: bool = False) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.lasting = lasting
        """Asking again cannot help: a wrong address, name or key."""


@dataclass(eq=False)
class _Failure(Exception):
    """A failed request."""

    status: Status
    detail: str
    lasting: bool = False
    wait_s: float | None = None
    """As the endpoint asks."""


class JudgeClient:
    """Asks for one judge model. One event loop; `close` ends its connections."""

    def __init__(
        self, settings: JudgeSettings, replies: Replies, key: str | None = None, address: Address | None = None
    ) -> None:
        """`key`: the API key. `address`: where the model is served if the settings have no URL."""
        self.settings, self.replies = settings, replies
        self._key, self._address = key, address
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._same: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._open_at = 0.0  # no request before, as the endpoint asked
        # An own server needs no proxy. Times are bounded below, where a reply that trickles in cannot evade them.
        self._http = httpx.AsyncClient(
            timeout=None,
            trust_env=settings.url is not None,
            limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, prompt: str, read: Callable[[str], T]) -> T:
        """The reply as `read` understands it; it raises Unreadable for one that has to be asked for again. Raises Unjudged."""
        body = self.settings.body(prompt)
        key = request_key(self.settings.url or "served", body)
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                # A completion that occurs twice is asked for once.
                async with self._same.setdefault(key, asyncio.Lock()):
                    return await self._read(key, body, read, began + self.settings.deadline_s)
        except TimeoutError:
            self.replies.spent.unjudged += 1
            limit = f"rewards.judge.deadline_s, {self.settings.deadline_s:g} s"
            raise Unjudged(Status.TIMEOUT, f"judge: no answer within {limit}, its retries included") from None
        except Unjudged:
            self.replies.spent.unjudged += 1
            raise

    async def _read(self, key: str, body: dict[str, Any], read: Callable[[str], T], deadline: float) -> T:
        if (known := self.replies.find(key)) is not None:
            try:
                value = read(known)
                self.replies.spent.cached += 1
                return value
            except Unreadable:  # kept when the rules to read it were others
                pass
        for attempt in range(1, self.settings.retries + 2):
            try:
                return await self._attempt(key, body, read)
            except _Failure as failure:
                self.replies.spent.failed += 1
                await self._before_next(attempt, failure, deadline)
        raise AssertionError("the last attempt raises")

    async def _attempt(self, key: str, body: dict[str, Any], read: Callable[[str], T]) -> T:
        async with self._slots:
            if (left := self._open_at - time.monotonic()) > 0:
                await asyncio.sleep(left * random.uniform(1.0, 1.1))  # not all at once
            reply = await self._request(body)
        try:
            value = read(reply.text)
        except Unreadable as error:
            await self.replies.add(None, reply)
            raise _Failure(Status.ERROR, str(error)) from error
        await self.replies.add(key, reply)
        return value

    async def _before_next(self, attempt: int, failure: _Failure, deadline: float) -> None:
        """Wait for the next attempt. Unjudged when there is none, or none in time."""
        backoff_s = min(_LONGEST_BACKOFF_S, self.settings.backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        wait_s = max(backoff_s, failure.wait_s or 0.0)
        after = f" after {attempt} requests" if attempt > 1 else ""
        if failure.lasting or attempt > self.settings.retries:
            raise Unjudged(failure.status, f"judge: {failure.detail}{after}", failure.lasting)
        if time.monotonic() + wait_s > deadline:
            asked = f", and it asks to wait {wait_s:.0f} s" if failure.wait_s else ""
            raise Unjudged(
                Status.TIMEOUT,
                f"judge: {failure.detail}{asked}; no time is left of rewards.judge.deadline_s{after}",
            )
        await asyncio.sleep(wait_s)

    async def _request(self, body: dict[str, Any]) -> Reply:
        """Raises _Failure."""
        url = self.settings.url or await self._served_at()
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                status, headers, content = await self._post(f"{url.rstrip('/')}/chat/completions", body)
        except TimeoutError:
            limit = f"rewards.judge.timeout_s, {self.settings.timeout_s:g} s"
            raise _Failure(Status.TIMEOUT, f"no answer within {limit}") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise _Failure(Status.ERROR, f"{url} is no address: {why(error)}", lasting=True) from error
        except httpx.HTTPError as error:
            raise _Failure(Status.ERROR, f"{type(error).__name__} from {url}: {self._clean(why(error))}") from error
        if status != 200:
            raise self._refused(url, status, headers, content)
        return self._reply(content)

    async def _served_at(self) -> str:
        if self._address is None:
            raise _Failure(Status.ERROR, "no judge is served", lasting=True)
        try:
            return await self._address()
        except ConnectionError as error:
            raise _Failure(Status.ERROR, str(error)) from error

    async def _post(self, url: str, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        # Escaped: a completion may hold what UTF-8 cannot.
        sent = json.dumps(body).encode("ascii")
        async with self._http.stream("POST", url, content=sent) as response:
            content = bytearray()
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _MOST_BYTES:
                    raise _Failure(Status.ERROR, f"an answer of more than {_MOST_BYTES >> 20} MiB")
            return response.status_code, response.headers, bytes(content)

    def _refused(self, url: str, status: int, headers: httpx.Headers, content: bytes) -> _Failure:
        said = self._clean(_message(content))
        detail = f"{url} answered HTTP {status}{f' ({said})' if said else ''}"
        if status >= 500 or status in _AGAIN:
            wait_s = _retry_after(headers.get("retry-after"))
            if wait_s is not None:
                self._open_at = max(self._open_at, time.monotonic() + min(wait_s, self.settings.deadline_s))
            return _Failure(Status.ERROR, detail, wait_s=wait_s)
        return _Failure(Status.ERROR, detail, lasting=True)

    def _reply(self, content: bytes) -> Reply:
        """Raises _Failure for anything but a chat completion with text."""
        try:
            answer = parse_json(content)
            text = answer["choices"][0]["message"]["content"]
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, LookupError, TypeError) as error:
            said = self._clean(content.decode(errors="replace"))
            raise _Failure(Status.ERROR, f"its answer is no chat completion with text: {said or 'empty'}") from error
        usage = answer.get("usage")
        prompt, completion = (_count(usage, f"{kind}_tokens") for kind in ("prompt", "completion"))
        return Reply(text, prompt, completion, self.settings.price(prompt, completion))

    def _clean(self, text: str) -> str:
        """On one line, short, without secrets."""
        line = " ".join(text.split())
        return shortened(hide_secrets(line.replace(self._key, HIDDEN) if self._key else line), _SHOWN)


def _message(content: bytes) -> str:
    """The endpoint's own words about an error."""
    try:
        said = parse_json(content)
        found = said.get("error", said)
        return str(found["message"] if isinstance(found, dict) else found)
    except (ValueError, LookupError, AttributeError):
        return content.decode(errors="replace")


def _count(usage: Any, name: str) -> int:
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) and number >= 0 else 0


def _retry_after(header: str | None) -> float | None:
    """Seconds, given as such or as a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header)) if header.strip().isdigit() else _seconds_until(header)
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds_until(date: str) -> float:
    return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
