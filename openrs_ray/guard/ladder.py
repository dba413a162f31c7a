"""The ladder of the guard: a broken rule is first a warning, then a rollback with one setting changed, then the end of the run.

The number of decisions is bounded: one warning for each rule between two rollbacks, and `guard.max_rollbacks` rollbacks.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from openrs_ray.config.guard import Knob
from openrs_ray.config.schema import RunConfig
from openrs_ray.guard.alarms import Alarm
from openrs_ray.guard.knobs import ROLL_BACK, change, chosen_knob, rollbacks
from openrs_ray.run.decisions import Decision
from openrs_ray.run.step_settings import Changes

WARN, STOP = "warn", "stop"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on, besides the alarms."""

    step: int
    """Last finished step."""
    attempt: int
    changes: Changes
    decided: Sequence[Decision]
    """So far, over the whole run."""
    checkpoints: Collection[int]
    """Steps that the run can go back to."""
    policies: Collection[int]
    """Steps of kept policies that it cannot go back to: the learner's state is gone."""
    doubtful: Collection[int]
    """Policy versions that alarms are about."""
    best: int | None
    """Step of the kept policy with the best held-out figures; None where none is known."""


def decisions(alarms: Sequence[Alarm], config: RunConfig, now: Situation) -> Iterator[Decision]:
    """Warnings of rules that are broken for the first time, then at most one rollback or stop."""
    warned = _warned(now.decided)
    for alarm in alarms:
        if alarm.rule not in warned:
            yield _decision(now, alarm, WARN, f"{alarm.text}: the guard watches whether it lasts")
    acute = [alarm for alarm in alarms if _is_acute(alarm, config)]
    if acute:
        yield _cure(max(acute, key=lambda alarm: alarm.in_a_row), config, now)


def last_good(now: Situation) -> int:
    """The newest checkpoint that no alarm is about; 0, the start model, where there is none."""
    return max((step for step in now.checkpoints if step not in now.doubtful), default=0)


def _warned(decided: Sequence[Decision]) -> set[str]:
    """Rules that have warned since the last rollback."""
    warned: set[str] = set()
    for decision in decided:
        if decision.by == "guard":
            warned = warned | {decision.evidence["rule"]} if decision.action == WARN else set()
    return warned


def _is_acute(alarm: Alarm, config: RunConfig) -> bool:
    guard = config.guard
    return guard.action_of(alarm.rule) == "roll_back" and alarm.in_a_row >= guard.rule(alarm.rule).patience


def _cure(alarm: Alarm, config: RunConfig, now: Situation) -> Decision:
    """A rollback, or the end where the run may not go back again, or has no setting that could help."""
    done, most = len(rollbacks(now.decided)), config.guard.max_rollbacks
    knob, back = chosen_knob(alarm.rule, config, now.changes, now.decided), last_good(now)
    if done >= most or knob is None or _better_policies(now, back):
        return _decision(now, alarm, STOP, f"{alarm.text}, and {_why_not(done, most, knob)}: {_what_is_left(now)}")
    changes, clause = change(knob, config, now.changes)
    place = f"the checkpoint of step {back}" if back else "the start model"
    sentence = (
        f"{alarm.text}: the run goes back to {place}, and from there on {clause} ({done + 1} of {most} rollbacks)"
    )
    return replace(_decision(now, alarm, ROLL_BACK, sentence), changes=dict(changes), to_step=back)


def _better_policies(now: Situation, back: int) -> list[int]:
    """Steps of the policies that no alarm is about, where the run would lose all of them by beginning anew."""
    return [] if back else sorted(step for step in now.policies if step not in now.doubtful)


def _why_not(done: int, most: int, knob: Knob | None) -> str:
    if done >= most:
        return f"the run has gone back {done} times, as often as guard.max_rollbacks allows"
    if knob is None:
        return "none of guard.knobs could mend it"
    return "going back to the start model would delete the good policies, which have no learner's state any more"


def _what_is_left(now: Situation) -> str:
    if now.best is not None:
        return f"the run stops; by its held-out problems the best policy is that of step {now.best}"
    if good := last_good(now):
        return f"the run stops; its last good checkpoint is that of step {good}"
    if policies := _better_policies(now, back=0):
        return f"the run stops; its last good policy is that of step {policies[-1]}"
    return "the run stops"


def _decision(now: Situation, alarm: Alarm, action: str, sentence: str) -> Decision:
    evidence = {name: value for name, value in asdict(alarm).items() if name != "text"}
    return Decision(now.step, now.attempt, "guard", action, {}, evidence, sentence)
