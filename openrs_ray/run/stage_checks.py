"""Checks of what a run's stages have to do with its record: prompts passed over, and the settings that rows were sampled with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.run.row_checks import Expected, Fault, Row
from openrs_ray.run.step_settings import StepSettings

SAMPLED_WITH = ("temperature", "max_completion_tokens", "stage")
"""Columns of a row; null in a record of an older version."""


def unfit(row: Row) -> bool:
    """True for a position passed over because of its prompt's length, not because its problem was at rest."""
    return row["max_prompt_tokens"] is not None


def stage_faults(
    passed: Sequence[Row],
    used: Sequence[Row],
    prompt_tokens: Sequence[int],
    config: RunConfig,
    order: Mixture,
    expected: Expected,
    figures: Mapping[int, Mapping[str, Any]],
) -> Iterator[Fault]:
    """Faults of all steps.

    Args:
        passed: rows of positions passed over; `used`: of completions trained on or replaced.
        prompt_tokens: length of each problem's prompt; empty where no stage goes by them.
        figures: lines of `metrics.jsonl` by step, which have the settings of each step.
    """
    settings = {step: StepSettings.recorded(line, config) for step, line in figures.items()}
    for row in filter(unfit, passed):
        if fault := _passed_fault(row, prompt_tokens, order, settings):
            yield fault, f"step {row['step']} position {row['position']}"
    for row in used:
        first = row["step"] - expected.settings(row["attempt"]).staleness
        known = [settings[step] for step in range(first, row["step"] + 1) if step in settings]
        for fault in _used_faults(row, known, prompt_tokens):
            yield fault, f"step {row['step']} position {row['position']} sample {row['sample']}"


def _passed_fault(
    row: Row, prompt_tokens: Sequence[int], order: Mixture, settings: Mapping[int, StepSettings]
) -> str | None:
    place = order.place(row["position"])
    if (row["task"], row["problem_index"], row["epoch"]) != (place.task, place.problem, place.epoch):
        return "positions passed over under another problem than the order has"
    if place.problem >= len(prompt_tokens) or row["prompt_tokens"] != prompt_tokens[place.problem]:
        return "positions passed over for a prompt of another length than the problem has"
    # Drawn since the step before was taken: to replace groups then, or for this step.
    known = [settings[step] for step in (row["step"] - 1, row["step"]) if step in settings]
    allowed = [(each.min_prompt_tokens, each.max_prompt_tokens) for each in known]
    least, most = row["min_prompt_tokens"], row["max_prompt_tokens"]
    if least <= row["prompt_tokens"] <= most or (allowed and (least, most) not in allowed):
        return "positions passed over although their prompt fitted the stage"
    return None


def _used_faults(row: Row, known: Sequence[StepSettings], prompt_tokens: Sequence[int]) -> Iterator[str]:
    """`known`: settings of the steps that may have admitted the row."""
    if not known:
        return
    found = tuple(row[name] for name in SAMPLED_WITH)
    allowed = {(each.temperature, each.max_completion_tokens, each.stage) for each in known}
    if found[0] is not None and (*found[:2], found[2] or 0) not in allowed:
        yield "rows sampled with settings that no step had"
    if found[1] is not None and row["tokens"] > found[1]:
        yield "rows longer than what they were sampled with allows"
    tokens = prompt_tokens[row["problem_index"]] if prompt_tokens else None
    if tokens is not None and not any(each.min_prompt_tokens <= tokens <= each.max_prompt_tokens for each in known):
        yield "positions used although their prompt did not fit the stage"
