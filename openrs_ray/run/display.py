"""Shows a run: its lines, two live ones below them on a terminal, a table at the end."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openrs_ray.common.formatting import clock, sentences, short_clock
from openrs_ray.config.quantization import Quantization
from openrs_ray.run.live import FoldedLine, LiveLines, LiveState
from openrs_ray.stats import Interval

_RECENT_STEPS = 20


@dataclass(frozen=True, slots=True)
class StepFigures:
    step: int
    reward: float
    accuracy: float
    truncated_share: float
    mean_length: float
    groups_with_spread: int
    groups: int
    clipped_share: float
    kl: float | None
    """Mean k3 KL per token to the start model; None without a reference model."""
    tokens: int
    seconds: float
    mismatch: float | None = None
    """Mean k3 divergence per token between engines and learner; None if engines are not quantized."""
    teacher: float | None = None
    """Mean divergence per token to the teacher; None without one."""

    def cells(self) -> dict[str, str]:
        return {
            "reward": f"{self.reward:.3f}",
            "accuracy": "-" if math.isnan(self.accuracy) else f"{100 * self.accuracy:.1f} %",
            "spread": f"{self.groups_with_spread}/{self.groups}",
            "truncated": f"{100 * self.truncated_share:.1f} %",
            "length": f"{self.mean_length:,.0f}",
            "clipped": f"{100 * self.clipped_share:.1f} %",
            "KL": "-" if self.kl is None else f"{self.kl:.5f}",
            "tokens/s": f"{self.tokens / self.seconds:,.0f}",
            **({} if self.mismatch is None else {"mismatch": f"{self.mismatch:.2g}"}),
            **({} if self.teacher is None else {"teacher": f"{self.teacher:.3g}"}),
        }


class RunDisplay:
    """Shows one attempt: every line as it comes and, on a terminal, two live lines below; gives the terminal back as it was."""

    def __init__(
        self,
        name: str,
        steps: int,
        console: Console | None = None,
        cost: Callable[[], str] = lambda: "",
        log: Callable[[str], None] = lambda text: None,
        activity: Callable[[], str] = lambda: "",
        elapsed: Callable[[], float] | None = None,
    ) -> None:
        """`cost`: the cost so far, for every line. `log`: takes lines that are not shown.

        `activity`: the present work; empty between two pieces. `elapsed`: seconds so far (default: since this moment).
        """
        self.console = console or Console(highlight=False)
        self._name = name
        self._cost = cost
        self.log = log
        self._activity = activity
        began = time.monotonic()
        self._elapsed = elapsed or (lambda: time.monotonic() - began)
        self._steps = steps
        self._status, self._since = "", began
        self._last: StepFigures | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._begun = 0
        self._rewards: list[float] = []
        self._accuracies: list[float] = []
        self._live = LiveLines(self.console, self._state) if self.console.is_interactive else None

    def __enter__(self) -> "RunDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back; later lines are plain."""
        if self._live:
            self._live.stop()
            self._live = None

    def status(self, text: str) -> None:
        self._status, self._since = text, time.monotonic()
        self._print(text)

    def note(self, text: str) -> None:
        self._status = ""
        self._print(text)

    def warn(self, text: str) -> None:
        self._print(f"WARNING: {sentences(text)}", style="yellow")

    def samples(self, texts: Iterable[str]) -> None:
        """Print completions to read, one per line."""
        for text in texts:
            self._print(text, style="dim")

    def step(self, figures: StepFigures) -> None:
        self._seconds.append(figures.seconds)  # before `_last`: the live lines divide by their number, in a thread
        self._last, self._status = figures, ""
        self._rewards.append(figures.reward)
        self._accuracies.append(figures.accuracy)
        cells = "  ".join(f"{name} {value}" for name, value in figures.cells().items())
        left = clock(self.seconds_left())
        line = self._line(f"step {figures.step}/{self._steps}  {cells}  {figures.seconds:.1f} s  left {left}")
        self.console.print(FoldedLine(line) if self._live else Text(line), soft_wrap=not self._live)

    def resumed(self, step: int, rewards: Sequence[float | None], accuracies: Sequence[float | None]) -> None:
        """Go on after `step`, with the figures of the steps so far for the sparklines; None where there is none."""
        self._begun = step
        self._rewards = [math.nan if value is None else value for value in rewards]
        self._accuracies = [math.nan if value is None else value for value in accuracies]

    def seconds_left(self) -> float:
        if self._last is None:
            return 0.0
        return (self._steps - self._last.step) * sum(self._seconds) / len(self._seconds)

    def _print(self, text: str, style: str = "") -> None:
        line = self._line(text)
        # On a terminal folded between words; a path that is too long is left to the terminal, or copying it would break it.
        folds = self._live is not None and max(map(len, line.split()), default=0) <= self.console.width
        self.console.print(Text(line, style=style if self._live else ""), soft_wrap=not folds)

    def _line(self, text: str) -> str:
        return f"[{', '.join(filter(None, [self._name, self._cost()]))}] {text}"

    def _doing(self) -> str:
        return f"{self._status}, {short_clock(time.monotonic() - self._since)}" if self._status else ""

    def _state(self) -> LiveState:
        return LiveState(
            doing=self._activity() or self._doing(),
            step=self._last.step if self._last else self._begun,
            steps=self._steps,
            seconds=self._elapsed(),
            left=self.seconds_left() if self._last else None,
            cost=self._cost(),
            rewards=self._rewards,
            accuracies=self._accuracies,
        )


def summary_table(
    *,
    before: Interval | None,
    after: Interval | None,
    problems: int,
    samples: int,
    steps: int,
    tokens: int,
    seconds: float,
    run_folder: Path,
    costs: Iterable[tuple[str, str]] = (),
    gain: str | None = None,
    tasks: Iterable[tuple[str, str]] = (),
    quantization: Quantization = "none",
) -> Table:
    """`before`, `after`: held-out accuracy, by engines in `quantization`; `gain`: the difference; `tasks`: rows of each task."""
    table = Table(title=f"Run {run_folder.name}", show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if before or after:
        sampled = "" if quantization == "none" else f", sampled by engines in {quantization}"
        table.add_row(
            "held-out problems", f"{problems:,} x {samples} samples{sampled}; accuracy with its 95 % interval"
        )
    for name, value in {"accuracy before": before, "accuracy after": after, "difference": gain}.items():
        if value:
            table.add_row(name, str(value))
    for row in (
        *tasks,
        ("steps", f"{steps:,}"),
        ("sampled tokens", f"{tokens:,}"),
        ("time", f"{seconds:,.0f} s"),
        *costs,
    ):
        table.add_row(*row)
    table.add_row("run folder", str(run_folder))
    return table
