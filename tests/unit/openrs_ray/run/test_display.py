"""The display: plain lines where there is no terminal; where there is one, a screen that gives it back."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from shown_steps import step_figures

from openrs_ray.config.quantization import Quantization
from openrs_ray.run.display import RunDisplay, summary_table
from openrs_ray.stats import wilson_interval

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def test_without_a_terminal_each_step_is_one_plain_line() -> None:
    out = io.StringIO()
    with RunDisplay("small", 10, Console(file=out, width=40, highlight=False)) as display:
        display.step(step_figures(1, 2.0))
        display.step(step_figures(2, 4.0))
        display.warn("2 checks [timed] out.")
    first, second, warning = out.getvalue().splitlines()
    for part in (
        "step 1/10",
        "reward 1.250",
        "accuracy 50.0 %",
        "spread 3/12",
        "truncated 12.5 %",
        "length 1,234",
        "clipped 6.2 %",
        "KL -",
        "tokens/s 5,000",
        "0:00:18",
    ):
        assert part in first
    assert "0:00:24" in second  # 8 steps at the mean of 3 s
    assert warning == "[small] WARNING: 2 checks [timed] out."
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(("quantization", "said"), [("int8", True), ("none", False)])
def test_what_was_sampled_in_8_bits_says_so(quantization: Quantization, said: bool) -> None:
    """In the line of a step, the divergence; in the table at the end, of what the held-out accuracies are."""
    out = io.StringIO()
    console = Console(file=out, width=160, highlight=False)
    with RunDisplay("small", 10, console) as display:
        display.step(replace(step_figures(1, 2.0), mismatch=0.00123 if said else None))
    half = wilson_interval(50, 100)
    about = {"problems": 9, "samples": 1, "steps": 1, "tokens": 1, "seconds": 1}
    console.print(
        summary_table(before=half, after=half, run_folder=Path("/r"), quantization=quantization, **about)  # type: ignore[arg-type]
    )
    assert ("mismatch 0.0012" in out.getvalue()) is said and ("mismatch" in out.getvalue()) is said
    assert ("sampled by engines in int8" in out.getvalue()) is said


def test_every_line_says_what_the_run_has_cost() -> None:
    out, spent = io.StringIO(), iter(("", "$ 1.00 of 9.00", "$ 2.00 of 9.00 (forecast 8.00)", "$ 3.00", "$ 4.00"))
    with RunDisplay("small", 10, Console(file=out, highlight=False), lambda: next(spent)) as display:
        display.status("starting")
        display.status("pushing")
        display.step(step_figures(1, 2.0))
        display.warn("look")
        display.note("done")
    first, second, step, *rest = out.getvalue().splitlines()
    assert (first, second) == ("[small] starting", "[small, $ 1.00 of 9.00] pushing")
    assert step.startswith("[small, $ 2.00 of 9.00 (forecast 8.00)] step 1/10")
    assert rest == ["[small, $ 3.00] WARNING: Look.", "[small, $ 4.00] done"]


def test_the_screen_and_the_summary_show_the_cost() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    with RunDisplay("small", 10, console, lambda: "$ 2.00 (forecast 8.00)") as display:
        display.step(step_figures(1, 2.0))
    costs = [("cost", "$ 2.00, 4.00 GPU hours")]
    console.print(
        summary_table(
            before=None,
            after=None,
            problems=0,
            samples=1,
            steps=1,
            tokens=1,
            seconds=1,
            run_folder=Path("/r"),
            costs=costs,
        )
    )
    assert "$ 2.00 (forecast 8.00)" in out.getvalue() and "$ 2.00, 4.00 GPU hours" in out.getvalue()


def test_a_terminal_is_given_back_after_an_exception() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with pytest.raises(ZeroDivisionError), RunDisplay("small", 10, console) as display:
        display.step(step_figures(1, 2.0))
        raise ZeroDivisionError
    text = out.getvalue()
    assert text.count(HIDE_CURSOR) == 1 and text.rindex(SHOW_CURSOR) > text.index(HIDE_CURSOR)
    assert "1.250" in text and "step 1/10" in text


def test_the_summary_says_what_was_gained() -> None:
    out = io.StringIO()
    table = summary_table(
        before=wilson_interval(50, 100),
        after=wilson_interval(95, 100),
        problems=100,
        samples=1,
        steps=60,
        tokens=123_456,
        seconds=61.4,
        run_folder=Path("/runs/small"),
    )
    Console(file=out, width=100).print(table)
    for part in ("50.0 % [40.4, 59.6]", "95.0 % [88.8, 97.8]", "60", "123,456", "61 s", "/runs/small"):
        assert part in out.getvalue()
