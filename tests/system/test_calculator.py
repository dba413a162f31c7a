"""The recipe `calculator`: the toy learns to ask its tool."""

from pathlib import Path
from typing import Any

import pytest
from commands import finish, result, start, tail

from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage


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
    assert 0.3 <= before["mean"] <= 0.6
    used = check_coverage(run, problems_per_step=32, completions_per_problem=8)
    assert used.exact and used.steps == 30
    rows = current_rows(run).to_pylist()
    steps = sorted({row["step"] for row in rows})
    first, last = (calling([row for row in rows if row["step"] == step]) for step in (steps[0], steps[-1]))
    assert first < 0.4 and last > 0.9
    for row in rows:
        if row["sampled"] is not None:  # its result is that of what it has asked, wherever the problem was copied right
            asked, _, rest = row["text"].partition("=<|end|><|user|>")
            shown = rest.partition("<|assistant|>")[0]
            assert str(sum(map(int, asked.split("+")))) == shown


def calling(rows: list[dict[str, Any]]) -> float:
    """Share of the rollouts that have called the tool."""
    return sum(row["sampled"] is not None for row in rows) / len(rows)
