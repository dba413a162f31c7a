"""Points per dollar: by closed forms, and in simulated runs that must not be stopped while they gain enough."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation import slope as module
from openrs_ray.evaluation.slope import Slope, check_worth, checks, recorded_slope, slope, too_flat
from openrs_ray.run.budget import LimitReached
from openrs_ray.run.progress import Progress
from openrs_ray.stats import Interval

NAN = math.nan
T_975 = {1: 12.706205, 2: 4.302653, 3: 3.182446, 49: 2.009575}
"""Quantiles of Student's distribution, from its published table."""


def test_three_problems_by_hand() -> None:
    """Over dollars 0, 1, 2 one problem gains a half per dollar, one loses a quarter, one stays."""
    scores = [np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])]
    scores.append(np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))
    found = slope(scores, [0.0, 1.0, 2.0], 0.95)
    slopes = [50.0, -25.0, 0.0]
    variance = sum((each - 25 / 3) ** 2 for each in slopes) / 2
    least = 100 * 1 / 2 / 3 / 2  # one completion of two of three problems, a dollar from the middle
    assert found is not None and found.mean == pytest.approx(25 / 3)
    residuals = [each - 50 - 50 / 9 - 25 / 3 * place for each, place in ((50, -1), (50, 0), (50 + 50 / 3, 1))]
    in_common = sum(each**2 for each in residuals) / 1 / 2  # one degree of freedom; dollars squared add up to 2
    half = math.sqrt(T_975[2] ** 2 * (variance / 3 + least**2) + T_975[1] ** 2 * in_common)
    assert found.high - found.mean == pytest.approx(half, rel=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_it_is_the_regression_of_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    scores = [(rng.random((50, 4)) < 0.5).astype(float) for _ in range(6)]
    dollars = [0.0, 0.7, 1.1, 2.5, 2.6, 4.0]
    found = slope(scores, dollars, 0.95)
    line = np.polyfit(dollars, [100 * float(each.mean()) for each in scores], 1)
    assert found is not None and found.mean == pytest.approx(line[0])
    moved = slope(scores, [each + 1000 for each in dollars], 0.95)
    assert moved is not None and moved.high == pytest.approx(found.high)


def test_what_was_not_judged_is_left_out() -> None:
    rng = np.random.default_rng(1)
    scores = [(rng.random((20, 2)) < 0.5).astype(float) for _ in range(3)]
    whole = slope(scores, [0, 1, 2], 0.95)
    with_gap = [np.vstack([each, [[1.0, 1.0]]]) for each in scores]
    with_gap[1][-1] = NAN
    without = slope(with_gap, [0, 1, 2], 0.95)
    assert whole is not None and without == whole
    with_gap[1][-1] = [1.0, NAN]
    assert slope(with_gap, [0, 1, 2], 0.95) != whole, "one judged sample is enough"


def test_what_tells_nothing_is_none() -> None:
    ones = np.ones((5, 1))
    assert slope([ones] * 3, [2.0, 2.0, 2.0], 0.95) is None
    assert slope([ones[:2]] * 3, [0.0, 1.0, 2.0], 0.95) is None
    assert slope([ones] * 2, [0.0, 1.0], 0.95) is None, "two evaluations leave no residual"


def test_ups_and_downs_that_all_problems_share_widen_the_interval() -> None:
    """Every problem goes up and down alike, so that no spread over problems shows it."""
    base = np.linspace(0.2, 0.8, 50)[:, None]
    shared = [0.1, -0.1, 0.0, -0.1, 0.1]  # no slope
    found = slope([base + each for each in shared], [0, 1, 2, 3, 4], 0.95)
    assert found is not None and found.mean == pytest.approx(0, abs=1e-9)
    in_common, least = math.sqrt(100**2 * 0.04 / 3 / 10), 100 * 2 / 10 / 50
    assert found.high == pytest.approx(math.hypot(T_975[3] * in_common, T_975[49] * least), rel=2e-3)


def test_evaluations_that_are_alike_are_not_certain() -> None:
    found = slope([np.ones((50, 1))] * 5, [0, 1, 2, 3, 4], 0.95)
    assert found is not None and found.mean == 0
    assert found.high == pytest.approx(T_975[49] * 100 * 2 / 10 / 50, rel=1e-4)


def config_of(folder: Path, *more: str) -> RunConfig:
    recipe = Path(__file__).parents[4] / "launch" / "recipes" / "quickstart.yaml"
    given = ["--run.folder", str(folder), "--run.steps", "40", "--evaluation.every_steps", "4"]
    given += ["--cost.price_per_gpu_hour", "1", "--cost.min_points_per_usd", "0.5"]
    return load_config(recipe, [*given, *more])


def test_what_it_needs_is_said(tmp_path: Path) -> None:
    assert checks(config_of(tmp_path)) == 10 - 8 + 1, "after 28, 32 and 36 steps"
    for more, sentence in (
        (["--cost.price_per_gpu_hour", "0"], "needs a cost.price_per_gpu_hour above 0"),
        (["--evaluation.every_steps", "0"], "needs 8 evaluations .* set evaluation.every_steps"),
        (["--evaluation.every_steps", "10"], "needs 8 evaluations"),
        (["--evaluation.path", "null"], "needs held-out problems"),
        (["--cost.evaluations_per_slope", "2"], "evaluations_per_slope"),
    ):
        with pytest.raises(UserError, match=sentence):
            config_of(tmp_path, *more)


FIVE = ("--cost.evaluations_per_slope", "5")


def written(config: RunConfig, accuracies: Sequence[float], rng: np.random.Generator) -> dict[int, np.ndarray]:
    """The metrics of evaluations every four steps, a dollar each, and their scores by step."""
    folder, scores = config.run.path, {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attempts.jsonl").write_text('{"attempt": 1, "from_step": 0}\n')
    lines = []
    for place, accuracy in enumerate(accuracies):
        scores[4 * place] = (rng.random((100, 2)) < accuracy).astype(float)
        lines.append(
            {"step": 4 * place, "attempt": 1, "phase": "evaluation", "accuracy": 0.5, "cost_usd": float(place)}
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return scores


def test_the_last_evaluations_of_the_record_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, rng = config_of(tmp_path, "--cost.min_points_per_usd", "20", *FIVE), np.random.default_rng(2)
    scores = written(config, [0.1, 0.5, 0.5, 0.5, 0.5, 0.5], rng)
    monkeypatch.setattr(module, "recorded_scores", lambda folder, step, tasks: scores[step])
    assert recorded_slope(config, Progress(step=12, evaluated=12)) is None, "not before five evaluations"
    assert recorded_slope(config, Progress(step=21, evaluated=20)) is None, "not between two evaluations"
    first = recorded_slope(config, Progress(step=16, evaluated=16))
    last = recorded_slope(config, Progress(step=20, evaluated=20))
    assert first is not None and too_flat(config, first) is None and first.interval.mean > 5
    assert last is not None and (last.evaluations, last.dollars) == (5, 4.0)
    assert last.interval == slope([scores[step] for step in (4, 8, 12, 16, 20)], [1, 2, 3, 4, 5], 1 - 0.05 / 6), (
        "of six checks"
    )
    with (config.run.path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 19, "attempt": 1, "phase": "evaluation", "accuracy": 0.5, "cost_usd": 4.5}\n')
    assert recorded_slope(config, Progress(step=20, evaluated=20)) == last, "that of a budget's end is not counted"
    sentence = too_flat(config, last)
    assert sentence is not None and "less than cost.min_points_per_usd 20 even at" in sentence and str(last) in sentence
    ended = Progress(step=20, evaluated=20, ended="flat")
    with pytest.raises(LimitReached, match=r"gained .* lower that and give --resume") as error:
        check_worth(config, ended)
    assert error.value.ended == "flat"
    check_worth(config_of(tmp_path, "--cost.min_points_per_usd", "0.01", *FIVE), ended)
    check_worth(config_of(tmp_path, "--cost.min_points_per_usd", "null"), ended)
    check_worth(config, Progress(step=20, evaluated=20, ended="budget"))


def test_a_slope_reads_as_words() -> None:
    found = Slope(Interval(0.314, -0.1, 0.72), 5, 6.2)
    assert str(found) == "+0.314 points per dollar [-0.1, +0.72] over the last 5 evaluations, which took $ 6.20"


def stopped(
    rng: np.random.Generator,
    gain: float,
    least: float,
    problems: int,
    evaluations: int = 20,
    window: int = 8,
    wobble: float = 0.0,
) -> int | None:
    """Evaluation after which a run is stopped that gains `gain` points with each dollar, one per evaluation; None if never.

    `wobble`: standard deviation, in points, of what each evaluation's policy is better or worse at all problems.
    """
    begin = rng.beta(0.6, 1.2, problems)
    target = np.minimum(1.0, begin + rng.exponential(2 * evaluations * gain / 100, problems))
    target = begin + (target - begin) * gain / 100 * evaluations / max(1e-9, float((target - begin).mean()))
    confidence = 1 - 0.05 / (evaluations - window + 1)
    scores: list[np.ndarray] = []
    for place in range(evaluations):
        chance = begin + (target - begin) * place / evaluations
        room = chance * (1 - chance)
        chance = chance + rng.normal() * wobble / 100 * room / room.mean()
        scores.append((rng.random((problems, 1)) < chance[:, None]).astype(float))
        if place + 1 >= window:
            found = slope(scores[-window:], [float(each) for each in range(window)], confidence)
            if found is not None and found.high < least:
                return place
    return None


def shares(gain: float, least: float, trials: int, **more: Any) -> float:
    rng = np.random.default_rng(3)
    return float(np.mean([stopped(rng, gain, least, **more) is not None for _ in range(trials)]))


def test_a_run_that_gains_enough_is_hardly_ever_stopped_by_noise() -> None:
    """All checks of runs whose dollar buys exactly the least: stopped by any of them in at most 5 %, one-sided half."""
    assert shares(1.0, 1.0, 300, problems=80) <= 0.03


@pytest.mark.parametrize("window", [5, 8])
def test_nor_by_ups_and_downs_that_all_problems_share(window: int) -> None:
    """An interval over problems alone stops more than half of these runs."""
    assert shares(1.0, 1.0, 200, problems=300, window=window, wobble=4.0) <= 0.04


def test_a_run_that_gains_nothing_is_stopped_where_the_noise_lets_it_be_seen() -> None:
    assert shares(1e-6, 1.0, 100, problems=80) < 0.6
    assert shares(1e-6, 2.0, 100, problems=400) > 0.9
    assert shares(1e-6, 2.0, 100, problems=400, wobble=1.0) > 0.8


@pytest.mark.nightly
@pytest.mark.parametrize("problems", [20, 60, 300])
@pytest.mark.parametrize("wobble", [0.0, 4.0])
def test_false_stops_of_many_runs(problems: int, wobble: float) -> None:
    assert shares(1.0, 1.0, 3000, problems=problems, wobble=wobble) <= 0.03
