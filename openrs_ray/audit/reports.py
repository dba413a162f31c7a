"""Computes the figures in `launch.evaluate`'s reports again, from the completions beside them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openrs_ray.audit.compare import compare_figures
from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun
from openrs_ray.common.files import read_json
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation.figures import Samples, figures
from openrs_ray.evaluation.paired import Pair
from openrs_ray.evaluation.store import CompletionStore, as_table
from openrs_ray.evaluation.subject import START

_WITHOUT_CLUSTERS = ("problems", "samples", "one_run", "mean_tokens", "truncated_share", "english_share", "unjudged")
"""Figures that are the same however problems belong together, which the completions do not say."""


def check_reports(run: AuditedRun, check: Check) -> int:
    """Returns the number of reports."""
    reports = sorted((run.folder / "evaluation").glob("*/*/report.json"))
    for path in reports:
        try:
            content = read_json(path) or {}
            samples = dict(_samples(path, content))
            for (label, benchmark), taken in samples.items():
                _check_figures(check, run.name(path), content, label, benchmark, taken)
            _check_differences(check, run.name(path), content, samples)
        except (KeyError, TypeError, AttributeError, ValueError, UserError, RunError) as error:
            check.find(run.name(path), f"it does not fit the completions beside it ({type(error).__name__}: {error})")
    return len(reports)


def _samples(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Samples]]:
    """Completions by model and benchmark: of the model that the folder is named after, and of its start model."""
    first = next(iter(content["models"]))
    folders = {first: path.parent, START: path.parent.parent / re.sub(r"[^A-Za-z0-9._-]+", "-", START)}
    for label, by_name in content["models"].items():
        for benchmark, told in by_name.items() if label in folders else ():
            rows = CompletionStore(folders[label]).rows(benchmark)
            table = as_table(rows, told["problems"], told["samples"])
            unknown = np.full(table.tokens.shape, -1)  # the classes of answers, which no figure below depends on
            yield (label, benchmark), Samples(table.correct(), unknown, table.tokens, table.truncated, table.english)


def _check_figures(
    check: Check, name: str, content: Mapping[str, Any], label: str, benchmark: str, taken: Samples
) -> None:
    told: dict[str, Any] = content["models"][label][benchmark]
    found = figures(taken, content.get("settings", {}).get("max_unjudged_share", 0.1)).as_json()
    expected = {each: found[each] for each in _WITHOUT_CLUSTERS if found[each] is not None}
    compare_figures(check, name, told, expected, None)
    means = {"average": found["average"]} | {f"pass@{k}": interval for k, interval in found["pass_at"].items()}
    there = {"average": told["average"]} | {f"pass@{k}": interval for k, interval in told.get("pass_at", {}).items()}
    for figure, interval in means.items():
        if there.get(figure) and interval:
            where = f"{label}, {benchmark}, {figure}: mean"
            compare_figures(check, name, {where: there[figure]["mean"]}, {where: interval["mean"]}, None)
    average = told["average"]
    if (average is None) != (found["average"] is None):
        check.find(
            name, f"{label}, {benchmark}: the average is {found['average']} by the completions, and it has {average}"
        )
    if average and not average["low"] <= average["mean"] <= average["high"]:
        check.find(name, f"the interval of {benchmark} does not hold its mean")
    if told.get("sampling") and found["sampling"]:
        compare_figures(check, name, told["sampling"], found["sampling"], None)


def _check_differences(
    check: Check, name: str, content: Mapping[str, Any], samples: Mapping[tuple[str, str], Samples]
) -> None:
    """Mean differences from the start model; those of a sequential comparison are means of other problems."""
    for label, by_name in content.get("against_start_model", {}).items():
        for benchmark, told in by_name.items() if "until_decided" not in content else ():
            ours, theirs = samples.get((label, benchmark)), samples.get((START, benchmark))
            if ours and theirs:
                mean = float(Pair(ours.correct, theirs.correct).differences()[0].mean())
                where = f"{label}, {benchmark}: the difference"
                compare_figures(check, name, {where: told["difference"]["mean"]}, {where: mean}, None)
