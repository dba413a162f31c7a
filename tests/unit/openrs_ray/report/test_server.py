"""The server answers to those with the secret, on this machine, and to nobody else."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from made_run import made_run

from openrs_ray.errors import UserError
from openrs_ray.report.server import PageData, PageServer, listen
from openrs_ray.run.attempts import start_attempt


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    run = made_run(tmp_path_factory.mktemp("page") / "run")
    with PageServer(PageData([run]), listen(), "s3cret") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def ask(
    server: PageServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    port = urlsplit(server.address).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return found


def data(server: PageServer, path: str) -> tuple[int, Any]:
    status, _, content = ask(server, f"/s3cret/data/{path}")
    return status, json.loads(content)


def test_it_listens_on_the_loopback_interface_alone(server: PageServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.address.startswith("http://127.0.0.1:") and server.address.endswith("/s3cret/")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.html",
        "/wrong/",
        "/s3cre/",
        "/s3cret2/",
        "/wrong/data/runs",
        "/S3CRET/",
        "/%73%33cret/",
        "/%C3%A9/",
        "/%FF%FE/",
    ],
)
def test_nothing_is_there_without_the_secret(server: PageServer, path: str) -> None:
    status, _, content = ask(server, path)
    assert (status, content) == (404, b"Not found\n")


def test_the_secret_is_compared_in_constant_time(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("hmac.compare_digest", lambda *pair: asked.append(pair) or pair[0] == pair[1])
    assert ask(server, "/s3cret/")[0] == 200 and ask(server, "/other/")[0] == 404
    assert asked == [(b"s3cret", b"s3cret"), (b"other", b"s3cret")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example:80", 404),
        ("127.0.0.1.evil.example", 404),
    ],
)
def test_only_names_of_this_machine_are_answered(server: PageServer, host: str, status: int) -> None:
    assert ask(server, "/s3cret/", host)[0] == status


def test_a_browser_may_run_only_the_pages_own_files(server: PageServer) -> None:
    for path in ("/s3cret/", "/s3cret/app.js", "/s3cret/data/runs", "/elsewhere"):
        headers = ask(server, path)[1]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';") and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store" and "python" not in headers["server"].lower()


@pytest.mark.parametrize(
    "name",
    [
        "../server.py",
        "..%2fserver.py",
        "page.css/../../server.py",
        "LICENSE",
        "uplot/",
        "%2e%2e/server.py",
        "/etc/passwd",
    ],
)
def test_only_files_of_the_page_are_served(server: PageServer, name: str) -> None:
    assert ask(server, f"/s3cret/{name}")[0] == 404


def test_files_have_their_kind(server: PageServer) -> None:
    kinds = {
        "": "text/html",
        "page.css": "text/css",
        "app.js": "text/javascript",
        "uplot/uPlot.iife.min.js": "text/javascript",
    }
    assert {name: ask(server, f"/s3cret/{name}")[1]["content-type"].split(";")[0] for name in kinds} == kinds
    status, headers, content = ask(server, "/s3cret/page.css", method="HEAD")
    assert (status, content) == (200, b"") and int(headers["content-length"]) > 1000
    assert ask(server, "/s3cret")[1]["location"] == "/s3cret/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(server: PageServer, method: str) -> None:
    assert ask(server, "/s3cret/", method=method)[0] == 501


def test_the_second_question_is_answered_with_what_is_new(server: PageServer) -> None:
    status, whole = data(server, "runs?have=[]&stamp=")
    assert status == 200 and whole["live"] and whole["runs"][0]["curves"]["step"][-1] == 40
    assert data(server, f"runs?have=[]&stamp={quote(whole['stamp'])}")[1] == {"stamp": whole["stamp"]}
    curves = whole["runs"][0]["curves"]
    have = json.dumps([{"token": curves["token"], "points": 40, "trace": whole["runs"][0]["trace_stamp"]}])
    run = data(server, f"runs?have={quote(have)}&stamp=old")[1]["runs"][0]
    assert run["curves"]["step"] == [] and run["trace"] == "same"


@pytest.mark.parametrize(
    "path",
    [
        "runs?have={}",
        "runs?have=[",
        "completions?run=9",
        "completions?run=-1",
        "completions?run=0&limit=x",
        "completions?run=0&query=[]",
        "completions?run=0&query={%22order%22:%22random%22}",
        "completion?run=0&key={}",
        "elsewhere",
        f"runs?have={'[' * 5000}",
    ],
)
def test_a_question_that_makes_no_sense_is_one_sentence(server: PageServer, path: str) -> None:
    status, answer = data(server, path)
    assert status == 400 and "\n" not in answer["error"] and "Traceback" not in answer["error"]


def test_a_comparison_is_of_the_policies_that_count(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / name, after=after) for name, after in (("first", 0.4), ("second", 0.9))]
    pages = PageData(runs)
    (row,) = pages.answer("runs", {})["comparison"]["paired"]
    assert "fault" not in row
    start_attempt(runs[1], 20)  # it goes back before the evaluation, which then counts no more
    (row,) = pages.answer("runs", {})["comparison"]["paired"]
    assert "no evaluation of a trained policy yet" in row["fault"]


def test_a_damaged_file_of_attempts_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / name) for name in ("first", "second")]
    (runs[0] / "attempts.jsonl").write_text('{"attempt": "one"}\n')
    for shown in (runs, runs[:1]):
        found = PageData(shown).answer("runs", {})["runs"]
        assert len(found) == len(shown) and any("attempts.jsonl" in fault for fault in found[0]["faults"])


def test_a_port_that_is_taken_is_one_sentence(server: PageServer) -> None:
    port = urlsplit(server.address).port
    with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be had"):
        listen(port)
    with pytest.raises(UserError, match="cannot be had"):
        listen(99_999)


def test_pages_of_the_server_and_of_a_file_have_the_same_parts(server: PageServer) -> None:
    index = ask(server, "/s3cret/")[2].decode()
    for name in server.assets - {"index.html"}:
        assert name in index and ask(server, f"/s3cret/{name}")[0] == 200
    assert Path("page.css").name in server.assets


def test_a_question_that_nobody_foresaw_is_answered_with_a_sentence(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(asked: dict[str, str]) -> dict[str, Any]:
        raise ZeroDivisionError(asked)

    monkeypatch.setattr(server.data, "_runs", fails)
    assert data(server, "runs") == (500, {"error": "the server failed (ZeroDivisionError)"})
    assert "data/runs" not in caplog.text and "question runs failed" in caplog.text
    monkeypatch.undo()
    assert data(server, "runs")[0] == 200, "it goes on"
