"""Serves the page of runs to browsers on this machine, and follows the runs.

Only addresses with the secret in their path are answered, only under the names of this machine, and only to read. Nothing is
taken from elsewhere, and a browser is told to run nothing but the page's own files.
"""

import hmac
import json
import logging
import mimetypes
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import TypeAdapter, ValidationError

from openrs_ray.config.names import CONFIG
from openrs_ray.errors import RunError, UserError
from openrs_ray.report.comparison import comparison
from openrs_ray.report.completions import Phase, Query, find, one
from openrs_ray.report.run_tokenizer import decoder_of
from openrs_ray.report.static import ASSETS, INDEX, asset_names, now, strict_json
from openrs_ray.report.summary import RunSummary
from openrs_ray.run.completion_files import current_files

_LOG = logging.getLogger(__name__)
HOST = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""A forwarded port keeps one of these names; any other is somebody's page that wants to be taken for this one."""
_MOST_ROWS = 200
_LONGEST_S = 20.0
"""For a request to arrive."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One completion of a run's record."""

    phase: Phase
    step: int
    attempt: int
    position: int
    sample: int


_QUERY, _KEY = TypeAdapter(Query), TypeAdapter(Key)


@dataclass
class PageData:
    """Answers the page's questions. Thread-safe; UserError for a question that makes no sense."""

    runs: Sequence[Path]
    _summaries: list[RunSummary] = field(init=False)
    _compared: tuple[Any, Any] = (None, None)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._summaries = [RunSummary(run) for run in self.runs]

    def answer(self, path: str, asked: dict[str, str]) -> dict[str, Any]:
        known = {"runs": self._runs, "completions": self._completions, "completion": self._completion}
        if path not in known:
            raise UserError(f"there is nothing at {path[:100]}")
        return known[path](asked)

    def _runs(self, asked: dict[str, str]) -> dict[str, Any]:
        """Only the stamp where nothing has changed since the page's."""
        have = _parsed(asked.get("have", "[]"), list)
        with self._lock:
            stamp = json.dumps([_stamp(run) for run in self.runs])
            if stamp == asked.get("stamp"):
                return {"stamp": stamp}
            parts = [
                have[place] if place < len(have) and isinstance(have[place], dict) else {}
                for place in range(len(self.runs))
            ]
            summaries = [summary.read(part) for summary, part in zip(self._summaries, parts, strict=True)]
            compared = [_compared(run) for run in self.runs if len(self.runs) > 1]
            if self._compared[0] != compared:
                self._compared = (compared, comparison(self.runs))
        return {"live": True, "made": now(), "stamp": stamp, "runs": summaries, "comparison": self._compared[1]}

    def _completions(self, asked: dict[str, str]) -> dict[str, Any]:
        query = _checked(_QUERY, asked.get("query", "{}"))
        offset, limit = _number(asked, "offset", 0), min(_MOST_ROWS, _number(asked, "limit", 50))
        page = find(self._run(asked), query, offset, limit)
        return {"rows": page.rows, "total": page.total, "note": ""}

    def _completion(self, asked: dict[str, str]) -> dict[str, Any]:
        key = _checked(_KEY, asked.get("key", "{}"))
        run = self._run(asked)
        return one(run, **asdict(key), tokenizer=decoder_of(run))

    def _run(self, asked: dict[str, str]) -> Path:
        place = _number(asked, "run", 0)
        if place >= len(self.runs):
            raise UserError(f"there is no run {place}")
        return self.runs[place]


def _parsed(text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("the question is not JSON") from error
    if not isinstance(value, kind):
        raise UserError(f"the question must be a JSON {kind.__name__}")
    return value


def _checked(kind: TypeAdapter[Any], text: str) -> Any:
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserError(f"the question is wrong: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _number(asked: dict[str, str], name: str, without: int) -> int:
    text = asked.get(name, str(without))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{name} must be a whole number")
    return int(text)


def _compared(run: Path) -> list[Any]:
    """Changes with all that a comparison of runs is made of: evaluations that count, and settings."""
    try:
        evaluated = [file.path.name for file in current_files(run, "evaluation")]
    except UserError as error:  # the run's own part of the page says so, too
        evaluated = [str(error)]
    return [evaluated, _stamps([run / CONFIG])]


def _stamp(run: Path) -> list[Any]:
    """Changes with every file of a run that the page shows, but for its completions."""
    names = ("config.json", "attempts.jsonl", "metrics.jsonl", "cost.json", "result.json", "driver.lock")
    files = [*(run / name for name in names), run / "checkpoints" / "manifest.json"]
    files += [
        *run.glob("attempts/*/log.txt"),
        *run.glob("attempts/*/trace/*.jsonl"),
        *run.glob("evaluation/*/*/report.json"),
    ]
    return _stamps(files)


def _stamps(files: Sequence[Path]) -> list[Any]:
    found = []
    for file in files:
        try:
            found.append([file.name, file.stat().st_mtime_ns, file.stat().st_size])
        except OSError:
            continue
    return found


class PageServer(ThreadingHTTPServer):
    """Listens on the loopback interface alone; `address` has the secret in it."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, data: PageData, listening: socket.socket, secret: str) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.data, self.secret = data, secret
        self.assets = {INDEX, *asset_names()}

    @property
    def address(self) -> str:
        return address(self.socket, self.secret)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def listen(port: int = 0) -> socket.socket:
    """UserError where the port is taken."""
    try:
        return socket.create_server((HOST, port), backlog=32)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"port {port} of {HOST} cannot be had ({reason}): choose another one") from error


def new_secret() -> str:
    return secrets.token_urlsafe(24)


def address(listening: socket.socket, secret: str) -> str:
    return f"http://{HOST}:{listening.getsockname()[1]}/{secret}/"


def serve(
    runs: Sequence[Path], listening: socket.socket, secret: str, ready: Callable[[str], None] = lambda text: None
) -> None:
    """Serve until the process is stopped; `ready` is told the address."""
    with PageServer(PageData(runs), listening, secret) as server:
        ready(server.address)
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "openrs_ray", ""
    timeout = _LONGEST_S
    server: PageServer

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def _respond(self) -> None:
        if not self._allowed():
            self._send(HTTPStatus.NOT_FOUND, b"Not found\n", "text/plain")
            return
        parts = urlsplit(self.path)
        inside = parts.path.split("/", 2)[2] if parts.path.count("/") > 1 else None
        if inside is None:
            self._redirect()
        elif inside.startswith("data/"):
            asked = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            self._answer(inside.removeprefix("data/"), asked)
        else:
            self._file(inside or INDEX)

    def _allowed(self) -> bool:
        """True with the secret, and under a name of this machine."""
        given = urlsplit(self.path).path.split("/")[1:2]
        known = hmac.compare_digest("".join(given).encode(errors="replace"), self.server.secret.encode())
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        return known and name in _NAMES

    def _redirect(self) -> None:
        self._send(HTTPStatus.PERMANENT_REDIRECT, b"", "text/plain", {"Location": f"/{self.server.secret}/"})

    def _file(self, name: str) -> None:
        if name not in self.server.assets:
            self._send(HTTPStatus.NOT_FOUND, b"Not found\n", "text/plain")
            return
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        self._send(HTTPStatus.OK, (ASSETS / name).read_bytes(), kind)

    def _answer(self, path: str, asked: dict[str, str]) -> None:
        try:
            status, answer = HTTPStatus.OK, self.server.data.answer(path, asked)
        except (UserError, RunError) as error:
            status, answer = HTTPStatus.BAD_REQUEST, {"error": str(error)}
        except Exception as error:  # the browser says so, instead of that nobody answers
            _LOG.warning("The page's question %s failed", path, exc_info=True)
            status, answer = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"the server failed ({type(error).__name__})"}
        content = strict_json(answer, ascii_only=True).encode()
        self._send(status, content, "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            **_HEADERS,
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the address in such a line has the secret."""
