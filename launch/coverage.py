"""`python -m launch.coverage RUN [--csv FILE]`: the proof that each position of a run's data order was used exactly once.

Reads every row in `completions/` and holds it against what else the run wrote. `--csv` writes a line per position: epoch,
problem, phase (train, replaced, or rested: passed over), step, attempt, policy versions, completions, task.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.options import Parser
from openrs_ray.common.console import json_output
from openrs_ray.common.files import read_json
from openrs_ray.config.names import find_run
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.run.coverage import Proof, UsedGroup, prove
from openrs_ray.run.problems import FILE as PROBLEMS
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.state import CONFIG, check_attempts

_SHOWN = 10
"""Most places named of each kind."""


@command
def main(arguments: list[str]) -> int:
    """Exit code 1: a position does not count once, or a row cannot be true."""
    parser = Parser("coverage", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run: its folder, or its name")
    parser.add_argument("--csv", type=Path, help="write a line per position to this file")
    parser.add_json()
    options = parser.parse_args(arguments)
    folder = find_run(options.run)
    config, problems = _run(folder)
    belongs_to(folder)
    proof = prove(folder, config, problems)
    if proof.coverage.steps == 0:
        raise UserError(f"the run in {folder} has not finished a step yet: there is nothing to prove")
    if options.csv:
        _write(options.csv, proof.groups)
    with json_output(options.json) as document:
        document(_as_json(folder, proof))
        for line in () if options.json else _lines(proof):
            sys.stdout.write(f"{line}\n")
    return 0 if proof.holds else 1


def _lines(proof: Proof) -> Iterator[str]:
    found = proof.coverage
    replaced = f", {found.replaced} of them replaced" if found.replaced else ""
    groups = [group for group in proof.groups if group.phase != "rested"]
    yield f"{found.steps} steps, {len(groups)} groups{replaced}, {found.completions} completions trained on"
    if found.rested:
        yield f"positions passed over, their problems being at rest: {found.rested}"
    if found.unfit:
        yield f"positions passed over, their prompts not fitting the stage: {found.unfit}"
    by_task = Counter(group.task for group in groups if group.task)
    if by_task:
        yield f"groups by task: {', '.join(f'{task} {by_task[task]}' for task in sorted(by_task))}"
    for kind, places in proof.wrong_positions.items():
        yield f"positions {kind}: {_named([*map(str, places)])}"
    yield f"rows checked: {proof.rows}"
    for kind, where in proof.faults.items():
        yield f"{kind}: {_named(where)}"
    if proof.unchecked:
        yield f"files of an older version, without a checksum: {proof.unchecked}"


def _as_json(folder: Path, proof: Proof) -> dict[str, Any]:
    found = proof.coverage
    trained = [group for group in proof.groups if group.phase != "rested"]
    return {
        "run": folder,
        "holds": proof.holds,
        "steps": found.steps,
        "groups": len(trained),
        "groups_by_task": Counter(group.task for group in trained if group.task),
        "groups_replaced": found.replaced,
        "completions_trained_on": found.completions,
        "positions_passed_over": found.rested,
        "positions_unfit_for_stage": found.unfit,
        "positions_lost": found.lost,
        "positions_counted_twice": found.doubled,
        "positions_not_due_yet": found.unexpected,
        "positions_with_another_problem": proof.misplaced,
        "rows_checked": proof.rows,
        "faults": proof.faults,
        "files_without_checksum": proof.unchecked,
    }


def _named(places: Sequence[str]) -> str:
    more = ", ..." if len(places) > _SHOWN else ""
    return f"{len(places)}: {', '.join(places[:_SHOWN])}{more}" if places else "0"


def _run(folder: Path) -> tuple[RunConfig, RunProblems]:
    content, problems = read_json(folder / CONFIG), RunProblems.read(folder)
    if content is None or problems is None:
        raise UserError(f"{folder} is no run's folder: {PROBLEMS if content else CONFIG} cannot be read")
    check_attempts(folder)
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(f"the run in {folder} was written by another version: check it with that one") from error
    if problems.sizes.keys() != {task.name for task in config.tasks}:
        raise UserError(f"{folder / PROBLEMS} and {folder / CONFIG} are of runs with other tasks: restore them")
    return config, problems


def _write(path: Path, groups: Sequence[UsedGroup]) -> None:
    several = any(group.task for group in groups)
    fields = [name for name in UsedGroup.__dataclass_fields__ if several or name != "task"]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(asdict(group) | {"versions": "-".join(map(str, group.versions))} for group in groups)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
