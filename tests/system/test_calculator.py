"""The recipe `calculator`: the toy learns to ask its tool."""

from pathlib import Path

import pytest
from commands import finish, result, start, tail

from openrs_ray.run.completions import current_rows
from openrs_ray.run.metrics import read_metrics


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(1800)
def test_the_toy_learns_to_ask_the_calculator(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert finish(start(["calculator", "--run.folder", str(tmp_path)], log), log, seconds=1500) == 0, tail(log)
    assert_learned(tmp_path / "calculator")


def assert_learned(run: Path) -> None:
    accuracy = result(run)
    before, after = accuracy["before"], accuracy["after"]
    assert isinstance(before, dict) and isinstance(after, dict)
    assert after["low"] > before["high"] and after["mean"] >= 0.9
    turns = [line["mean_turns"] for line in read_metrics(run) if line["phase"] == "train"]
    assert turns[-1] > turns[0] + 0.4
    for row in current_rows(run).to_pylist():
        if row["sampled"] is not None:  # its result is that of its own problem, wherever the problem was copied right
            asked, _, rest = row["text"].partition("=<|end|><|user|>")
            shown = rest.partition("<|assistant|>")[0]
            assert str(sum(map(int, asked.split("+")))) == shown
