"""What a run has cost so far, and whether what is left of its limits is enough to go on.

    cost.json   what all attempts have spent (`openrs_ray.run.ledger`), and how long the recent pieces of each kind of work took

Time counts from the start of the operating system's process to its end, over all GPUs that the run holds: imports, set-up,
evaluations and saving are in it.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psutil

from openrs_ray.common.files import damaged
from openrs_ray.config.schema import Cost, RunConfig
from openrs_ray.errors import UserError
from openrs_ray.run.ledger import FILE, Ledger, Spent

_RECENT = 10
"""Pieces of work of each kind that are remembered."""
_MARGIN = 1.2
"""The next piece of work is expected to take so many times what the longest recent one took."""
_END_S = 20.0
"""Set aside for ending engines, learner and Ray."""

Ended = Literal["steps", "budget", "hours"]
Work = Literal["start", "step", "learn", "resume", "kept", "evaluation", "end"]
"""start: up to the first push; learn: a step without its rollouts; resume and kept: saving one; end: what comes after run()."""
ENDING: tuple[Work, ...] = ("kept", "evaluation", "end")
"""What a run that stops by a limit has yet to do."""


class LimitReached(UserError):
    """What is left of the budget, or of the hours, is not enough for more work."""

    def __init__(self, text: str, ended: Ended) -> None:
        super().__init__(text)
        self.ended = ended


def seconds_left(cost: Cost, spent: Spent, gpus: float) -> tuple[float, Ended]:
    """Until the first of the limits on this many GPUs, and which one that is; infinite where there is none."""
    limits: list[tuple[float, Ended]] = [(math.inf, "steps")]
    if cost.budget_usd is not None:
        limits.append((3600 * (cost.budget_usd - spent.dollars) / (gpus * cost.price), "budget"))
    if cost.max_hours is not None:
        limits.append((3600 * (cost.max_hours - spent.hours), "hours"))
    return min(limits)


class Budget(Ledger):
    """Counts what this attempt spends on top of the earlier ones, and how long its work takes.

    with Budget(config) as budget:            # counts from the start of this process
        with budget.timing("kept"):
            save()
        budget.check("step", *ENDING)         # LimitReached when that would be too much
    """

    def __init__(
        self,
        config: RunConfig,
        age_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        extra_gpus: Callable[[], int] = lambda: 0,
    ) -> None:
        """`age_s`: how long this process has run already (None: as the operating system says). `extra_gpus`: how many the run
        holds now beyond those it is planned for."""
        age = max(0.0, time.time() - psutil.Process().create_time()) if age_s is None else age_s
        super().__init__(config.run.path, config.cost.price, lambda: self.gpus, age, clock)
        self._config, self._cost, self._extra_gpus = config, config.cost, extra_gpus
        self._started = clock() - age
        self._recent = _checked_times(self.notes.get("seconds", {}), config.run.path / FILE)
        self._step: int | None = None
        """Last finished step, once the run is set up."""

    @property
    def gpus(self) -> int:
        return self._config.num_gpus + self._extra_gpus()

    def started(self) -> None:
        """The run is set up: so long does a start take."""
        self._note("start", self._clock() - self._started)

    def reached(self, step: int) -> None:
        """Note that this is the last finished step, and write the account."""
        self._step = step
        self.write()

    def _note(self, work: Work, seconds: float) -> None:
        self._recent[work] = [*self._recent.get(work, ()), seconds][-_RECENT:]
        # Never changed in place: the ledger's thread may be writing it.
        self.notes["seconds"] = {**self._recent}

    @contextmanager
    def timing(self, work: Work) -> Iterator[None]:
        """Remember how long the block takes, if it ends well."""
        began = self._clock()
        yield
        self._note(work, self._clock() - began)

    def _expected(self, work: Work, of: Callable[[list[float]], float]) -> float:
        if times := self._recent.get(work):
            return of(times)
        if work == "kept":  # with the policy beside the state
            return 2 * self._expected("resume", of)
        return _END_S if work == "end" else 0.0

    def measured(self, *works: Work) -> bool:
        """Whether one of them has been timed."""
        return any(work in self._recent for work in works)

    @property
    def limited(self) -> bool:
        return self._cost.budget_usd is not None or self._cost.max_hours is not None

    def check(self, *works: Work) -> float:
        """Seconds that one piece of each of these would leave before the first limit; LimitReached if none."""
        left, ended = seconds_left(self._cost, self.spent(), self.gpus)
        left -= _MARGIN * sum(self._expected(work, max) for work in works)
        if left <= 0:
            raise LimitReached(self.sentence(ended), ended)
        return left

    def sentence(self, ended: Ended) -> str:
        """That the run ends by a limit, and how it can go on."""
        field = "cost.budget_usd" if ended == "budget" else "cost.max_hours"
        used = self._dollars() if ended == "budget" else self._hours()
        return f"run {self._config.run.name} has spent {used}, which leaves too little to go on: raise {field} and give --resume"

    def forecast(self) -> float | None:
        """Dollars of the whole run if the work that is left takes as long as the recent work did; None before a step."""
        if self._step is None or not self.measured("step"):
            return None
        ahead = _work_ahead(self._config, self._step)
        seconds = sum(count * self._expected(work, _mean) for work, count in ahead.items())
        return self.spent().plus(seconds, self.gpus, self._cost.price).dollars

    def text(self) -> str:
        """For people; empty where nothing is priced or limited. Example: "$ 12.34 of 42.00 (forecast 39.10)" """
        parts = []
        if self._cost.price_per_gpu_hour is not None:
            forecast = self.forecast()
            parts.append(self._dollars() + (f" (forecast {forecast:.2f})" if forecast is not None else ""))
        if self._cost.max_hours is not None:
            parts.append(self._hours())
        return ", ".join(parts)

    def _dollars(self) -> str:
        limit = "" if self._cost.budget_usd is None else f" of {self._cost.budget_usd:.2f}"
        return f"$ {self.spent().dollars:.2f}{limit}"

    def _hours(self) -> str:
        return f"{self.spent().hours:.2f} of {self._cost.max_hours:g} h"

    def metrics(self, step_s: float, correct: int) -> dict[str, float]:
        """Dollars so far, of a step of `step_s` seconds, and so far per correct completion; nothing without a price."""
        if self._cost.price_per_gpu_hour is None:
            return {}
        dollars = self.spent().dollars
        return {
            "cost_usd": dollars,
            "cost_usd_per_step": Spent().plus(step_s, self.gpus, self._cost.price).dollars,
            "cost_usd_per_correct": dollars / correct if correct else math.nan,
        }

    def rows(self, steps: int, correct: int) -> Iterator[tuple[str, str]]:
        """For the table at the end: what the run has cost in all."""
        spent = self.spent()
        if self._cost.price_per_gpu_hour is not None:
            yield "cost", f"{self._dollars()}, {spent.gpu_hours:,.2f} GPU hours"
            yield "cost per step", f"$ {spent.dollars / steps:.4g}" if steps else "-"
            yield "cost per correct completion", f"$ {spent.dollars / correct:.4g}" if correct else "-"
        if self._cost.max_hours is not None:
            yield "hours", self._hours()


def _checked_times(seconds: Any, path: Path) -> dict[str, list[float]]:
    """Seconds of the recent pieces of work, by kind, as the account has them. UserError when it is damaged."""
    lists = list(seconds.values()) if isinstance(seconds, dict) else [None]
    if not all(
        isinstance(times, list) and all(isinstance(t, int | float) and t >= 0 for t in times) for times in lists
    ):
        raise damaged(path, "seconds must have lists of them")
    return {**seconds}


def _work_ahead(config: RunConfig, step: int) -> dict[Work, int]:
    """Pieces of each kind of work that are left of the whole run after a step."""
    left, every = config.run.steps - step, config.evaluation.every_steps
    evaluations = 1 + (left // every if every else 0)
    return {"step": left, "kept": 1 + left // config.checkpoint.every_steps, "evaluation": evaluations, "end": 1}


def _mean(times: list[float]) -> float:
    return sum(times) / len(times)


def most_text(cost: Cost, gpus: int) -> str:
    """What a run on so many GPUs costs at most. Example: "at most $ 42.00, or 23.9 hours of 4 GPUs at $ 0.44 an hour each" """
    if cost.price_per_gpu_hour is None:
        return f"no price; at most {cost.max_hours:g} hours" if cost.max_hours is not None else "no price, no limit"
    seconds, _ = seconds_left(cost, Spent(), gpus)
    rate = f"{gpus} GPU(s) at $ {cost.price:g} an hour each"
    if math.isinf(seconds):
        return f"no limit; {rate}"
    return f"at most $ {Spent().plus(seconds, gpus, cost.price).dollars:.2f}, or {seconds / 3600:.1f} hours of {rate}"
