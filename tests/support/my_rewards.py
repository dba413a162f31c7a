"""Rewards as a user writes them into a file, good ones and bad ones, by what the completion says."""

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

_KEPT: list[bytearray] = []


@dataclass
class Words:
    count: int


def brevity(
    completion: str, *, problem: str, gold: str, row: dict[str, Any], token_count: int, scale: float = 1.0
) -> float:
    sys.stdout.write(f"{token_count} tokens\n")
    return scale / max(1, token_count)


def everything(completion: str, **given: Any) -> float:
    sys.stdout.write(repr(sorted(given.items())))
    return 1.0


def moody(completion: str, status: str) -> Any:
    """Does what the completion says."""
    action = completion.split()[0]
    if action == "hang":
        while True:
            pass
    elif action == "sleep":
        time.sleep(60)
    elif action == "exit":
        os._exit(3)
    elif action == "quit":
        sys.exit("bye")
    elif action == "crash":
        ctypes.string_at(0)
    elif action == "fill":
        _KEPT.append(bytearray(4 << 30))
    elif action == "leak":
        _KEPT.append(bytearray(100 << 20))
    elif action == "raise":
        return {}["a key"]
    elif action == "fork" and os.fork() == 0:
        return 5.0
    values = {"none": None, "text": "good", "nan": float("nan"), "inf": float("inf"), "true": True, "large": 10**400}
    return values.get(action, 0.5)


def spread(
    completions: list[str], *, token_counts: list[int], statuses: list[str], least: int = 0
) -> list[float | None]:
    """Longest last; None for one that asks for it."""
    most = max(token_counts)
    return [None if text == "none" else -count / most for text, count in zip(completions, token_counts, strict=True)]


def short_list(completions: list[str]) -> list[float]:
    return [1.0]


async def waiting(completion: str) -> float:
    return 1.0


def without_first(text: str) -> float:
    return 1.0


def greedy(completion: str, reference_model: str) -> float:
    return 1.0


def typed(completion: str, *, names: tuple[str, ...] = (), most: int | None = None) -> float:
    return float(len(names))
