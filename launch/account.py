"""`python -m launch.account RUN_FOLDER [--csv FILE]`: the proof that each position of a run's data order was used exactly once.

Reads what the run wrote. `--csv` writes a line per position: epoch, problem, phase (train or replaced), step, attempt, policy
versions, completions.
"""

import argparse
import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openrs_ray.accounting import UsedGroup, misplaced, used_groups
from openrs_ray.config import RunConfig
from openrs_ray.data.order import Order
from openrs_ray.errors import UserError
from openrs_ray.record import check_accounting


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 every position counts once, 1 not so, 2 something to mend first."""
    parser = argparse.ArgumentParser(prog="python -m launch.account", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's own folder: run.folder/run.name")
    parser.add_argument("--csv", type=Path, help="write a line per position to this file")
    options = parser.parse_args(arguments)
    try:
        config, order = _run(options.run)
        groups = used_groups(options.run, order)
        if options.csv:
            _write(options.csv, groups)
    except (UserError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    rollout = config.rollout
    found = check_accounting(options.run, rollout.problems_per_step, rollout.completions_per_problem, rollout.staleness)
    wrong = {
        "lost": found.lost,
        "counted twice": found.doubled,
        "not due yet": found.unexpected,
        "with another problem than the order has": tuple(misplaced(groups, order)),
    }
    replaced = f", {found.replaced} of them replaced" if found.replaced else ""
    sys.stdout.write(
        f"{found.steps} steps, {len(groups)} groups{replaced}, {found.completions} completions trained on\n"
    )
    for what, positions in wrong.items():
        named = f": {', '.join(map(str, positions[:10]))}{', ...' if len(positions) > 10 else ''}" if positions else ""
        sys.stdout.write(f"positions {what}: {len(positions)}{named}\n")
    return 1 if any(wrong.values()) else 0


def _run(folder: Path) -> tuple[RunConfig, Order]:
    """The run's settings and its data order. UserError when the folder does not hold them."""
    try:
        config = RunConfig.model_validate(_read(folder / "config.json"))
        return config, Order(config.run.seed, _read(folder / "problems.json")["count"], config.data.shuffle)
    except (ValidationError, KeyError) as error:
        raise UserError(f"the run in {folder} was written by another version: account for it with that one") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path.parent} is no run's folder: {path.name} cannot be read") from error
    return content


def _write(path: Path, groups: list[UsedGroup]) -> None:
    fields = list(UsedGroup.__dataclass_fields__)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(asdict(group) | {"versions": "-".join(map(str, group.versions))} for group in groups)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
