"""docs/results.md explains every figure and column that a run writes, and none that it does not."""

import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from places import ROOT
from simulated_run import PROBLEMS, SimulatedRun
from virtual_time import run as in_virtual_time

from actors.learner.rank import LearnerRank
from openrs_ray.algorithm.losses import METRICS
from openrs_ray.algorithm.step_metrics import step_metrics
from openrs_ray.algorithm.updates import ages_in_updates, over_updates
from openrs_ray.curation.store import COMPLETIONS
from openrs_ray.evaluation import store
from openrs_ray.records import Status, Verdict
from openrs_ray.run.budget import Budget
from openrs_ray.run.completion_files import Phase
from openrs_ray.run.completions import SCHEMA
from openrs_ray.run.display import StepFigures, summary_table
from openrs_ray.run.progress import Progress
from openrs_ray.stats import Interval

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text below a heading of the second level."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def names(text: str) -> set[str]:
    """The first column of the tables, without backticks."""
    cells = re.findall(r"^\| ([^|]+) \|", text, flags=re.MULTILINE)
    return {name.strip(" `") for cell in cells for name in cell.split(",")} - {"name", "column", "row", "in the line"}


def general(name: str) -> str:
    """age_3_share -> age_K_share, reward_format -> reward_NAME."""
    return re.sub(r"^reward_.*", "reward_NAME", re.sub(r"^age_\d+_share", "age_K_share", name))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimulatedRun:
    """Two steps of a priced run with rollouts ahead, written down by the real loop; only engines and learner are timers."""
    folder = tmp_path_factory.mktemp("run")

    async def two_steps() -> SimulatedRun:
        trainer = SimulatedRun(folder, Progress(), cost={"price_per_gpu_hour": 1.0}, staleness=1)
        await trainer.steps(2)
        await trainer.sampling.close()
        return trainer

    return in_virtual_time(two_steps())


def learner_figures() -> set[str]:
    """Figures of a learner with several updates, which include those of one."""
    engine = SimpleNamespace(get_global_grad_norm=lambda: 1.0)
    rank: Any = SimpleNamespace(engine=engine, _teacher_figures=("teacher_kl", "top_share"))
    one = LearnerRank._metrics(rank, dict.fromkeys((*METRICS, "packed_tokens", "loss"), 1.0), 1, 1e-6, 1.0)
    span = SimpleNamespace(version=0, start=0, end=1)
    group: Any = SimpleNamespace(rollouts=(SimpleNamespace(versions=(span,), sampled_tokens=1),))
    several = {*over_updates([one, one])} | {*ages_in_updates([[group], [group]], 1, 2)}
    assert {*one} < several
    return several


def test_every_figure_of_a_step_is_explained_and_no_other(run: SimulatedRun) -> None:
    written = {name for figures in run.figures for name in figures} | learner_figures()
    group: Any = SimpleNamespace(  # one with a reward by name
        verdicts=(Verdict(Status.CORRECT, {"format": 1.0}, 1.0),),
        rollouts=(SimpleNamespace(sampled_tokens=3, truncated=False, turns=2),),
        rewards=lambda: np.ones(1),
        problem=PROBLEMS[0],
    )
    written |= {*step_metrics([group])}
    assert {"cost_usd", "age_0_share", "push_bytes", "entropy", "reward_format"} <= written
    assert names(section("Figures of a step")) == {general(name) for name in written}


def test_every_figure_of_an_evaluation_is_explained_and_no_other(tmp_path: Path) -> None:
    async def one_step() -> SimulatedRun:
        trainer = SimulatedRun(tmp_path, Progress(), held_out=PROBLEMS, steps=1)
        await trainer.loop.run()
        return trainer

    before, _, after = in_virtual_time(one_step()).figures
    assert names(section("Figures of a held-out evaluation")) == {*before} == {*after}


def test_the_line_of_a_step_is_explained() -> None:
    values: dict[str, Any] = {field.name: 1 for field in fields(StepFigures)}
    assert {*StepFigures(**values).cells()} <= names(section("The line of a step"))


def test_every_row_of_the_last_table_is_explained(run: SimulatedRun) -> None:
    cost = run.config.cost.model_copy(update={"max_hours": 2.0})
    budget = Budget(run.config.model_copy(update={"cost": cost}), age_s=0.0)
    half = Interval(0.5, 0.4, 0.6)
    table = summary_table(
        before=half,
        after=replace(half, mean=0.6),
        problems=9,
        samples=1,
        steps=2,
        tokens=10,
        seconds=1.0,
        run_folder=Path("run"),
        costs=budget.rows(2, 1),
    )
    assert {*table.columns[0].cells} <= names(section("The table at the end"))


def test_every_column_of_the_completions_is_explained_and_no_other() -> None:
    written = {*SCHEMA.names, *store.SCHEMA.names, *COMPLETIONS.names}
    assert names(section("Columns of the completions")) == written - {"row"}, "`row` heads another page's table"
    assert "\n| `row` | " in section("Columns of the completions")
    assert all(f"`{phase}`" in section("Columns of the completions") for phase in get_args(Phase))
    assert all(str(status) in section("Columns of the completions") for status in Status)
