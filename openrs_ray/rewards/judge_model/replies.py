"""Replies that have been paid for, in a file of the run's folder: a resumed run asks for none of them twice.

judge.jsonl   {"key": "<hash of the request, or null if the reply had no score>", "reply": "...", "prompt_tokens": 210, ...}
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openrs_ray.common.files import append_line, parse_json

FILE = "judge.jsonl"


@dataclass(slots=True)
class Spending:
    """Sums over all attempts of a run, but for `cached`, `failed` and `unjudged`, which are this process's."""

    requests: int = 0
    """Answered ones."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    cached: int = 0
    """Answered from the file."""
    failed: int = 0
    """Requests without a usable answer, most of them repeated."""
    unjudged: int = 0
    """Completions, or groups, without judgement after all retries."""

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} completion tokens"
        unjudged = f"; {self.unjudged} judgements failed" if self.unjudged else ""
        return f"{self.requests:,} requests, {tokens}, $ {self.dollars:.2f}{unjudged}"

    def metrics(self) -> dict[str, float]:
        return {f"judge_{name}": float(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0


def request_key(where: str, body: Mapping[str, Any]) -> str:
    """Hash of all that decides the reply."""
    content = json.dumps([where, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass
class Replies:
    """Appends to the file and finds in it. One process writes it; a kill costs at most the line being written."""

    path: Path | None
    """None: in memory only."""
    spent: Spending = field(default_factory=Spending)
    _places: dict[bytes, int] = field(default_factory=dict, init=False)
    """Of the lines, by key: the replies themselves stay on the disk."""
    _texts: dict[bytes, str] = field(default_factory=dict, init=False)
    """Without a file."""
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        place = 0
        with self.path.open("rb") as file:
            for line in file:
                self._note(_parsed(line), place)
                place += len(line)

    def _note(self, line: dict[str, Any] | None, place: int) -> None:
        if line is None:
            return
        self.spent.requests += 1
        self.spent.prompt_tokens += line["prompt_tokens"]
        self.spent.completion_tokens += line["completion_tokens"]
        self.spent.dollars += line["dollars"]
        if line["key"] is not None:
            self._places[bytes.fromhex(line["key"])] = place

    def find(self, key: str) -> str | None:
        """The reply to that request, if there is one."""
        name = bytes.fromhex(key)
        if self.path is None or name not in self._places:
            return self._texts.get(name)
        with self.path.open("rb") as file:
            file.seek(self._places[name])
            line = _parsed(file.readline())
        return line["reply"] if line is not None and line["key"] == key else None

    async def add(self, key: str | None, reply: Reply) -> None:
        """Written when this returns. `key` is None for a reply that is of no use but was paid for."""
        line = {
            "key": key,
            "reply": reply.text,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "dollars": reply.dollars,
        }
        async with self._writing:
            place = await asyncio.to_thread(self._append, line)
            self._note(line, place)
            if self.path is None and key is not None:
                self._texts[bytes.fromhex(key)] = reply.text

    def _append(self, line: dict[str, Any]) -> int:
        """The line's place in the file."""
        if self.path is None:
            return 0
        append_line(self.path, line)
        return self.path.stat().st_size - len(json.dumps(line, allow_nan=False)) - 1


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for a line torn by a kill, or not one of ours."""
    try:
        content = parse_json(line)
    except ValueError:
        return None
    kinds = {"reply": str, "prompt_tokens": int, "completion_tokens": int, "dollars": int | float}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        return None
    key = content.get("key")
    good = key is None or (isinstance(key, str) and len(key) == 64 and set(key) <= set("0123456789abcdef"))
    return content if good else None
