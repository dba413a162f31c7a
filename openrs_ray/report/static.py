"""Writes the page as one HTML file that needs nothing else: no server, no network."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from openrs_ray.common.console import plain
from openrs_ray.common.files import replacing
from openrs_ray.common.foreign import parse_json
from openrs_ray.report.comparison import comparison
from openrs_ray.report.curves import MOST_POINTS
from openrs_ray.report.selection import selection
from openrs_ray.report.summary import RunSummary

ASSETS = Path(__file__).with_name("page")
INDEX = "index.html"
_LINK = re.compile(r'<link rel="stylesheet" href="([\w./-]+)">')
_SCRIPT = re.compile(r'<script src="([\w./-]+)" defer></script>')
_FEWEST_POINTS = 256


def asset_names() -> list[str]:
    """Files that the page's index asks for."""
    index = (ASSETS / INDEX).read_text(encoding="utf-8")
    return [*_LINK.findall(index), *_SCRIPT.findall(index)]


def page_data(runs: Sequence[Path]) -> dict[str, Any]:
    """The content of a page that is not served: with more runs, each has fewer points and completions."""
    points = max(_FEWEST_POINTS, 2 * MOST_POINTS // len(runs)) if len(runs) > 2 else MOST_POINTS
    summaries = [RunSummary(run, points).read() | {"completions": selection(run, len(runs))} for run in runs]
    return {"live": False, "made": now(), "runs": summaries, "comparison": comparison(runs)}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_page(path: Path, runs: Sequence[Path], warn: Callable[[str], None] = lambda sentence: None) -> int:
    """Returns the file's size in bytes. OSError where it cannot be written.

    `warn`: told of what could not be read of a run, which the page says as well.
    """
    data = page_data(runs)
    for shown in data["runs"]:
        unread = [shown["completions"]["note"]] if shown["completions"]["total"] == 0 else []
        for fault in filter(None, [*shown["faults"], *unread]):
            warn(f"{shown['name']}: {fault}")
    content = standalone(data).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def read_page(path: Path) -> dict[str, Any] | None:
    """The data of a written page; None where there are none. OSError where it cannot be read."""
    match = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8", errors="replace")
    )
    try:
        content = parse_json(match[1]) if match else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def standalone(data: dict[str, Any]) -> str:
    """The index with styles, scripts and data within, and a policy that allows these scripts and styles and nothing else.

    The data are JSON in a block that no browser executes; no character in it can end that block.
    """
    index = (ASSETS / INDEX).read_text(encoding="utf-8")
    styles, scripts = (
        [(ASSETS / name).read_text(encoding="utf-8") for name in pattern.findall(index)] for pattern in (_LINK, _SCRIPT)
    )
    policy = (
        f"default-src 'none'; style-src {' '.join(_hashes(styles))}; script-src {' '.join(_hashes(scripts))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    body = _LINK.sub("", _SCRIPT.sub("", index))
    head = "".join(
        [
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
            f"<!-- The charts are drawn by uPlot, which is within this file:\n{_license()}\n-->",
            *(f"<style>{style}</style>" for style in styles),
        ]
    )
    tail = "".join(
        [
            f'<script type="application/json" id="data">{as_block(data)}</script>',
            *(f"<script>{script}</script>" for script in scripts),
        ]
    )
    return body.replace("<!-- head -->", head).replace("<!-- data -->", tail)


def _license() -> str:
    return (ASSETS / "uplot" / "LICENSE").read_text(encoding="utf-8").strip()


def as_block(data: Any) -> str:
    """JSON without the characters that HTML or JavaScript give a meaning."""
    text = strict_json(data)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def strict_json(data: Any, ascii_only: bool = False) -> str:
    """JSON as browsers read it, with null for NaN and infinity: a user's reward may be any float."""
    write = partial(json.dumps, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)
    try:
        return write(data)
    except ValueError:  # rare, so that other pages need no copy of their data
        return write(plain(data))


def _hashes(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        yield f"'sha256-{digest}'"
