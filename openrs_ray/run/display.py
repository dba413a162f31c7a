"""Shows a run: a live screen on a terminal, one line per step elsewhere, a table at the end."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from openrs_ray.common.formatting import sentences
from openrs_ray.config.quantization import Quantization
from openrs_ray.stats import Interval

_RECENT_STEPS = 20
_SHOWN_WARNINGS = 5


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
        } | ({} if self.mismatch is None else {"mismatch": f"{self.mismatch:.2g}"})


class RunDisplay:
    """Shows one attempt, and gives the terminal back as it was."""

    def __init__(
        self,
        name: str,
        steps: int,
        console: Console | None = None,
        cost: Callable[[], str] = lambda: "",
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`cost`: the cost so far, for every line. `log`: takes what the live screen does not print."""
        self.console = console or Console(highlight=False)
        self._name = name
        self._cost = cost
        self.log = log
        self._steps = steps
        self._status = ""
        self._last: StepFigures | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._warnings: deque[str] = deque(maxlen=_SHOWN_WARNINGS)
        # rich passes what others print through itself, so that Ray's log lines scroll above the screen
        self._live = Live(console=self.console, refresh_per_second=4) if self.console.is_terminal else None

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
        self._status = text
        self._show(text)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._status = ""
        self._print(text)

    def warn(self, text: str) -> None:
        self._warnings.append(sentences(text))
        self._show(f"WARNING: {self._warnings[-1]}")

    def step(self, figures: StepFigures) -> None:
        self._last, self._status = figures, ""
        self._seconds.append(figures.seconds)
        cells = "  ".join(f"{name} {value}" for name, value in figures.cells().items())
        left = _clock(self.seconds_left())
        self._show(f"step {figures.step}/{self._steps}  {cells}  {figures.seconds:.1f} s  left {left}")

    def seconds_left(self) -> float:
        if self._last is None:
            return 0.0
        return (self._steps - self._last.step) * sum(self._seconds) / len(self._seconds)

    def _show(self, text: str) -> None:
        if self._live:
            self._live.update(self._screen())
            self.log(self._line(text))
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(self._line(text), markup=False, soft_wrap=True)

    def _line(self, text: str) -> str:
        return f"[{', '.join(filter(None, [self._name, self._cost()]))}] {text}"

    def _screen(self) -> Group:
        done = self._last.step if self._last else 0
        head = Table.grid(padding=(0, 2))
        title, status = Text(self._name, style="bold"), Text(self._status, style="dim")
        bar = ProgressBar(total=self._steps, completed=done, width=40)
        left = f"{_clock(self.seconds_left())} left" if self._last else ""
        head.add_row(title, bar, f"step {done}/{self._steps}", left, self._cost(), status)
        figures = Table(box=None, padding=(0, 2), pad_edge=False)
        if self._last:
            cells = self._last.cells()
            for name in cells:
                figures.add_column(name, justify="right")
            figures.add_row(*cells.values())
        return Group(head, figures, *(Text(f"! {text}", style="yellow") for text in self._warnings))


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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
