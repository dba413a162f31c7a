"""Removes secrets from text before it is written to a file."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

HIDDEN = "***"
_NAMES = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|KEY|CREDENTIALS?)(_|$)", re.IGNORECASE)
_NO_SECRETS = ("_PATH", "_FILE", "_MODE", "_URL")
"""Endings of harmless names."""
_SHORTEST = 8
_FORMS = re.compile(r"\b(hf_|sk-|gh[pousr]_|github_pat_|xox[abprs]-|AKIA)[A-Za-z0-9_-]{12,}")
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_WORD = "(?:token|password|secret|signature|api[_-]?key|access[_-]?key)"
_NAMED = re.compile(rf"(--(?:\S*[._-])?{_WORD}(?:=|\s+)|(?:^|[\s_&?]){_WORD}=)[^\s&]+", re.IGNORECASE)


def hide_secrets(text: str) -> str:
    """The text without the secrets of environment and token files, and without what looks like one."""
    for secret in _known():
        text = text.replace(secret, HIDDEN)
    text = _FORMS.sub(HIDDEN, text)
    text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
    return _NAMED.sub(rf"\g<1>{HIDDEN}", text)


def without_secrets(value: Any) -> Any:
    """A JSON-ready value with every text in it, keys too, as `hide_secrets` leaves it."""
    if isinstance(value, dict):
        return {hide_secrets(str(name)): without_secrets(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in value]
    return hide_secrets(value) if isinstance(value, str) else value


@cache
def _known() -> tuple[str, ...]:
    """Longest first: one may contain another."""
    found = {secret for secret in (*_in_environment(), *_in_files()) if len(secret) >= _SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _in_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if _NAMES.search(name) and not name.upper().endswith(_NO_SECRETS):
            yield value.strip()


def _in_files() -> Iterator[str]:
    home = Path.home()
    hub = Path(os.environ.get("HF_HOME") or home / ".cache" / "huggingface")
    for path in (
        Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token"),
        Path(os.environ.get("HF_TOKEN_PATH") or hub / "token"),
    ):
        try:
            yield path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
