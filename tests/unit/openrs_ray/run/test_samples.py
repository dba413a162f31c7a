"""Two completions of an evaluation: one right and one wrong, folded into a line each; none of a benchmark."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from simulated_run import SimulatedRun
from virtual_time import run as in_virtual_time

from openrs_ray.evaluation.benchmarks import is_benchmark
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.progress import Progress
from openrs_ray.run.samples import sample_lines


def group(
    text: str, statuses: Sequence[Status], rewards: Sequence[float | None] = (), problem: str = "1+1", gold: str = "2"
) -> Group:
    rollouts = [
        Rollout.of([Completion(0, at, np.arange(1234), np.zeros(1234), "stop", (VersionSpan(0, 0, 1234),), 0)])
        for at in range(len(statuses))
    ]
    given = [*rewards, *[0.0] * len(statuses)]
    verdicts = [Verdict(status, {}, given[at]) for at, status in enumerate(statuses)]
    golds = (gold,) if gold else ()
    texts = tuple(f"{text}{at}" for at in range(len(statuses)))
    return Group(0, Problem(0, problem, (1,), golds), tuple(rollouts), tuple(verdicts), texts)


def test_the_first_right_and_the_first_wrong_one() -> None:
    groups = [
        group("a", [Status.TIMEOUT, Status.WRONG]), group("b", [Status.NO_ANSWER, Status.CORRECT, Status.CORRECT])
    ]  # fmt: skip
    assert sample_lines(groups) == [
        'right: "1+1" -> "b1" (gold 2; 1,234 tokens)',
        'wrong: "1+1" -> "a1" (gold 2; 1,234 tokens)',
    ]
    assert sample_lines(groups[:1]) == ['wrong: "1+1" -> "a1" (gold 2; 1,234 tokens)']
    assert sample_lines([group("c", [Status.TIMEOUT])]) == []


def test_without_golds_the_best_and_the_worst() -> None:
    lines = sample_lines([group("a", [Status.UNCHECKED] * 4, [0.5, 0.75, None, 0.125], gold="")])
    assert lines == ['reward 0.75: "1+1" -> "a1" (1,234 tokens)', 'reward 0.125: "1+1" -> "a3" (1,234 tokens)']


def test_long_ones_are_folded_and_control_characters_do_not_reach_the_terminal() -> None:
    text = "First\n\n\x1b[31m" + "thinking " * 1000 + "\\boxed{2}"
    (line,) = sample_lines([group(text, [Status.CORRECT], problem="Why? " * 100)])
    assert line.isprintable() and len(line) < 340
    assert line.startswith('right: "Why? Why?') and " ... " in line and '\\boxed{2}0" (gold 2; 1,234 tokens)' in line


def test_piped_they_are_lines_like_the_others() -> None:
    out = io.StringIO()
    with RunDisplay("small", 10, Console(file=out, width=40, highlight=False)) as display:
        display.samples(sample_lines([group("[b]a", [Status.CORRECT])]))
    assert out.getvalue() == '[small] right: "1+1" -> "[b]a0" (gold 2; 1,234 tokens)\n'


@pytest.mark.parametrize(
    ("path", "known"), [("toy", False), (None, False), ("aime24", True), ("HuggingFaceH4/MATH-500", True)]
)
def test_a_benchmark_is_known_by_name_and_source(path: str | None, known: bool) -> None:
    assert is_benchmark(path) is known


@pytest.mark.parametrize(("path", "shown"), [("toy-heldout", 2), ("HuggingFaceH4/MATH-500", 0)])
def test_an_evaluation_shows_them_but_none_of_a_benchmark(tmp_path: Path, path: str, shown: int) -> None:
    told: list[str] = []

    async def evaluated() -> None:
        run = SimulatedRun(tmp_path / "run", Progress(), evaluation={"path": path})  # type: ignore[dict-item]
        display: Any = SimpleNamespace(note=lambda text: None, samples=told.extend)
        object.__setattr__(run.writer, "display", display)
        scores: Any = SimpleNamespace(metrics=dict, accuracy=None, tasks={})
        await run.writer.evaluation(0, [group("a", [Status.CORRECT, Status.WRONG])], scores)
        await run.sampling.close()

    in_virtual_time(evaluated())
    assert len(told) == shown
