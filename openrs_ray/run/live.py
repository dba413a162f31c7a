"""The two lines below a run's output on a terminal: the present work with clock and cost; progress with sparklines."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console, ConsoleOptions, ConsoleRenderable
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from openrs_ray.common.formatting import clock
from openrs_ray.run.raw_errors import RawErrors

_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=*#"
_BAR, _ASCII_BAR = ("━", "─"), ("#", "-")
_WIDEST, _SPARE = 80, 3
"""Columns that are used at most, so that a window that stays as wide can be resized without folding the lines anew; and columns
left free, so that a typed ^C wraps no line."""
_GAP = 2
_WIDEST_BAR = 20
_WIDEST_SPARKS, _LEAST_SPARKS = 24, 4


@dataclass(frozen=True, slots=True)
class LiveState:
    """Example: LiveState("sampling 41/72, 2:10", 7, 50, seconds=130, left=77, cost="$ 2.00", rewards=[2.1], accuracies=[0.8])"""

    doing: str
    step: int
    steps: int
    seconds: float
    """Since the process began."""
    left: float | None
    """Seconds; None before the first step."""
    cost: str
    rewards: Sequence[float]
    """One per step, NaN where there is none."""
    accuracies: Sequence[float]


def sparkline(values: Sequence[float], width: int, blocks: str = _BLOCKS) -> str:
    """At most `width` blocks, each the mean of as many steps, from the lowest to the highest; a space where none has a value."""
    count = min(width, len(values))
    if not count:
        return ""
    cuts = [place * len(values) // count for place in range(count + 1)]
    means = [_mean(values[start:end]) for start, end in pairwise(cuts)]
    known = [value for value in means if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    steps = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if math.isnan(value) else blocks[round((value - low) * steps)] for value in means)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def live_lines(state: LiveState, width: int, unicode: bool = True) -> tuple[str, str]:
    """Both lines, each at most `width` columns less the spare ones: what does not fit is left out, the least needed first."""
    room = min(width, _WIDEST) - _SPARE
    return _work_line(state, room), _progress_line(state, room, unicode)


def _work_line(state: LiveState, room: int) -> str:
    cost, clock_text = state.cost, clock(state.seconds)
    # The forecast goes first, then the limit, the cost, the clock.
    for right in ((clock_text, cost), (clock_text, cost.partition(" (")[0]), (clock_text, cost.partition(" of")[0]),
                  (clock_text,), ()):  # fmt: skip
        text = (" " * _GAP).join(filter(None, right))
        if len(state.doing) + _GAP + len(text) <= room:
            return f"{state.doing}{text:>{room - len(state.doing)}}".rstrip()
    return state.doing[: max(0, room)]


def _progress_line(state: LiveState, room: int, unicode: bool) -> str:
    parts = [f"step {state.step:,}/{state.steps:,}"]
    if state.left is not None:
        parts.append(f"{clock(state.left)} left")
    figures = [_Figure("reward", state.rewards, "{:.2f}"), _Figure("accuracy", state.accuracies, "{:.0%}")]
    shown = [figure for figure in figures if figure.known]
    while shown and _length(parts, shown) > room:
        shown.pop()
    free = room - _length(parts, shown)
    each = min(_WIDEST_SPARKS, (free - _WIDEST_BAR // 2) // len(shown) - 1) if shown else 0
    if each < _LEAST_SPARKS and shown:
        each = free // len(shown) - 1  # without a bar
    drawn = [figure.text(each if each >= _LEAST_SPARKS else 0, unicode) for figure in shown]
    bar = min(_WIDEST_BAR, room - _length([*parts, *drawn]) - _GAP)
    if bar >= _LEAST_SPARKS:
        parts.insert(1, _bar(state.step / state.steps, bar, unicode))
    return (" " * _GAP).join([*parts, *drawn])[: max(0, room)]


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    values: Sequence[float]
    form: str

    @property
    def known(self) -> bool:
        return any(not math.isnan(value) for value in self.values)

    def text(self, sparks: int, unicode: bool) -> str:
        last = self.values[-1]
        line = sparkline(self.values, sparks, _BLOCKS if unicode else _ASCII_BLOCKS)
        return " ".join(filter(None, [self.name, line, "-" if math.isnan(last) else self.form.format(last)]))


def _length(parts: Sequence[str], figures: Sequence[_Figure] = ()) -> int:
    """Columns with gaps; figures without their sparklines."""
    texts = [*parts, *(figure.text(0, True) for figure in figures)]
    return sum(map(len, texts)) + _GAP * (len(texts) - 1)


def _bar(share: float, width: int, unicode: bool) -> str:
    done = round(min(1.0, share) * width)
    full, rest = _BAR if unicode else _ASCII_BAR
    return full * done + rest * (width - done)


class LiveLines(Live):
    """Keeps the two lines at the bottom; what is printed meanwhile, by anyone in this process, scrolls above them."""

    def __init__(self, console: Console, state: Callable[[], LiveState]) -> None:
        self._state = state
        self._shown: tuple[str, ...] = ()
        self._drawn: list[int] = []  # lengths of the lines on the screen
        self._raw_errors = RawErrors(lambda line: console.print(ForeignLine(line), soft_wrap=True))
        super().__init__(
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stderr=os.isatty(2),  # else it goes to a file that the user asked for
            get_renderable=self._lines,
        )

    def start(self, refresh: bool = False) -> None:
        super().start(refresh)
        self._raw_errors.start()

    def stop(self) -> None:
        self._raw_errors.stop()
        super().stop()

    def _lines(self) -> Text:
        unicode = self.console.encoding.lower().startswith("utf")
        work, progress = self._shown = live_lines(self._state(), self.console.width, unicode)
        return Text(f"{work}\n", no_wrap=True, overflow="crop").append(progress, style="dim")

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by rich for everything printed; erases the lines first, where they lie after a resize, too."""
        width, live = max(1, self.console.width), self._live_render
        if live.last_render_height:
            # A terminal that has become narrower shows a longer line in several rows.
            live._shape = width, sum(max(1, math.ceil(length / width)) for length in self._drawn)
        self._drawn = [min(len(line), width) for line in self._shown]
        return super().process_renderables(renderables)


@dataclass(frozen=True, slots=True)
class FoldedLine:
    """A line of cells, two spaces apart, folded between cells where a terminal is too narrow."""

    plain: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        indent = " " * min(len(self.plain.partition("] ")[0]) + 2, options.max_width // 4)
        rows = [""]
        for cell in self.plain.split("  "):
            longer = f"{rows[-1]}  {cell}" if rows[-1].strip() else f"{rows[-1]}{cell}"
            if len(longer) <= options.max_width or not rows[-1].strip():
                rows[-1] = longer
            else:
                rows.append(f"{indent}{cell}")
        for row in rows:
            yield Segment(f"{row}\n")


@dataclass(frozen=True, slots=True)
class ForeignLine:
    """A line of other code, with its colours. It is no line of the run: the run's log has it from elsewhere, or not at all."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text.from_ansi(self.text, no_wrap=True, overflow="ignore")
