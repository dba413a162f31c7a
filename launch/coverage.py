"""`python -m launch.coverage RUN [--csv FILE]`: the proof that each position of a run's data order was used exactly once.

Reads every row of the record in `completions/` and holds it against what else the run wrote: how many steps were done and with
how many tokens (`metrics.jsonl`, `result.json`, the checkpoints' manifest), which problems it means, what each attempt allowed.
`--csv` writes a line per position: epoch, problem, phase (train or replaced), step, attempt, policy versions, completions.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.options import Parser
from openrs_ray.common.files import read_json
from openrs_ray.config.names import find_run
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Order
from openrs_ray.errors import RunError, UserError
from openrs_ray.run.audit import Expected, audit, damages
from openrs_ray.run.completions import check_accounting
from openrs_ray.run.positions import UsedGroup, misplaced, used_groups
from openrs_ray.run.problems import FILE as PROBLEMS
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.state import CONFIG, check_attempts
from openrs_ray.run.witness import Witness

_SHOWN = 10
"""Places that are named of each kind."""


@command
def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 every position counts once and every row can be true, 1 not so, 2 something to mend first."""
    parser = Parser("coverage", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run: its folder, or its name")
    parser.add_argument("--csv", type=Path, help="write a line per position to this file")
    options = parser.parse_args(arguments)
    folder = find_run(options.run)
    config, problems = _run(folder)
    belongs_to(folder)
    witness = Witness.of(folder)  # before the record, which a run that goes on adds to first
    if damaged := damages(folder):
        more = f" (and {len(damaged) - 1} more files)" if len(damaged) > 1 else ""
        raise RunError(f"{damaged[0]}{more}: what was trained on cannot be proven")
    order = Order(config.run.seed, problems.count, config.data.shuffle)
    groups = used_groups(folder, order)
    if options.csv:
        _write(options.csv, groups)
    return _report(folder, config, problems, witness, groups, misplaced(groups, order))


def _report(
    run: Path,
    config: RunConfig,
    problems: RunProblems,
    witness: Witness,
    groups: Sequence[UsedGroup],
    others: Sequence[int],
) -> int:
    rows = audit(run, Expected.of(run, config, problems.texts), witness)
    rollout = config.rollout
    found = check_accounting(
        run, rollout.problems_per_step, rollout.completions_per_problem, rows.staleness, witness.due
    )
    if found.steps == 0:
        raise UserError(f"the run in {run} has not finished a step yet: there is nothing to account for")
    wrong = {
        "lost": found.lost,
        "counted twice": found.doubled,
        "not due yet": found.unexpected,
        "with another problem than the order has": others,
    }
    replaced = f", {found.replaced} of them replaced" if found.replaced else ""
    _say(f"{found.steps} steps, {len(groups)} groups{replaced}, {found.completions} completions trained on")
    for what, positions in wrong.items():
        _say(f"positions {what}: {_named([str(position) for position in positions])}")
    _say(f"rows checked: {rows.rows}")
    for what, places in rows.faults.items():
        _say(f"{what}: {_named(places)}")
    if rows.unchecked:
        _say(f"files of an older version, without a checksum: {rows.unchecked}")
    return 1 if any(wrong.values()) or rows.faults else 0


def _named(places: Sequence[str]) -> str:
    more = ", ..." if len(places) > _SHOWN else ""
    return f"{len(places)}: {', '.join(places[:_SHOWN])}{more}" if places else "0"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _run(folder: Path) -> tuple[RunConfig, RunProblems]:
    """The run's settings and its problems. UserError when the folder does not hold them."""
    try:
        config = RunConfig.model_validate(_read(folder, CONFIG))
    except ValidationError as error:
        raise UserError(f"the run in {folder} was written by another version: account for it with that one") from error
    _read(folder, PROBLEMS)
    problems = RunProblems.read(folder)
    assert problems is not None, "it was just read"
    check_attempts(folder)
    return config, problems


def _read(folder: Path, name: str) -> dict[str, object]:
    content = read_json(folder / name)
    if content is None:
        raise UserError(f"{folder} is no run's folder: {name} cannot be read")
    return content


def _write(path: Path, groups: Sequence[UsedGroup]) -> None:
    fields = list(UsedGroup.__dataclass_fields__)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(asdict(group) | {"versions": "-".join(map(str, group.versions))} for group in groups)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
