"""Spans survive kills and full disks, cost little, and are on one clock for all processes of a machine."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import PYTHONPATH

from openrs_ray.run import spans
from openrs_ray.run.spans import add_span, following, handed_on, recording, span, traced


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def child(folder: Path, process: str, code: str, **more: Any) -> subprocess.Popen[str]:
    """Python that records under this name, as an actor does."""
    with recording(folder, "driver"):
        environment = os.environ | handed_on(process) | {"PYTHONPATH": PYTHONPATH}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE, **more)


def test_a_span_says_when_how_long_and_what(tmp_path: Path) -> None:
    before = time.time()
    with recording(tmp_path / "trace", "driver"), span("take", step=7) as attributes:
        attributes["positions"] = [28, 29]
        time.sleep(0.05)
    after = time.time()
    (line,) = lines(tmp_path / "trace" / "driver.jsonl")
    assert (line["name"], line["ph"], line["pid"]) == ("take", "X", os.getpid())
    assert line["args"] == {"step": 7, "positions": [28, 29]}
    assert line["dur"] / 1e6 >= 0.05
    assert before <= line["ts"] / 1e6 and (line["ts"] + line["dur"]) / 1e6 <= after


def test_a_block_that_fails_says_so_and_fails(tmp_path: Path) -> None:
    with recording(tmp_path, "driver"), pytest.raises(ZeroDivisionError), span("step"):
        raise ZeroDivisionError
    assert lines(tmp_path / "driver.jsonl")[0]["args"] == {"error": "ZeroDivisionError"}


def test_functions_of_both_kinds_are_traced_with_the_arguments_asked_for(tmp_path: Path) -> None:
    class Loop:
        @traced("write", "step", "kind")
        async def write(self, step: int, secret: str, kind: str = "kept") -> int:
            await asyncio.sleep(0.02)
            return step + 1

        @traced("pack")
        def pack(self, count: int) -> int:
            return count

    with recording(tmp_path, "driver"):
        assert asyncio.run(Loop().write(3, "x", kind="resume")) == 4 and Loop().pack(5) == 5
    write, pack = lines(tmp_path / "driver.jsonl")
    assert write["args"] == {"step": 3, "kind": "resume"} and write["dur"] >= 0.02e6
    assert (pack["name"], pack["args"]) == ("pack", {})


def test_nothing_is_recorded_or_handed_on_when_nobody_asked(tmp_path: Path) -> None:
    with span("step"):
        add_span("queue", 0, 1)
    assert handed_on("engine-0") == {}
    with recording(tmp_path, "driver"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_kill_in_the_middle_leaves_readable_lines(tmp_path: Path) -> None:
    code = "from openrs_ray.run.spans import span\nimport itertools, time\n"
    code += "for i in itertools.count():\n with span('step', i=i): time.sleep(0.001)\n if i == 2000: print('on', flush=True)"
    process = child(tmp_path, "engine-0", code)
    assert process.stdout is not None and process.stdout.readline() == "on\n"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    file = tmp_path / "engine-0.jsonl"
    found = [line["args"]["i"] for line in lines(file)]
    assert found == list(range(len(found))) and len(found) > 500, "all but those of the last half second"

    file.write_bytes(file.read_bytes()[:-20])  # as a power cut may tear the last one
    with recording(tmp_path, "engine-0"), span("after"):
        pass
    *before, last = [line for line in file.read_text().splitlines() if line]
    assert json.loads(last)["name"] == "after" and [json.loads(line) for line in before[:-1]]


def test_two_processes_of_one_actor_share_a_file_and_a_clock(tmp_path: Path) -> None:
    code = "from openrs_ray.run.spans import span\nimport time\n"
    code += "for i in range(300):\n with span('inner', i=i): time.sleep(0.001)"
    with recording(tmp_path, "engine-0"), span("outer"):
        children = [child_of(tmp_path, code) for _ in range(2)]
        assert [process.wait(60) for process in children] == [0, 0]
    found = lines(tmp_path / "engine-0.jsonl")
    (outer,) = [line for line in found if line["name"] == "outer"]
    for process in children:
        own = [line for line in found if line["pid"] == process.pid]
        assert [line["args"]["i"] for line in own] == list(range(300))
        assert outer["ts"] <= own[0]["ts"] and own[-1]["ts"] + own[-1]["dur"] <= outer["ts"] + outer["dur"]


def child_of(folder: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | handed_on("engine-0") | {"PYTHONPATH": PYTHONPATH},
        text=True,
    )


@pytest.mark.parametrize("fault", ["a full disk", "no folder", "a file in its place"])
def test_a_disk_that_takes_nothing_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str) -> None:
    folder = tmp_path / "gone" / "trace" if fault == "no folder" else tmp_path / "trace"
    if fault == "a full disk":
        folder.mkdir()
        (folder / "driver.jsonl").symlink_to("/dev/full")
    elif fault == "a file in its place":
        folder.write_text("")
    with caplog.at_level(logging.WARNING), recording(folder, "driver"):
        for _ in range(3):
            with span("step"):
                pass
            assert spans._recorder is not None
            spans._recorder.write()
    assert [record.message.split(":")[0] for record in caplog.records] == ["Spans of driver are lost"]


def test_attributes_of_any_kind_are_written(tmp_path: Path) -> None:
    with recording(tmp_path, "driver"), span("step", path=tmp_path, bad="\udc80", cut=b"\xff"):
        pass
    assert lines(tmp_path / "driver.jsonl")[0]["args"]["path"] == str(tmp_path)


def test_an_attempt_stays_within_its_bound_and_keeps_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "_MOST_BYTES", 20_000)
    with recording(tmp_path, "driver"):
        for i in range(5000):
            add_span("queue", 10**18 + i, 10, i=i)
            if i % 50 == 49:
                assert spans._recorder is not None
                spans._recorder.write()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["driver.jsonl", "driver.old.jsonl"]
    assert all(file.stat().st_size <= 20_000 + 50 * 100 for file in files)
    found = sorted(line["args"]["i"] for file in files for line in lines(file))
    assert found == list(range(found[0], 5000)) and len(found) > 200


def test_a_span_costs_microseconds(tmp_path: Path) -> None:
    """CPU time of the whole process, writing included; 5 us on the machine it was written on."""
    count, costs = 20_000, []
    with recording(tmp_path, "driver"):
        for _ in range(3):
            began = time.process_time()
            for i in range(count):
                with span("decode", position=i, sample=3, tokens=512):
                    pass
            assert spans._recorder is not None
            spans._recorder.write()
            costs.append((time.process_time() - began) / count)
    assert min(costs) < 20e-6, f"{1e6 * min(costs):.1f} us per span"


def test_a_follower_that_fails_costs_the_run_nothing_and_is_told_of_no_more(caplog: pytest.LogCaptureFixture) -> None:
    class Follower:
        told = 0

        def began(self, name: str, attributes: dict[str, Any]) -> None:
            self.told += 1

        def ended(self, name: str, attributes: dict[str, Any]) -> None:
            self.told += 1

    class Failing(Follower):
        def ended(self, name: str, attributes: dict[str, Any]) -> None:
            raise ZeroDivisionError

    good, failing = Follower(), Failing()
    with following(failing), following(good):
        for _ in range(2):
            with span("take"):
                pass
    assert (good.told, failing.told) == (4, 1)
    assert caplog.text.count("is told of no more") == 1
    with span("take"):
        pass
    assert good.told == 4
