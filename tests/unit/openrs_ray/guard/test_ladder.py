"""The ladder from warning to rollback to stop, and that it ends."""

from dataclasses import replace
from typing import Any

import pytest
from guarded import guarded

from openrs_ray.config.schema import RunConfig
from openrs_ray.guard.alarms import Alarm
from openrs_ray.guard.knobs import held, pending_rollback, rollbacks
from openrs_ray.guard.ladder import Situation, decisions
from openrs_ray.run.decisions import Decision
from openrs_ray.run.step_settings import Changes

NOW = Situation(30, 1, Changes(), [], checkpoints=[10, 20, 28], policies=[], doubtful={*range(24, 31)}, best=None)


def alarm(rule: str = "entropy_rise", in_a_row: int = 1) -> Alarm:
    return Alarm(rule, 30, 24, 1.5, 1.2, 0.4, 5, in_a_row, f"{rule} was 1.5")


def decide(config: RunConfig, *alarms: Alarm, now: Situation = NOW) -> list[Decision]:
    return list(decisions(alarms, config, now))


def test_first_a_warning_once_then_a_rollback_that_halves_the_rate() -> None:
    config = guarded("roll_back")
    (warning,) = decide(config, alarm())
    assert (warning.action, warning.changes, warning.to_step) == ("warn", {}, None)
    assert {name: warning.evidence[name] for name in ("rule", "step", "since", "value", "bound", "baseline")} == {
        "rule": "entropy_rise",
        "step": 30,
        "since": 24,
        "value": 1.5,
        "bound": 1.2,
        "baseline": 0.4,
    }
    warned = replace(NOW, decided=[warning])
    assert decide(config, alarm(in_a_row=4), now=warned) == []
    (back,) = decide(config, alarm(in_a_row=5), now=warned)
    assert (back.action, back.to_step) == ("roll back", 20), "28 is in doubt"
    assert back.changes == {"learning_rate_factor": (1.0, 0.5)}
    assert back.sentence == (
        "entropy_rise was 1.5: the run goes back to the checkpoint of step 20, and from there on the learning rate is 0.5 times "
        "the recipe's (1 of 3 rollbacks)"
    )


def test_where_no_checkpoint_is_good_the_run_goes_back_to_the_start_model() -> None:
    now = replace(NOW, doubtful={*range(5, 31)})
    back = decide(guarded("roll_back"), alarm(in_a_row=5), now=now)[-1]
    assert back.to_step == 0 and "goes back to the start model" in back.sentence


def test_it_stops_where_beginning_anew_would_delete_good_policies() -> None:
    now = replace(NOW, checkpoints=[28], policies=[10, 20, 25])
    stop = decide(guarded("roll_back"), alarm(in_a_row=5), now=now)[-1]
    assert stop.action == "stop" and stop.to_step is None
    assert stop.sentence == (
        "entropy_rise was 1.5, and going back to the start model would delete the good policies, which have no learner's state "
        "any more: the run stops; its last good policy is that of step 20"
    )
    all_in_doubt = replace(now, policies=[25])
    assert decide(guarded("roll_back"), alarm(in_a_row=5), now=all_in_doubt)[-1].to_step == 0
    back = decide(guarded("roll_back"), alarm(in_a_row=5), now=replace(now, checkpoints=[10, 28]))[-1]
    assert back.to_step == 10, "from there on the policy of step 20 is superseded"


def test_a_guard_that_may_only_warn_never_goes_back() -> None:
    assert [one.action for one in decide(guarded("warn"), alarm(in_a_row=50))] == ["warn"]
    gentle = guarded("roll_back", entropy_rise={"action": "warn"})
    assert [one.action for one in decide(gentle, alarm(in_a_row=50))] == ["warn"]
    both = decide(gentle, alarm(in_a_row=50), alarm("grad_norm", 5))
    assert [one.action for one in both] == ["warn", "warn", "roll back"]


def test_one_rollback_at_a_time_for_the_rule_that_has_been_broken_longest() -> None:
    found = decide(guarded("roll_back"), alarm(in_a_row=5), alarm("accuracy", 9))
    assert [one.action for one in found] == ["warn", "warn", "roll back"] and found[-1].evidence["rule"] == "accuracy"


@pytest.mark.parametrize(
    ("knobs", "changes"),
    [
        (["learning_rate"], [{"learning_rate_factor": (1.0, 0.5)}, {"learning_rate_factor": (0.5, 0.25)}]),
        (["kl"], [{"kl_beta": (0.0, 0.02)}, {"kl_beta": (0.02, 0.04)}]),
        (["learning_rate", "kl"], [{"kl_beta": (0.0, 0.02)}, {"learning_rate_factor": (1.0, 0.5)}]),
    ],
)
def test_each_rollback_of_a_rule_changes_its_next_remedy(knobs: list[str], changes: list[dict[str, Any]]) -> None:
    """Against language drift the KL penalty comes first."""
    config, now = guarded("roll_back", knobs=knobs), NOW
    for expected in changes:
        back = decide(config, alarm("language", 5), now=now)[-1]
        assert back.changes == expected and len(back.changes) == 1
        now = replace(now, attempt=now.attempt + 1, decided=[*now.decided, back], changes=held(now.changes, [back]))


def test_it_stops_after_as_many_rollbacks_as_are_allowed_and_names_the_best_policy() -> None:
    config, now, taken = guarded("roll_back", max_rollbacks=2), replace(NOW, best=20), list[Decision]()
    for _ in range(100):
        found = decide(config, alarm(in_a_row=5), alarm("accuracy", 7), now=now)
        taken += found
        if found[-1].action == "stop":
            break
        now = replace(now, attempt=now.attempt + 1, decided=[*now.decided, *found])
    assert [one.action for one in taken] == [*(["warn", "warn", "roll back"] * 2), "warn", "warn", "stop"]
    assert taken[-1].sentence == (
        "accuracy was 1.5, and the run has gone back 2 times, as often as guard.max_rollbacks allows: the run stops; by its "
        "held-out problems the best policy is that of step 20"
    )


def test_it_stops_where_no_knob_could_help() -> None:
    """A length limit can be raised only where there is a further stage."""
    (_, stop) = decide(guarded("roll_back", knobs=["length"]), alarm("truncated_share", 5))
    assert stop.action == "stop" and "none of guard.knobs could mend it" in stop.sentence
    assert "its last good checkpoint is that of step 20" in stop.sentence


@pytest.mark.parametrize(("longest", "after"), [((48, 96), {"stage": (0, 1)}), ((96, 48), None), ((48, 48), None)])
def test_the_knob_of_the_length_never_shortens_completions(
    longest: tuple[int, int], after: dict[str, Any] | None
) -> None:
    """As in FastCuRL, whose third stage is shorter than the second; then the next knob is turned."""
    config = guarded("roll_back")
    content = config.model_dump(mode="json")
    content["rollout"]["max_completion_tokens"] = max(longest)
    content["rollout"]["stages"] = [
        {"max_completion_tokens": longest[0], "until": {"step": 50}},
        {"max_completion_tokens": longest[1]},
    ]
    found = decide(RunConfig.model_validate(content), alarm("truncated_share", 5))[-1]
    assert found.changes == (after or {"learning_rate_factor": (1.0, 0.5)})


def back(attempt: int, to_step: int, changes: dict[str, tuple[Any, Any]]) -> Decision:
    return Decision(30, attempt, "guard", "roll back", changes, {"rule": "accuracy"}, "", to_step)


def test_changes_hold_after_a_deeper_rollback_and_are_applied_once() -> None:
    decided = [back(1, 20, {"learning_rate_factor": (1.0, 0.5)}), back(2, 0, {"kl_beta": (0.0, 0.02)})]
    assert held(Changes(), decided) == Changes(learning_rate_factor=0.5, kl_beta=0.02), "from the start model"
    assert held(held(Changes(), decided), decided) == held(Changes(), decided)
    assert held(Changes(stage=3), [back(1, 20, {"stage": (0, 1)})]).stage == 3, "a stage is never taken back"


def test_a_rollback_is_pending_until_an_attempt_has_begun() -> None:
    warning = Decision(30, 2, "guard", "warn", {}, {"rule": "accuracy"}, "")
    decided = [back(1, 20, {}), back(2, 10, {})]
    assert pending_rollback([], 0) is None and pending_rollback([warning], 2) is None
    assert pending_rollback(decided[:1], 1) == 20 and pending_rollback(decided[:1], 2) is None
    assert pending_rollback(decided, 2) == 10 and pending_rollback(decided, 3) is None
    assert len(rollbacks([*decided, warning])) == 2
