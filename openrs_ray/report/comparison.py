"""Several runs beside the first: differences on the same held-out problems, and the settings in which they differ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openrs_ray.common.files import read_json
from openrs_ray.config.names import CONFIG
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation.gain import checked_tasks, recorded_scores
from openrs_ray.evaluation.paired import Pair, Paired, compare, corrected
from openrs_ray.report.headline import difference
from openrs_ray.report.settings import compared, texts
from openrs_ray.run.completion_files import current_files


def comparison(runs: Sequence[Path]) -> dict[str, Any] | None:
    """None for a single run. P-values are corrected by Holm over the runs."""
    if len(runs) < 2:
        return None
    configs = [texts(read_json(run / CONFIG) or {}) for run in runs]
    found: dict[str, Paired] = {}
    problems, rows = {}, []
    for place, run in enumerate(runs[1:], start=1):
        try:
            pair = _pair(run, runs[0])
            found[str(place)], problems[str(place)] = compare([pair]), len(pair.ours)
        except (RunError, UserError, ValueError) as error:
            rows.append({"run": place, "fault": str(error)})
    rows += [{"run": int(place), **difference(paired, problems[place])} for place, paired in corrected(found).items()]
    return {"paired": sorted(rows, key=lambda row: int(row["run"])), "settings": compared(configs)}


def _pair(ours: Path, theirs: Path) -> Pair:
    """The last evaluations of two runs. RunError unless they have the same problems."""
    sides = []
    for run in (ours, theirs):
        step = max((file.step for file in current_files(run, "evaluation")), default=0)
        if not step:
            raise RunError(f"{run.name} has no evaluation of a trained policy yet")
        content = read_json(run / CONFIG)
        tasks = checked_tasks(RunConfig.model_validate(content)) if content else None
        sides.append((recorded_scores(run, step, tasks), _texts(run, step, tasks)))
    if sides[0][1] != sides[1][1]:
        raise RunError(f"{ours.name} and {theirs.name} were evaluated on other problems")
    scores = [np.asarray(side[0]) for side in sides]
    return Pair(scores[0], scores[1])


def _texts(run: Path, step: int, tasks: list[str] | None) -> list[str]:
    columns = ["problem_index", "problem", *(["task"] if tasks is not None else [])]
    files = [file for file in current_files(run, "evaluation") if file.step == step]
    rows = [row for file in files for row in file.read(columns).to_pylist() if tasks is None or row["task"] in tasks]
    texts = {row["problem_index"]: row["problem"] for row in rows}
    return [texts[index] for index in sorted(texts)]
