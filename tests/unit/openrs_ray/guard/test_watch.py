"""Every rule against series that break it, and against the same series a little inside its limit."""

from collections.abc import Iterator
from typing import Any

import pytest
from guarded import guarded, line

from openrs_ray.guard.alarms import Alarm
from openrs_ray.guard.rules import MEASURES
from openrs_ray.guard.watch import Watch
from openrs_ray.run.step_settings import StepSettings

BASELINE, WINDOW = 10, 5


def alarms(series: list[dict[str, Any]], **guard: Any) -> Iterator[Alarm]:
    watch = Watch(guarded("warn", **guard))
    for step, figures in enumerate(series, 1):
        yield from watch.step(line(step, **figures))


def shifted(before: dict[str, Any], after: dict[str, Any], steps: int = 12) -> list[dict[str, Any]]:
    return [before] * (BASELINE + WINDOW) + [after] * steps


def unsolved(spread: int) -> dict[str, Any]:
    return {"groups_with_spread": spread, "accuracy": 0.2}


# Rule, figures of a healthy step, figures just inside the limit, figures just beyond it.
CASES = [
    ("truncated_share", {"truncated_share": 0.2}, {"truncated_share": 0.44}, {"truncated_share": 0.46}),
    ("length", {"mean_length": 20}, {"mean_length": 0.79 * 48}, {"mean_length": 0.81 * 48}),
    ("length", {"mean_length": 0.9 * 48}, {"mean_length": 0.94 * 48}, {"mean_length": 0.96 * 48}),
    ("language", {"reward_language": 0.9}, {"reward_language": 0.73}, {"reward_language": 0.71}),
    ("kl", {"kl": 0.1}, {"kl": 0.99}, {"kl": 1.01}),
    ("mismatch", {"mismatch_kl": 1e-3}, {"mismatch_kl": 0.019}, {"mismatch_kl": 0.021}),
    ("mismatch", {"mismatch_kl": 1e-14}, {"mismatch_kl": 1.9e-3}, {"mismatch_kl": 2.1e-3}),
    ("entropy_rise", {"entropy": 0.4}, {"entropy": 1.19}, {"entropy": 1.21}),
    ("entropy_rise", {"entropy": 0.01}, {"entropy": 0.29}, {"entropy": 0.31}),
    ("entropy_fall", {"entropy": 1.0, "accuracy": 0.3}, {"entropy": 0.021}, {"entropy": 0.019, "accuracy": 0.3}),
    ("entropy_fall", {"entropy": 1.0, "accuracy": 0.7}, {"entropy": 0.01, "accuracy": 0.7}, {"entropy": 0.01}),
    ("grad_norm", {"grad_norm": 0.5}, {"grad_norm": 4.9}, {"grad_norm": 5.1}),
    ("no_spread", unsolved(3), unsolved(2), unsolved(1)),
    ("accuracy", {"accuracy": 0.5}, {"accuracy": 0.36}, {"accuracy": 0.34}),
]


@pytest.mark.parametrize(("rule", "healthy", "inside", "beyond"), CASES)
def test_a_rule_is_broken_beyond_its_limit_and_not_inside(
    rule: str, healthy: dict[str, Any], inside: dict[str, Any], beyond: dict[str, Any]
) -> None:
    assert not [alarm for alarm in alarms(shifted(healthy, inside)) if alarm.rule == rule]
    found = [alarm for alarm in alarms(shifted(healthy, beyond)) if alarm.rule == rule]
    first = BASELINE + 2 * WINDOW  # the first window that is beyond as a whole
    assert first in [alarm.step for alarm in found]
    assert [alarm.in_a_row for alarm in found] == list(range(1, len(found) + 1)), "without a break"
    whole = next(alarm for alarm in found if alarm.step == first)
    assert whole.since == first - WINDOW, "the oldest of the policies that sampled the window"
    assert MEASURES[rule].words in whole.text


def test_every_rule_of_the_table_has_a_case() -> None:
    assert {case[0] for case in CASES} == {*MEASURES}


def test_a_single_step_breaks_nothing_and_a_break_starts_the_count_anew() -> None:
    lone: list[dict[str, Any]] = [{}] * 20 + [{"grad_norm": 20.0}] + [{}] * 20
    assert not [*alarms(lone)], "a window's mean of 0.5, 0.5, 0.5, 0.5 and 20 is below 10 times 0.5"
    twice: list[dict[str, Any]] = [{}] * 20 + [{"grad_norm": 10.0}] * 6 + [{}] * 6 + [{"grad_norm": 10.0}] * 6
    assert [alarm.in_a_row for alarm in alarms(twice)].count(1) == 2


def test_what_the_run_began_with_is_no_alarm() -> None:
    """Figures that would be alarming after a healthy start: the published runs begin with many truncated completions."""
    assert not [*alarms([{"truncated_share": 0.7, "entropy": 2.0, "grad_norm": 30.0, "accuracy": 0.02}] * 40)]


def test_a_step_without_the_figure_neither_breaks_a_rule_nor_counts() -> None:
    assert not [*alarms([{"entropy": None, "grad_norm": float("nan"), "accuracy": float("nan")}] * 40)]
    gaps = [{"entropy": 0.4}] * 15 + [{"entropy": value} for value in [2.0, None] * 8]
    assert next(alarm.step for alarm in alarms(gaps)) > BASELINE + WINDOW


def test_a_step_that_trained_on_no_token_neither_breaks_a_rule_nor_counts() -> None:
    """Its figures are 0: no fall of the entropy, and no baseline that the first gradient is infinitely far above."""
    nothing = {"completion_tokens": 0, "entropy": 0.0, "grad_norm": 0.0, "mismatch_kl": 0.0, "kl": 0.0, "accuracy": 0.0}
    trained = {"completion_tokens": 900, "accuracy": 0.1}
    assert not [*alarms([trained] * 15 + [nothing | {"accuracy": 0.1}] * 20)]
    assert not [*alarms([nothing] * 12 + [trained] * 30)]
    late = [alarm.step for alarm in alarms([nothing] * 12 + [trained] * 15 + [trained | {"grad_norm": 5.1}] * 5)]
    assert late == [12 + 15 + 5], "the baseline is that of the steps that learned"


def test_an_accuracy_that_rises_and_falls_within_the_first_steps_is_seen() -> None:
    early = [{"accuracy": value} for value in (0.4, 0.6, 0.7, 0.7, 0.6, 0.3, 0.1, 0.0, 0.0)]
    first = next(alarms(early))
    assert (first.rule, first.step, first.baseline) == ("accuracy", 8, pytest.approx(0.6))


def test_a_new_stage_has_its_own_baseline() -> None:
    longer = {"setting/stage": 1, "setting/max_completion_tokens": 96, "mean_length": 80}
    series = [{"mean_length": 20}] * 20 + [longer] * 40
    assert not [*alarms(series)], "80 of 96 tokens from the stage's first step on"
    assert [*alarms([longer | {"mean_length": 20}] * 20 + [longer | {"mean_length": 90}] * 40)]


def test_a_stage_that_a_resume_has_changed_has_its_own_baseline() -> None:
    """A quarter of the length cuts more completions, which is no sign of a run that goes wrong."""
    long, short = ({"setting/max_completion_tokens": most, "mean_length": 10} for most in (96, 24))
    series = [long | {"truncated_share": 0.1}] * 20 + [short | {"truncated_share": 0.55}] * 20
    assert not [*alarms(series)]
    assert [*alarms([figures | long for figures in series])]


def test_lines_of_an_older_version_without_settings_are_of_the_same_stage() -> None:
    config = guarded("warn")
    now = {"truncated_share": 0.6} | StepSettings.of(config).metrics()
    assert [*alarms([{"truncated_share": 0.1}] * 20 + [now] * 20)], "the baseline holds over a resume with this version"


STAGE_MOVES = [
    ({"entropy": 0.4}, {"entropy": 1.3}),
    ({"entropy": 5.0, "accuracy": 0.3}, {"entropy": 0.05, "accuracy": 0.3}),
    ({"grad_norm": 0.5}, {"grad_norm": 6.0}),
    ({"mismatch_kl": 1e-3}, {"mismatch_kl": 0.03}),
    ({"reward_language": 0.9}, {"reward_language": 0.6}),
    (unsolved(3), unsolved(1)),
    ({"accuracy": 0.6}, {"accuracy": 0.4}),
]


@pytest.mark.parametrize(("before", "after"), STAGE_MOVES)
@pytest.mark.parametrize("staleness", [0, 10])
def test_figures_that_move_with_the_stage_are_no_alarm(
    before: dict[str, Any], after: dict[str, Any], staleness: int
) -> None:
    """The first steps of a stage may still train on completions of the one before."""
    config = guarded("warn")
    watch = Watch(config.model_copy(update={"rollout": config.rollout.model_copy(update={"staleness": staleness})}))
    new = after | {"setting/stage": 1}
    mixed = before | {"setting/stage": 1}
    series = [before] * 20 + [mixed] * staleness + [new] * 30
    assert not [alarm for step, each in enumerate(series, 1) for alarm in watch.step(line(step, **each))]
    same = [before] * 20 + [after] * 30
    watch = Watch(config)
    assert [alarm for step, each in enumerate(same, 1) for alarm in watch.step(line(step, **each))]


def test_a_penalty_s_limit_holds_from_the_first_step_of_a_stage_on() -> None:
    series = [{"kl": 0.1}] * 20 + [{"kl": 3.0, "setting/stage": 1}] * 5
    assert next(alarm.step for alarm in alarms(series)) == 22, "2 of 5 steps make a mean of 1.26"


def test_replaced_groups_count_among_those_without_spread() -> None:
    """Spread in 4 of 10 groups, not in 4 of 4."""
    assert [*alarms(shifted(unsolved(4), unsolved(4) | {"replaced_groups": 6.0}))]


def evaluation(step: int, mean: float, half: float = 0.03) -> dict[str, Any]:
    return {"step": step, "accuracy": mean, "low": mean - half, "high": mean + half}


def test_a_held_out_interval_below_that_of_an_earlier_policy() -> None:
    watch = Watch(guarded("warn"))
    for step, mean in ((0, 0.5), (10, 0.8), (20, 0.75), (30, 0.85), (40, 0.8)):
        assert watch.evaluation(evaluation(step, mean)) == [], "intervals that meet"
    (alarm,) = watch.evaluation(evaluation(50, 0.7))
    assert (alarm.rule, alarm.since, alarm.step) == ("held_out", 31, 50) and alarm.bound == pytest.approx(0.82)
    assert watch.doubtful == {*range(31, 51)}, "the best one itself is not in doubt"


def test_mean_rewards_are_held_out_figures_too() -> None:
    watch = Watch(guarded("warn"))
    lines = [{"step": s, "mean_reward": m, "low": m - 0.1, "high": m + 0.1} for s, m in ((0, 1.5), (5, 1.0))]
    assert [len(watch.evaluation(one)) for one in lines] == [0, 1]


def test_a_rule_that_is_off_sees_nothing() -> None:
    series = shifted({}, {"entropy": 5.0})
    assert [*alarms(series)] and not [*alarms(series, entropy_rise={"action": "off"})]


def test_checkpoints_within_the_window_of_an_alarm_are_doubtful() -> None:
    watch = Watch(guarded("warn"))
    for step in range(1, 31):
        watch.step(line(step, entropy=0.4 if step <= 20 else 1.3))
    broken = [step for step in range(21, 31) if 0.4 * max(0, 25 - step) + 1.3 * min(5, step - 20) > 5 * 1.2]
    assert watch.doubtful == {*range(broken[0] - WINDOW, 31)}
    assert watch.lag == 10


def test_with_staleness_older_policies_are_in_doubt_and_the_rules_find_out_later() -> None:
    config = guarded("warn")
    stale = config.model_copy(update={"rollout": config.rollout.model_copy(update={"staleness": 3})})
    found, lags = list[Alarm](), list[int]()
    for each in (config, stale):
        watch = Watch(each)
        for step in range(1, 26):
            found += [alarm for alarm in watch.step(line(step, entropy=0.4 if step <= 20 else 3.0)) if step == 25]
        lags.append(watch.lag)
    assert [alarm.since for alarm in found] == [20, 17] and lags == [10, 13]


def kept_for(watch: Watch, checkpoints: list[int], step: int) -> list[int]:
    return sorted(watch.needed(checkpoints, step))


def test_the_checkpoints_that_a_rollback_may_need() -> None:
    watch = Watch(guarded("roll_back"))  # finds out after ten steps
    assert kept_for(watch, [2, 4, 6, 8], 9) == [2], "none has stood the test, and the oldest will be the first"
    assert kept_for(watch, [2, 4, 10, 11], 12) == [2, 4]
    assert kept_for(watch, [2, 4, 10, 11], 14) == [4, 10]
    watch.evaluation(evaluation(0, 0.5))
    watch.evaluation(evaluation(50, 0.8))
    watch.evaluation(evaluation(60, 0.75))
    assert kept_for(watch, [40, 50, 60, 70, 80, 90], 90) == [50, 80, 90], "up to the best evaluation, too"
    watch.doubtful.update(range(45, 56))
    assert kept_for(watch, [40, 50, 60, 70, 80], 90) == [40, 80]


def test_an_evaluation_that_a_resume_repeats_counts_once() -> None:
    watch = Watch(guarded("roll_back", held_out={"patience": 2}))
    watch.evaluation(evaluation(0, 0.8))
    for mean in (0.5, 0.5):
        assert [alarm.in_a_row for alarm in watch.evaluation(evaluation(10, mean))] == [1]
    assert watch.evaluation(evaluation(10, 0.9)) == [] and watch.evaluation(evaluation(10, 0.5)) != []
    (alarm,) = watch.evaluation(evaluation(20, 0.5))
    assert (alarm.in_a_row, alarm.baseline) == (2, 0.8), "the line of 0.9 was replaced"
