"""The headline of a run: accuracy before and after, their difference, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.gain import checked_tasks, gain
from openrs_ray.evaluation.paired import Paired
from openrs_ray.report.decided import counts
from openrs_ray.run.account import Spent
from openrs_ray.run.teacher_score import teacher_score

_LEVEL = 0.05
"""Of the tests, as of the intervals."""


def headline(
    run: Path, config: RunConfig | None, train: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """`train`, `evaluations`: the lines of `metrics.jsonl` that count."""
    before, after = _ends(evaluations)
    teacher = teacher_score(run, config)
    return {
        "before": before and _interval(before),
        "after": after and _interval(after) | {"step": after["step"]},
        "teacher": _interval(teacher) if teacher and teacher.get("accuracy") is not None else None,
        "tasks": _tasks(evaluations),
        "samples": config.evaluation.samples if config else None,
        "tokens": int(sum(line.get("sampled_tokens") or 0 for line in train)),
        "training_s": round(sum(line.get("step_s") or 0.0 for line in train), 1),
        **_cost(run, config),
        **counts(run),
    }


def last_gain(run: Path, config: RunConfig | None, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The newest evaluation against the start model's, as in the table at a run's end; takes a second."""
    before, after = _ends(evaluations)
    if config is None or before is None or after is None:
        return None
    try:
        return difference(*gain(run, after["step"], checked_tasks(config)))
    except RunError as error:
        return {"fault": str(error)}


def _ends(evaluations: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The start model's evaluation, and the newest one of a trained policy."""
    known = [line for line in evaluations if line.get("accuracy") is not None]
    before = next((line for line in known if line["step"] == 0), None)
    return before, known[-1] if known and known[-1]["step"] > 0 else None


def difference(paired: Paired, problems: int) -> dict[str, Any]:
    """As the page shows it: the interval holds 0 exactly where the test alone does not refuse it; the correction may, too."""
    interval = asdict(paired.difference)
    shown = (interval["low"] > 0 or interval["high"] < 0) and paired.corrected <= _LEVEL
    return interval | {
        "p": paired.p,
        "corrected": paired.corrected,
        "problems": problems,
        "significant": shown,
        "unjudged": paired.bounds is not None,
    }


def _interval(line: Mapping[str, Any]) -> dict[str, float]:
    return {"mean": line["accuracy"], "low": line["low"], "high": line["high"]}


def _tasks(evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The start model's and the newest policy's figures of each task, where there are several."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for line in evaluations:
        for name, value in line.items():
            place, _, figure = name.rpartition("/")
            if figure in ("accuracy", "mean_reward") and (place or figure == "mean_reward"):
                low, high = (f"{place}/{end}" if place else end for end in ("low", "high"))
                score = {"mean": value, "low": line.get(low), "high": line.get(high)}
                own = found.setdefault((place.removeprefix("task/"), figure), {})
                own["after" if line["step"] else "before"] = score
    return [
        {"task": task, "figure": figure, "before": scores.get("before"), "after": scores.get("after")}
        for (task, figure), scores in found.items()
    ]


def _cost(run: Path, config: RunConfig | None) -> dict[str, Any]:
    spent = asdict(Spent.read(run))
    priced = spent["dollars"] > 0 or (config is not None and config.cost.price_per_gpu_hour is not None)
    return spent | {"dollars": spent["dollars"] if priced else None, "budget": config and config.cost.budget_usd}
