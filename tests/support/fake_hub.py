"""A stand-in for the Hugging Face Hub: takes what its own client uploads, and keeps it."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_0123456789abcdefghij"


@dataclass
class FakeHub:
    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    """Repositories, by name."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Uploaded to any of them."""
    cards: list[str] = field(default_factory=list)
    """Texts that were asked to be checked."""
    refuse: str = ""
    """Part of an address that is answered with 403."""


@contextmanager
def fake_hub(**given: Any) -> Iterator[FakeHub]:
    hub = FakeHub(**given)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(200, {})

        def do_GET(self) -> None:
            name = (
                self.path.partition("?")[0].removeprefix("/api/models/").partition("/revision")[0].partition("/tree")[0]
            )
            if hub.refuse and hub.refuse in self.path:
                return self.answer(403, {"error": "you may not"})
            if name in hub.private:
                return self.answer(200, {"id": name, "private": hub.private[name], "siblings": [], "sha": "0" * 40})
            self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            assert self.headers["authorization"] == f"Bearer {TOKEN}"
            if hub.refuse and hub.refuse in self.path:
                return self.answer(403, {"error": "you may not"})
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.private.setdefault(name, asked.get("visibility") == "private" or asked.get("private") is True)
                return self.answer(200, {"url": f"{hub.url}/{name}", "id": name})
            if self.path == "/api/validate-yaml":
                hub.cards.append(json.loads(body)["content"])
                return self.answer(200, {"warnings": [], "errors": []})
            if "/preupload/" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
                return self.answer(200, {"files": modes})
            if "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                name = self.path.removeprefix("/api/models/").partition("/commit")[0]
                return self.answer(
                    200, {"commitUrl": f"{hub.url}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
                )
            self.answer(404, {"error": f"no {self.path}"})

        def answer(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(body)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
