"""The two live lines on a terminal: they fit, they say what is under way, and nothing that is printed meanwhile is garbled."""

import io
import itertools
import math
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console
from screen import Screen, Terminal
from shown_steps import step_figures

from openrs_ray.run.activity import Activity
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.live import LiveState, live_lines, sparkline
from openrs_ray.run.log import RunLog
from openrs_ray.run.spans import following, recording, span

COST = "$ 12.34 of 42.00 (forecast 39.10)"


def state(**changes: object) -> LiveState:
    about = {
        "doing": "sampling 41/72, 1,830 tokens/s, 2:10",
        "step": 7,
        "steps": 50,
        "seconds": 207.0,
        "left": 77.0,
        "cost": COST,
        "rewards": [0.5, 1.0, 1.5, 2.0, 2.4, 2.6, 2.72],
        "accuracies": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.863],
    }
    return LiveState(**(about | changes))  # type: ignore[arg-type]


def test_at_80_columns_both_lines_say_all() -> None:
    work, progress = live_lines(state(), 80)
    assert work.startswith("sampling 41/72, 1,830 tokens/s, 2:10 ") and work.endswith(f" 0:03:27  {COST[:16]}")
    assert progress.startswith("step 7/50  ") and "0:01:17 left" in progress
    assert "reward ▁" in progress and "█ 2.72" in progress and progress.endswith("█ 86%") and "━" in progress
    assert live_lines(state(doing="pushing, 0:01"), 80)[0].endswith(f" 0:03:27  {COST}")
    assert live_lines(state(), 200) == (work, progress)


def test_at_60_columns_the_least_needed_is_left_out() -> None:
    work, progress = live_lines(state(), 60)
    assert work.startswith("sampling 41/72, 1,830 tokens/s, 2:10 ") and work.endswith("0:03:27  $ 12.34")
    assert "0:01:17 left" in progress and progress.endswith("86%") and "2.72" in progress


def test_nothing_is_ever_wider_than_the_terminal_less_three_columns() -> None:
    chance = random.Random(0)
    doings = ("", "pushing, 0:01", "sampling 41/72, 1,830 tokens/s, 2:10", "saving and " * 9)
    for width in itertools.chain(range(1, 130), (200, 400)):
        steps = chance.choice((1, 50, 100_000))
        count = chance.randrange(steps + 1) if steps < 100 else 321
        values = [chance.choice((math.nan, chance.gauss(0, 1e3))) for _ in range(count)]
        drawn = state(
            doing=chance.choice(doings), steps=steps, step=min(steps, count), seconds=chance.uniform(0, 4e5),
            left=chance.choice((None, 0.0, 4e5)), cost=chance.choice(("", COST)), rewards=values, accuracies=values,
        )  # fmt: skip
        assert all(len(line) <= max(0, width - 3) for line in live_lines(drawn, width)), width


def test_a_terminal_without_unicode_gets_plain_letters() -> None:
    assert "".join(live_lines(state(), 80, unicode=False)).isascii()


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 8, ""),
        ([1.0], 8, "▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([math.nan, 0, 1], 3, " ▁█"),
        ([math.nan], 3, " "),
        ([5.0] * 100, 4, "▁▁▁▁"),
    ],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


@pytest.fixture
def clock() -> Iterator[list[float]]:
    yield [100.0]


def test_the_present_work_with_its_counts(clock: list[float], tmp_path: Path) -> None:
    activity = Activity(groups=2, samples=2, trace=tmp_path, clock=lambda: clock[0])
    rollout = {"phase": "train", "sample": 0}
    with following(activity):
        assert activity.text() == ""
        with span("take", step=3) as taken:
            assert activity.text() == "sampling 0/4, 0:00"
            waiting = [span("rollout", position=at, **rollout) for at in (8, 8, 9, 9)]
            seen = [each.__enter__() for each in waiting]
            clock[0] += 130
            for ended in (0, 2):
                seen[ended]["tokens"] = 6500
                waiting[ended].__exit__(None, None, None)
            assert activity.text() == "sampling 2/4, 100 tokens/s, 2:10"
            for ended in (1, 3):
                waiting[ended].__exit__(None, None, None)
            with span("judge", positions=[8], completions=3):
                assert activity.text() == "judging 1/4, 2:10"
            assert activity.text().startswith("sampling 4/4")
            taken["positions"] = [8, 9]
        assert activity.text() == "" and activity.in_hand == 0
        with span("train", step=3):
            assert activity.text() == "training, 0:00"
            with span("pack", step=3) as packed:
                packed["micro_batches"] = 8
            assert activity.text() == "training micro-batch 1/8, 0:00"
            with recording(tmp_path, "learner-0"):
                for done in range(2):
                    with span("forward_backward", step=3, micro_batch=done, tokens=5):
                        pass
            assert activity.text() == "training micro-batch 3/8, 0:00"
        with span("train", step=4):
            with span("pack", step=4) as packed:
                packed["micro_batches"] = 2
            assert activity.text() == "training micro-batch 1/2, 0:00", "those of the step before do not count"
        with span("push", version=3):
            assert activity.text() == "pushing, 0:00"
        with span("save", kind="kept"):
            assert activity.text() == "saving a checkpoint, 0:00"
        with span("evaluate", step=3):
            with span("rollout", phase="evaluation", position=8, sample=0):
                assert activity.text() == "evaluating 0/1, 0:00"
            assert activity.text() == "evaluating 1/1, 0:00"
        with span("take", step=4):
            assert activity.text() == "sampling 0/4, 0:00", "nothing of earlier steps is left"


def test_completions_of_later_steps_are_not_counted_and_dropped_ones_are_forgotten() -> None:
    activity = Activity(groups=1, samples=2, ahead=True)
    with following(activity), span("take", step=1):
        spans = [span("rollout", phase="train", position=at, sample=0) for at in (0, 0, 1, 1)]
        for each in spans:
            each.__enter__()
        spans[2].__exit__(None, None, None)
        assert activity.text().startswith("sampling 0/2")
        for each in spans[:2]:
            try:
                raise_cancelled()
            except BaseException:
                each.__exit__(*sys.exc_info())
        assert activity.text().startswith("sampling 1/2")


def raise_cancelled() -> None:
    raise __import__("asyncio").CancelledError


SCRIPT = """
import logging, os, subprocess, sys, time, warnings
early = logging.StreamHandler(sys.stderr)
logging.getLogger("ray").addHandler(early)
from openrs_ray.run.display import RunDisplay
sys.path.insert(0, "tests/unit/openrs_ray/run")
from openrs_ray.run.display import StepFigures
def step_figures(step):
    return StepFigures(step, 1.25 + step / 10, 0.5, 0.125, 1234.4, 3, 12, 0.0625, None, 10_000, 2.0)
at = ["starting"]
show = RunDisplay("small", 20, None, lambda: "$ 2.00 of 9.00 (forecast 8.00)", activity=lambda: at[0])
with show:
    for step in range(1, 7):
        at[0] = f"sampling {step}/72, 1,830 tokens/s, 2:10"
        time.sleep(0.3)
        show.step(step_figures(step))
        print(f"(RolloutWorker pid=123) a line of Ray {step}", file=sys.stderr)
        warnings.warn(f"a warning of a library {step}")
        logging.getLogger("ray").warning(f"a warning of an early logger {step}")
        os.write(2, f"[2026 E 123] core_worker.cc: below Python {step}\\n".encode())
    show.warn("an engine is lost")
    show.note("x" * 100)
    child = subprocess.Popen(["sh", "-c", "sleep 1.5; echo a child that is still there >&2"])
    time.sleep(0.3)
print("the end", flush=True)
child.wait()
time.sleep(0.3)
"""


@pytest.mark.parametrize("columns", [80, 60])
def test_in_a_real_terminal_lines_scroll_above_the_two_live_ones(columns: int) -> None:
    terminal = Terminal([sys.executable, "-c", SCRIPT], columns)
    code, lines = terminal.finish(60)
    assert code == 0 and terminal.screen.cursor_shown
    assert lines[-2:] == ["the end", "a child that is still there"], "both live lines are gone"
    text = "\n".join(lines)
    assert "sampling" not in text and "━" not in text
    for step in range(1, 7):
        assert f"step {step}/20 reward {1.25 + step / 10:.3f} accuracy" in " ".join(text.split())
        assert f"(RolloutWorker pid=123) a line of Ray {step}" in lines
        assert f"a warning of an early logger {step}" in lines
        assert f"[2026 E 123] core_worker.cc: below Python {step}" in lines
        assert any(f"a warning of a library {step}" in line for line in lines)
    assert "WARNING: An engine is lost." in " ".join(text.split())
    live = [seen for seen in terminal.history if any("sampling 5/72" in line for line in seen)]
    work = "sampling 5/72, 1,830 tokens/s, 2:10"
    drawn = [seen for seen in live if not seen[-1].startswith(work)]  # else only the first of the two, so far
    assert drawn and all(seen[-2].startswith(work) and seen[-1].startswith("step ") for seen in drawn)
    assert any(seen[-1].startswith("step 4/20") and "left" in seen[-1] and "reward" in seen[-1] for seen in live)
    assert max(len(line) for line in lines) <= columns


def test_a_window_that_stays_80_columns_wide_can_be_resized_in_every_terminal() -> None:
    assert resized((200, 120, 90, 81, 80, 150), reflows=False) == resized((200, 120, 90, 81, 80, 150), reflows=True)


@pytest.mark.parametrize("reflows", [True, False])
def test_a_narrower_window_leaves_no_piece_of_the_live_lines(reflows: bool) -> None:
    stay = resized((100, 100, 70, 62, 90, 50), reflows)
    if reflows:
        assert stay == [f"[small] line {step} of those that stay" for step in range(1, 7)]
    else:  # a terminal that cuts lines cannot be told apart: a line above may go, but no piece of a live line stays
        assert not any("sampling" in line or line.startswith("step") for line in stay)


def resized(widths: Sequence[int], reflows: bool) -> list[str]:
    """Lines at the end on a screen that was resized to each width, with a line printed at each."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=24, legacy_windows=False)
    screen = Screen(100, 24, reflows)
    with RunDisplay("small", 20, console, activity=lambda: "sampling 41/72, 1,830 tokens/s, 2:10") as display:
        for step, width in enumerate(widths, 1):
            screen.feed(take(out))
            screen.resize(width)
            console.width = width
            display.note(f"line {step} of those that stay")
            display._live.refresh()  # type: ignore[union-attr]
            screen.feed(take(out))
    screen.feed(take(out))
    return [line for line in screen.lines if line]


def test_a_resumed_run_goes_on_with_its_step_and_its_sparklines() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, legacy_windows=False)
    with RunDisplay("small", 20, console) as display:
        display.resumed(12, [0.0, None, 1.0], [0.0, 0.5, 1.0])
        display._live.refresh()  # type: ignore[union-attr]
        assert "step 12/20  " in out.getvalue() and "reward ▁ █ 1.00  accuracy ▁▅█ 100%" in out.getvalue()


def take(out: io.StringIO) -> str:
    text = out.getvalue().replace("\n", "\r\n")
    out.seek(0)
    out.truncate()
    return text


def test_a_step_is_folded_between_its_cells_and_logged_whole(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, legacy_windows=False)
    with RunLog(tmp_path, console), RunDisplay("small", 10, console) as display:
        display.step(step_figures(1))
    assert (tmp_path / "log.txt").read_text().rstrip().endswith("tokens/s 5,000  2.0 s  left 0:00:18")
    screen = Screen(60)
    screen.feed(out.getvalue().replace("\n", "\r\n"))
    first, *more = screen.lines
    assert first.startswith("[small] step 1/10  reward 1.250  accuracy 50.0 %") and len(first) <= 60
    assert more and all(line.startswith("        ") and len(line) <= 60 for line in more)
    assert " ".join(" ".join([first, *more]).split()).endswith("tokens/s 5,000 2.0 s left 0:00:18")
