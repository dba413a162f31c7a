"""Checks of the positions that a run passed over: each must follow from the results recorded until it was drawn."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.data.rests import RestRule, Rests, Streaks, outcome
from openrs_ray.records import Status
from openrs_ray.run.row_checks import Expected, Fault, Row


def rest_faults(
    rested: Sequence[Row], used: Sequence[Row], config: RunConfig, order: Mixture, expected: Expected
) -> Iterator[Fault]:
    """Faults of all steps. `rested`: rows of positions passed over; `used`: rows of completions trained on or replaced."""
    rules = {task.name: RestRule(task.data.rest_after, task.data.rest_for) for task in config.tasks}
    known = _streaks_by_step(used, Rests(order, config.tasks))
    for row in rested:
        if fault := _fault(row, rules, order, known, expected):
            yield fault, f"step {row['step']} position {row['position']}"
    for row in used:
        if row["sample"] or expected.settings(row["attempt"]).staleness:
            continue  # what was known when a position was drawn is certain only where steps take turns
        place = order.place(row["position"])
        rule, streak = rules[place.task], known.get(row["step"] - 1, {}).get(place.problem)
        if rule.after and streak and rule.rests(streak, place.epoch):
            yield "positions used although their problem was at rest", f"step {row['step']} position {row['position']}"


def _fault(row: Row, rules: dict[str, RestRule], order: Mixture, known: dict[int, Streaks], expected: Expected) -> str:
    place = order.place(row["position"])
    if (row["task"], row["problem_index"], row["epoch"]) != (place.task, place.problem, place.epoch):
        return "positions passed over under another problem than the order has"
    if not 0 <= row["step"] - 1 - row["after_step"] <= expected.settings(row["attempt"]).staleness:
        return "positions passed over by results that were not due"
    streak = known.get(row["after_step"], {}).get(place.problem)
    said = (row["visits"] if row["solved"] == "always" else -row["visits"], row["last_epoch"])
    if streak != said or not rules[place.task].after or not rules[place.task].rests(streak, place.epoch):
        return "positions passed over although their problem was not at rest"
    return ""


def _streaks_by_step(used: Sequence[Row], rests: Rests) -> dict[int, Streaks]:
    """Streaks after each step, from its rows."""
    if not rests.active:
        return {}
    steps: dict[int, dict[int, list[Status]]] = defaultdict(lambda: defaultdict(list))
    for row in used:
        steps[row["step"]][row["position"]].append(Status(row["status"]))
    streaks: Streaks = {}
    known: dict[int, Streaks] = {0: streaks}
    for step in sorted(steps):
        visits = ((position, outcome(statuses)) for position, statuses in steps[step].items())
        streaks = known[step] = rests.after_visits(streaks, visits)
    return known
