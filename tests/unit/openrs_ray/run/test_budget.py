"""What a run costs, to the second and over kills, and that it ends in time: worked out by hand, on clocks that are turned."""

import asyncio
import json
import math
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT
from simulated_run import SimulatedRun
from system import system_config
from virtual_time import P, run

from actors.cluster.placement import Placement
from actors.loop.collector import Sampling
from actors.loop.loop import Loop
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import Cost, RunConfig
from openrs_ray.errors import UserError
from openrs_ray.records import Group, Problem
from openrs_ray.rewards.judge_model.replies import Spending
from openrs_ray.run.account import Spent
from openrs_ray.run.budget import ENDING, Budget, LimitReached, most_text, seconds_left
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.progress import Progress

PAPER = Cost(price_per_gpu_hour=0.44, budget_usd=42)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def config_of(folder: Path, **cost: float) -> RunConfig:
    """3 + 1 GPUs, up to 3 for rollouts."""
    placement = {"num_learner_gpus": 3, "num_rollout_gpus": 1, "max_rollout_gpus": 3}
    config = system_config(folder, folder, cost=cost, placement=placement)
    config.run.path.mkdir(exist_ok=True)
    return config


def test_the_papers_budget_buys_23_9_hours_of_4_gpus() -> None:
    after_7_hours = Spent().plus(7 * 3600, gpus=4, price=0.44)
    assert after_7_hours == Spent(dollars=pytest.approx(12.32), gpu_hours=28.0, hours=7.0)
    assert seconds_left(PAPER, Spent(), gpus=4) == (pytest.approx(85909.09), "budget")  # 42 / 1.76 hours
    assert seconds_left(PAPER, after_7_hours, gpus=4) == (pytest.approx(60709.09), "budget")
    assert seconds_left(PAPER, after_7_hours, gpus=5) == (pytest.approx(48567.27), "budget")
    both = PAPER.model_copy(update={"max_hours": 10.0})
    assert seconds_left(both, after_7_hours, gpus=4) == (pytest.approx(3 * 3600), "hours")
    assert seconds_left(Cost(), after_7_hours, gpus=4) == (math.inf, "steps")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_papers_recipes_say_what_they_cost(number: int) -> None:
    config = load_config(ROOT / "launch" / "recipes" / f"open-rs{number}.yaml", [])
    assert (
        most_text(config.cost, config.max_gpus) == "at most $ 42.00, or 23.9 hours of 4 GPU(s) at $ 0.44 an hour each"
    )
    assert (
        most_text(Cost(price_per_gpu_hour=2, max_hours=3), 2)
        == "at most $ 12.00, or 3.0 hours of 2 GPU(s) at $ 2 an hour each"
    )


def test_a_budget_needs_a_price() -> None:
    recipe = ROOT / "launch" / "recipes" / "quickstart.yaml"
    for price in ([], ["--cost.price_per_gpu_hour", "0"]):
        with pytest.raises(UserError, match=r"cost\.budget_usd needs a cost\.price_per_gpu_hour above 0"):
            load_config(recipe, ["--cost.budget_usd", "5", *price])


def test_gpus_that_are_shared_count_once(tmp_path: Path) -> None:
    assert config_of(tmp_path).num_gpus == 4 and config_of(tmp_path).max_gpus == 6
    shared = {"num_learner_gpus": 2, "num_rollout_gpus": 2, "colocated": True}
    assert system_config(tmp_path, tmp_path, placement=shared).num_gpus == 2


def test_engines_that_come_and_go_are_paid_while_they_are_there(tmp_path: Path) -> None:
    config, clock = config_of(tmp_path, price_per_gpu_hour=0.5), Clock()
    held: dict[int, Any] = {0: "its own"}
    placement = Placement(plan_layout(config, "cpu"), None, None, held)  # type: ignore[arg-type]
    with Budget(config, age_s=1800, clock=clock, extra_gpus=placement.extra_engines) as budget:
        assert budget.spent() == Spent(
            pytest.approx(1.0), 2.0, 0.5
        )  # half an hour of 4 GPUs before anything was counted
        held |= {1: "extra", 2: "extra"}
        clock.now += 3600
        assert budget.spent() == Spent(pytest.approx(4.0), 8.0, 1.5)  # 6 of them
        del held[2]
        clock.now += 3600
        assert budget.spent() == Spent(pytest.approx(6.5), 13.0, 2.5)


def test_another_attempt_goes_on_from_what_is_spent_at_its_own_price(tmp_path: Path) -> None:
    clock = Clock()
    with Budget(config_of(tmp_path, price_per_gpu_hour=1.0), age_s=0, clock=clock) as first:
        clock.now += 3600
        assert first.spent().dollars == pytest.approx(4.0)
    clock.now += 7200  # nothing is held
    dearer = config_of(tmp_path, price_per_gpu_hour=2.0, budget_usd=10)
    with Budget(dearer, age_s=900, clock=clock) as second:
        assert second.spent() == Spent(pytest.approx(6.0), pytest.approx(5.0), pytest.approx(1.25))
        assert second.check() == pytest.approx(1800)  # 4 dollars at 8 an hour


def test_a_damaged_account_is_named(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    (config.run.path / "cost.json").write_text("{")
    with pytest.raises(UserError, match=r"cost\.json is damaged"):
        Budget(config)


def test_a_kill_loses_seconds_of_the_account(tmp_path: Path) -> None:
    """A process that lived for 3 s before it began to count, killed without warning some seconds later; then another one."""
    config = config_of(tmp_path, price_per_gpu_hour=3600.0)
    source = (
        "import sys, time; time.sleep(3); import openrs_ray.run.budget as b, openrs_ray.run.account as l\n"
        "from openrs_ray.config.schema import RunConfig\n"
        "l._BEAT_S = 0.2; budget = b.Budget(RunConfig.model_validate_json(sys.argv[1])); budget.__enter__()\n"
        "print('counts', flush=True); time.sleep(600)"
    )
    for attempt in (1, 2):
        before = Budget(config, age_s=0, clock=Clock()).spent()
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", source, config.model_dump_json()], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "counts\n"
        time.sleep(2)
        process.kill()
        lived = time.monotonic() - began
        process.wait()
        after = Budget(config, age_s=0, clock=Clock()).spent()
        counted = 3600 * (after.hours - before.hours)
        assert lived - 1.5 < counted < lived + 1.1, attempt  # the system's clock of process starts has whole seconds
        assert lived > 5 and after.dollars - before.dollars == pytest.approx(4 * counted)


def test_what_is_shown_and_foretold(tmp_path: Path) -> None:
    clock = Clock()
    config = config_of(tmp_path, price_per_gpu_hour=0.9, budget_usd=5, max_hours=2)
    steps = config.run.model_copy(update={"steps": 20})
    every = config.checkpoint.model_copy(update={"every_steps": 10})
    budget = Budget(config.model_copy(update={"run": steps, "checkpoint": every}), age_s=0, clock=clock)
    clock.now += 1000  # 4 GPUs at 0.9 dollars an hour: 1 dollar
    assert budget.text() == "$ 1.00 of 5.00, 0.28 of 2 h"
    for seconds in (100, 200):
        with budget.timing("step"):
            clock.now += seconds
    with budget.timing("resume"):
        clock.now += 30
    with budget.timing("evaluation"):
        clock.now += 70
    assert budget.forecast() is None
    budget.reached(10)
    # 1,400 s are gone; ahead: 10 x 150 + 2 x (2 x 30, as the policy was not exported yet) + 70 + 20
    assert budget.text() == f"$ 1.40 of 5.00 (forecast {(1400 + 1500 + 120 + 70 + 20) / 1000:.2f}), 0.39 of 2 h"
    with budget.timing("kept"):
        clock.now += 100
    assert budget.forecast() == pytest.approx((1500 + 1500 + 200 + 70 + 20) / 1000)
    figures = budget.metrics(step_s=50, correct=30)
    assert figures == {
        "cost_usd": pytest.approx(1.5),
        "cost_usd_per_step": pytest.approx(0.05),
        "cost_usd_per_correct": pytest.approx(0.05),
    }
    assert dict(budget.rows(steps=2, correct=30)) == {
        "cost": "$ 1.50 of 5.00, 1.67 GPU hours",
        "cost per step": "$ 0.75",
        "cost per correct completion": "$ 0.05",
        "hours": "0.42 of 2 h",
    }
    # 3,500 s are left of the 5 dollars; the longest step took 200, saving 100, evaluating 70, and 20 are for the end
    assert budget.check("step", *ENDING) == pytest.approx(3500 - 1.2 * (200 + 100 + 70 + 20))


def test_without_a_price_or_a_limit_nothing_is_shown(tmp_path: Path) -> None:
    budget = Budget(config_of(tmp_path), age_s=1e6, clock=Clock())
    assert budget.text() == "" and budget.metrics(1.0, 1) == {} and not list(budget.rows(1, 1))
    assert budget.check("step", *ENDING) == math.inf and not budget.limited
    assert Budget(config_of(tmp_path, price_per_gpu_hour=0.0), age_s=3600, clock=Clock()).text() == "$ 0.00"


def test_what_work_takes_is_remembered_over_attempts(tmp_path: Path) -> None:
    config, clock = config_of(tmp_path, max_hours=1.0), Clock()
    with Budget(config, age_s=100, clock=clock) as first:
        first.started()
        with first.timing("step"):
            clock.now += 500
        with pytest.raises(ZeroDivisionError), first.timing("step"):  # what fails is no measure
            clock.now += 2000
            raise ZeroDivisionError
    with Budget(config, age_s=0, clock=clock) as second:
        assert second.check("end") == pytest.approx(1000 - 1.2 * 20)
        assert second.check("start", "step", *ENDING) == pytest.approx(1000 - 1.2 * (100 + 500 + 20))
        clock.now += 300
        with pytest.raises(
            LimitReached, match=r"spent 0\.81 of 1 h, which .*: raise cost\.max_hours and give --resume"
        ) as error:
            second.check("start", "step", *ENDING)
        assert error.value.ended == "hours"


def test_work_that_is_done_once_is_paid_for_but_not_reserved_for_again(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(config_of(tmp_path, max_hours=1.0), age_s=100, clock=clock)
    with budget.once():
        clock.now += 900
    clock.now += 50
    budget.started()
    assert budget.spent().hours == pytest.approx(1050 / 3600)
    assert budget.check("start", "end") == pytest.approx(3600 - 1050 - 1.2 * (150 + 20))


SAVE_S, EVALUATE_S, END_S = 40.0, 60.0, 15.0


class TimedLoop(Loop):
    """Notes the longest step."""

    longest_step = 0.0

    async def step(self) -> None:
        began = asyncio.get_running_loop().time()
        await super().step()
        self.longest_step = max(self.longest_step, asyncio.get_running_loop().time() - began)


class Limited(SimulatedRun):
    """A loop under a limit of wall time, with evaluations and checkpoints that take their time."""

    loop_class = TimedLoop
    loop: TimedLoop

    def __init__(self, folder: Path, progress: Progress, limit_s: float, seed: int = 0, **more: Any) -> None:
        self.clock = asyncio.get_running_loop().time
        cost = {"max_hours": limit_s / 3600}
        held_out = [Problem(0, "1+1", (1, 2), ("2",))]
        super().__init__(
            folder, progress, cost=cost, clock=self.clock, held_out=held_out, save_s=SAVE_S, seed=seed, **more
        )

    def seconds(self, plan: Sampling) -> float:
        return EVALUATE_S if plan.phase == "evaluation" else super().seconds(plan)


@pytest.mark.parametrize("staleness", [0, 1])
@pytest.mark.parametrize("seed", range(8))
def test_a_run_ends_in_time_and_wastes_little(tmp_path: Path, staleness: int, seed: int) -> None:
    """However long completions get: saved, evaluated, and not a second too late."""
    limit_s = 900.0

    async def scenario() -> tuple[Limited, Progress, float]:
        trainer = Limited(tmp_path, Progress(), limit_s, seed, staleness=staleness)
        return trainer, await trainer.loop.run(), trainer.clock()

    trainer, progress, took = run(scenario())
    saves, longest_step = trainer.store.saves, trainer.loop.longest_step
    assert took + END_S <= limit_s
    assert progress.ended == "hours" and progress.evaluated == progress.step and progress.after is not None
    assert saves[0] == (1, "resume"), "so that there is a figure"
    assert saves[-1] == (progress.step, "kept")
    assert limit_s - took <= 1.2 * (longest_step + SAVE_S) + 0.2 * (2 * SAVE_S + EVALUATE_S) + SAVE_S + 24
    assert json.loads((trainer.config.run.path / "result.json").read_text())["ended"] == "hours"


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_step_that_does_not_end_is_given_up_in_time_and_done_again_with_more(tmp_path: Path, staleness: int) -> None:
    class Stuck(Limited):
        async def group(self, position: int, problem: Problem, plan: Sampling) -> Group:
            if position == 2 * P + 1:
                await asyncio.sleep(1e6)
            return await super().group(position, problem, plan)

    async def scenario() -> list[Limited]:
        first = Stuck(tmp_path, Progress(), 2000.0, staleness=staleness)
        await first.loop.run()
        assert 2000 - 1.2 * (first.loop.longest_step + 4 * SAVE_S + EVALUATE_S + 20) < first.clock() < 2000 - END_S
        first.budget.__exit__()
        second = Limited(tmp_path, first.progress, 4000.0, staleness=staleness, steps=5)
        await second.loop.run()
        return [first, second]

    first, second = run(scenario())
    assert first.progress.step == 2 and first.progress.ended == "hours" and first.dropped == 1
    assert first.store.saves == [(1, "resume"), (2, "kept")] and first.progress.after
    assert second.progress.ended == "steps" and second.progress.step == 5 and second.progress.correct > 0
    report = check_coverage(tmp_path, P, 4, second.config.rollout.staleness)
    assert report.exact and report.steps == 5


def test_correct_completions_are_counted_over_attempts(tmp_path: Path) -> None:
    """All simulated completions are: 16 of each step."""

    async def scenario() -> SimulatedRun:
        first = SimulatedRun(tmp_path, Progress())
        saved = Progress.read(json.loads(json.dumps(asdict(await first.steps(2)))), tmp_path)
        cost = {"price_per_gpu_hour": 3600.0}
        second = SimulatedRun(tmp_path, saved, cost=cost, clock=asyncio.get_running_loop().time)
        await second.steps(3)
        return second

    trainer = run(scenario())
    assert trainer.progress.correct == 48
    figures = trainer.figures[-1]
    assert figures["cost_usd_per_correct"] == pytest.approx(figures["cost_usd"] / 48) and figures["cost_usd"] > 0


def judged_budget(folder: Path, clock: Clock, **cost: float) -> Budget:
    config = config_of(folder, **cost)
    judge = {"weights": {"judge": 1.0}, "judge": {"model": "j", "url": "http://localhost/v1"}}
    rewards = type(config.rewards).model_validate(judge)
    return Budget(config.model_copy(update={"rewards": rewards}), age_s=0.0, clock=clock)


def test_what_judges_cost_is_spent_once_over_all_attempts(tmp_path: Path) -> None:
    """Four GPUs at 0.9 dollars an hour: a dollar in 1000 s."""
    clock = Clock()
    budget = judged_budget(tmp_path, clock, price_per_gpu_hour=0.9)
    budget.judged(Spending(requests=10, dollars=2.0))
    budget.judged(Spending(requests=9, dollars=1.5))  # an answer that was overtaken
    clock.now += 1000
    assert budget.spent().dollars == pytest.approx(3.0)
    budget.reached(1)
    again = judged_budget(tmp_path, clock, price_per_gpu_hour=0.9)
    again.judged(Spending(requests=10, dollars=2.0))
    again.judged(Spending(requests=12, dollars=2.5))
    assert again.spent().dollars == pytest.approx(3.5)
    figures = again.metrics(step_s=10.0, correct=7)
    assert figures["cost_usd"] == pytest.approx(3.5) and figures["cost_usd_per_correct"] == pytest.approx(0.5)
    assert (figures["judge_requests"], figures["judge_dollars"]) == (12.0, 2.5)


def test_a_step_whose_judges_would_cost_too_much_is_not_begun(tmp_path: Path) -> None:
    budget = judged_budget(tmp_path, Clock(), price_per_gpu_hour=0.001, budget_usd=10.0)
    budget.judged(Spending(requests=1, dollars=5.0))
    budget.reached(1)
    with pytest.raises(LimitReached, match=r"has spent \$ 5.00 of 10.00"):
        budget.check("step")
    budget.check("end")


def test_dollars_are_shown_where_only_the_judge_has_a_price(tmp_path: Path) -> None:
    budget = judged_budget(tmp_path, Clock())
    assert budget.text() == "" and budget.metrics(1.0, 1)["judge_requests"] == 0.0
    budget.judged(Spending(requests=3, prompt_tokens=1200, completion_tokens=30, dollars=0.25, unjudged=1))
    assert budget.text() == "$ 0.25"
    rows = dict(budget.rows(1, 1))
    assert rows["judge models"] == "3 requests, 1,200 prompt and 30 completion tokens, $ 0.25; 1 judgements failed"
    assert rows["cost per step"] == "$ 0.25"
