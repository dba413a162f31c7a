"""Own rewards in a whole run: bad calls cost their completion only; resumed with the same file, refused with another."""

import zlib
from pathlib import Path

import psutil
import pytest
from commands import finish, start, steps_done, tail, write_recipe

from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics

ENDLESS = "31536017"
"""Seconds of a sleep that only this test starts."""
FILE = f"""
import os, subprocess, zlib

def moody(completion, *, problem, row, token_count, every: int = 16):
    number = zlib.crc32(f"{{problem}} {{completion}}".encode()) % every
    print("number", number)
    if number == 0:
        subprocess.Popen(["sleep", "{ENDLESS}"])
        while True: pass
    if number == 1:
        os._exit(7)
    if number == 2:
        bytearray(64 << 30)
    if number == 3:
        return None
    if number == 4:
        return "good"
    return float(row["answer"] == row["answer"]) - 0.01 * token_count

def spread(completions, *, token_counts):
    return [count / max(token_counts) for count in token_counts]
"""
EXPECTED = {
    0: ("timeout", "killed at the deadline of 1 s of computing in mine.py:moody"),
    1: ("error", "2 checking processes died of it in mine.py:moody, the last with exit code 7"),
    2: ("error", "MemoryError at the limit of 1 GiB in mine.py:moody"),
    3: (None, "mine.py:moody did not judge it (it returned None)"),
    4: ("error", "mine.py:moody returned 'good' (str), not a number up to a million, or None"),
}


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_bad_calls_cost_their_completion_only_and_the_file_is_the_runs(tmp_path: Path, toy_folder: Path) -> None:
    mine, run, log = tmp_path / "mine.py", tmp_path / "run", tmp_path / "log"
    mine.write_text(FILE)
    weights = {"accuracy": 1.0, "mine.py:moody": 1.0, "mine.py:spread": 0.5}
    rewards = {"weights": weights, "deadline_s": 1.0, "memory_gib": 1.0, "processes": 2, "max_unjudged_share": 0.9}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 4, rewards=rewards)
    process = start([str(recipe), "--run.steps", "2"], log)
    assert finish(process, log) == 0, tail(log)
    assert (run / "code" / "mine.py").read_text() == FILE

    mine.write_text(FILE + "# another one\n")
    process = start([str(recipe), "--resume"], log)
    assert finish(process, log) == 2, tail(log)
    assert f"The lines of {mine} (kept in {run}/code/mine.py) have changed since run run began" in " ".join(
        tail(log).split()
    )

    mine.unlink()  # the run's own copy is as good
    process = start([str(recipe), "--resume"], log)
    assert finish(process, log) == 0, tail(log)
    assert steps_done(run) == 4 and check_coverage(run, 4, 4, 0).exact

    seen = set()
    for row in current_rows(run).to_pylist():
        number = zlib.crc32(f"{row['problem']} {row['text']}".encode()) % 16
        status, detail = EXPECTED.get(number, (None, ""))
        seen.add(number)
        assert row["detail"] == detail, (number, row)
        assert (row["reward"] is None) == (number in EXPECTED), (number, row)
        assert row["status"] == (status or row["status"]) and (
            status or row["status"] in ("correct", "wrong", "no_answer")
        )
    assert {0, 1, 2, 3, 4} <= seen, seen
    figures = [line for line in read_metrics(run) if line["phase"] == "train"]
    assert sum(line["timeouts"] for line in figures) > 0 < sum(line["not_judged"] for line in figures)
    assert "mine.py:moody: number" in "".join(path.read_text() for path in run.glob("attempts/*/log.txt"))
    assert ENDLESS not in {word for each in psutil.process_iter() for word in _words(each)}, "nothing is left running"

    process = start([str(recipe), "--resume", "--run.steps", "6", "--rewards.max_unjudged_share", "0.01"], log)
    assert finish(process, log) == 1, tail(log)
    assert "more than rewards.max_unjudged_share (0.01)" in " ".join(tail(log).split())


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
