"""The cost of a run, and the check that the rest of its limits allows more work.

Time counts from start to end of the operating system's process, imports and set-up included, over all GPUs that the run holds.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil

from openrs_ray.common.files import damaged
from openrs_ray.config.schema import Cost, RunConfig
from openrs_ray.errors import UserError
from openrs_ray.rewards.judge_model.replies import Spending
from openrs_ray.run.account import FILE, Account, Spent

_RECENT = 10
_MARGIN = 1.2
"""Expected time of the next piece of work, relative to the longest recent one."""
_END_S = 20.0
_JUDGES = "judge_dollars"

Ended = Literal["steps", "budget", "hours", "flat"]
"""flat: held-out accuracy gained too little for its dollars (`cost.min_points_per_usd`)."""
Work = Literal["start", "step", "learn", "resume", "kept", "evaluation", "end"]
"""start: up to the first push; learn: a step without its rollouts; resume, kept: saving one; end: everything after run()."""
ENDING: tuple[Work, ...] = ("kept", "evaluation", "end")


class LimitReached(UserError):
    def __init__(self, text: str, ended: Ended) -> None:
        super().__init__(text)
        self.ended = ended


def seconds_left(cost: Cost, spent: Spent, gpus: float) -> tuple[float, Ended]:
    """Seconds until the first limit on this many GPUs, and its name; infinite without limits."""
    limits: list[tuple[float, Ended]] = [(math.inf, "steps")]
    if cost.budget_usd is not None:
        limits.append((3600 * (cost.budget_usd - spent.dollars) / (gpus * cost.price), "budget"))
    if cost.max_hours is not None:
        limits.append((3600 * (cost.max_hours - spent.hours), "hours"))
    return min(limits)


class Budget(Account):
    """The account of a run, and how long its work takes.

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
        """`age_s`: age of this process (None: ask the operating system). `extra_gpus`: number held beyond the plan."""
        age = max(0.0, time.time() - psutil.Process().create_time()) if age_s is None else age_s
        super().__init__(config.run.path, config.cost.price, lambda: self.gpus, age, clock)
        self._config, self._cost, self._extra_gpus = config, config.cost, extra_gpus
        self._started = clock() - age
        self._recent = _checked_times(self.notes.get("seconds", {}), config.run.path / FILE)
        self._step: int | None = None
        self._once = 0.0
        self._judges = Spending()
        self._judged_before, self._judge_step = self._judge_dollars, 0.0

    @property
    def gpus(self) -> int:
        return self._config.num_gpus + self._extra_gpus()

    def elapsed(self) -> float:
        """Seconds since this process began."""
        return self._clock() - self._started

    def started(self) -> None:
        """Note the time of the set-up."""
        self._note("start", self.elapsed() - self._once)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Work during the set-up that no later attempt repeats: it is paid for, but not reserved for again."""
        began = self._clock()
        yield
        self._once += self._clock() - began

    def reached(self, step: int) -> None:
        self._step = step
        before, self._judged_before = self._judged_before, self._judge_dollars
        self._judge_step = max(self._judge_step, self._judged_before - before)
        self.write()

    def judged(self, spending: Spending) -> None:
        """Count what judge models have cost so far, over all attempts."""
        if spending.requests >= self._judges.requests:  # answers may overtake each other
            self._judges = spending
        self.add(spending.dollars, _JUDGES)

    @property
    def _judge_dollars(self) -> float:
        return float(self.notes.get(_JUDGES, 0.0))

    @property
    def priced(self) -> bool:
        return self._cost.price_per_gpu_hour is not None or self._judge_dollars > 0

    def _note(self, work: Work, seconds: float) -> None:
        self._recent[work] = [*self._recent.get(work, ()), seconds][-_RECENT:]
        # Never changed in place: the account's thread may be writing it.
        self.notes["seconds"] = {**self._recent}

    @contextmanager
    def timing(self, work: Work) -> Iterator[None]:
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
        return any(work in self._recent for work in works)

    @property
    def limited(self) -> bool:
        return self._cost.budget_usd is not None or self._cost.max_hours is not None

    def check(self, *works: Work) -> float:
        """Seconds left to the first limit after one piece of each. LimitReached if none."""
        spent = self.spent()
        if "step" in works:
            spent = replace(spent, dollars=spent.dollars + _MARGIN * self._judge_step)
        left, ended = seconds_left(self._cost, spent, self.gpus)
        left -= _MARGIN * sum(self._expected(work, max) for work in works)
        if left <= 0:
            raise LimitReached(self.sentence(ended), ended)
        return left

    def sentence(self, ended: Ended) -> str:
        field = "cost.budget_usd" if ended == "budget" else "cost.max_hours"
        used = self._dollars() if ended == "budget" else self._hours()
        return f"run {self._config.run.name} has spent {used}, which leaves too little to go on: raise {field} and give --resume"

    def forecast(self) -> float | None:
        """Dollars of the whole run at the recent pace; None before a step."""
        if self._step is None or not self.measured("step"):
            return None
        ahead = _work_ahead(self._config, self._step)
        seconds = sum(count * self._expected(work, _mean) for work, count in ahead.items())
        judges = self._judge_dollars / self._step * ahead["step"] if self._step else 0.0
        return self.spent().plus(seconds, self.gpus, self._cost.price).dollars + judges

    def text(self) -> str:
        """Example: "$ 12.34 of 42.00 (forecast 39.10)"; empty without price or limit."""
        parts = []
        if self.priced:
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
        judges = self._judges.metrics() if self._config.judges else {}
        if not self.priced:
            return judges
        dollars = self.spent().dollars
        return {
            "cost_usd": dollars,
            "cost_usd_per_step": Spent().plus(step_s, self.gpus, self._cost.price).dollars,
            "cost_usd_per_correct": dollars / correct if correct else math.nan,
            **judges,
        }

    def rows(self, steps: int, correct: int) -> Iterator[tuple[str, str]]:
        spent = self.spent()
        if self.priced:
            yield "cost", f"{self._dollars()}, {spent.gpu_hours:,.2f} GPU hours"
            yield "cost per step", f"$ {spent.dollars / steps:.4g}" if steps else "-"
            yield "cost per correct completion", f"$ {spent.dollars / correct:.4g}" if correct else "-"
        if self._config.judges:
            yield "judge models", str(self._judges)
        if self._cost.max_hours is not None:
            yield "hours", self._hours()


def _checked_times(seconds: Any, path: Path) -> dict[str, list[float]]:
    lists = list(seconds.values()) if isinstance(seconds, dict) else [None]
    if not all(
        isinstance(times, list) and all(isinstance(t, int | float) and t >= 0 for t in times) for times in lists
    ):
        raise damaged(path, "seconds must have lists of them")
    return {**seconds}


def _work_ahead(config: RunConfig, step: int) -> dict[Work, int]:
    left, every = config.run.steps - step, config.evaluation.every_steps
    evaluations = 1 + (left // every if every else 0)
    return {"step": left, "kept": 1 + left // config.checkpoint.every_steps, "evaluation": evaluations, "end": 1}


def _mean(times: list[float]) -> float:
    return sum(times) / len(times)


def cost_text(cost: Cost, gpus: int) -> str:
    """Example: "at most $ 42.00, or 23.9 hours of 4 GPU(s) at $ 0.44 an hour each; ends below 0.2 points per dollar" """
    least = cost.min_points_per_usd
    flat = (
        ""
        if least is None
        else f"; ends below {least:g} points per dollar over {cost.evaluations_per_slope} evaluations"
    )
    return most_text(cost, gpus) + flat


def most_text(cost: Cost, gpus: int) -> str:
    """Example: "at most $ 42.00, or 23.9 hours of 4 GPUs at $ 0.44 an hour each" """
    if cost.price_per_gpu_hour is None:
        if cost.max_hours is None:
            return "no price, no limit"
        return f"no price; at most {cost.max_hours:g} hour{'s' * (cost.max_hours != 1)}"
    seconds, _ = seconds_left(cost, Spent(), gpus)
    rate = f"{gpus} GPU(s) at $ {cost.price:g} an hour each"
    if math.isinf(seconds):
        return f"no limit; {rate}"
    return f"at most $ {Spent().plus(seconds, gpus, cost.price).dollars:.2f}, or {seconds / 3600:.1f} hours of {rate}"
