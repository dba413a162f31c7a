"""`python -m launch.performance.guard [RUN ...]`: asks the guard's rules about finished runs.

Of each run: how often each rule would have raised an alarm, the first step at which the guard would have gone back, and how near
the figure came to the rule's limit (0: where the run began, 1: at the limit). The limits are those of the run's section `guard`,
or of the fields given with --rules. With --seeds it first trains the recipe (default: the quickstart) once for each seed, with a
guard that only watches; a finished run in --folder is used again:
    --seeds 42 43 44 --fields run.steps=40 --rules guard.accuracy.limit=0.1
"""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from launch.cli.command import command
from launch.cli.numbers import whole
from launch.cli.options import Parser
from launch.performance.learning import train, trial
from launch.performance.report import Figure, add_json, asked, measured, write
from openrs_ray.common.console import say, show_table
from openrs_ray.config.load import load_config
from openrs_ray.config.names import find_run, runs_folder
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.guard.rules import MEASURES
from openrs_ray.guard.watch import Watch
from openrs_ray.run.metrics import read_metrics

_PHASES = ("train", "evaluation")
"""Of one step in this order."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The rules' answers about one run."""

    name: str
    steps: int
    alarms: Counter[str]
    """Steps and evaluations that broke a rule, by rule."""
    back: int | None
    """First step at which the guard would have gone back; None: never."""
    nearest: dict[str, float]


def watched(run: Path, rules: Sequence[str]) -> Watched:
    """The answers about a run's recorded figures, as if the guard had only watched. UserError where a field is wrong."""
    if not read_metrics(run):
        raise UserError(f"{run} has no figures of a finished step (metrics.jsonl): there is nothing to look at")
    config = load_config(run, ["--guard.action=roll_back", *(f"--{field}" for field in rules)])
    watch, alarms, back = Watch(config), Counter[str](), None
    lines = [(line["step"], late, line) for late, phase in enumerate(_PHASES) for line in read_metrics(run, phase)]
    for step, late, line in sorted(lines, key=lambda each: each[:2]):
        for alarm in watch.evaluation(line) if late else watch.step(line):
            alarms[alarm.rule] += 1
            if back is None and _goes_back(config, alarm.rule, alarm.in_a_row):
                back = step
    return Watched(run.name, sum(not late for _, late, _ in lines), alarms, back, watch.nearest)


def _goes_back(config: RunConfig, rule: str, in_a_row: int) -> bool:
    guard = config.guard
    return guard.action_of(rule) == "roll_back" and in_a_row >= guard.rule(rule).patience


def table(runs: Sequence[Watched]) -> Table:
    shown = Table(
        title=f"The guard's rules over {len(runs)} run{'s' * (len(runs) != 1)}",
        caption="-: no such figure, or none kept",
    )
    for heading in ("rule", "nearest to its limit", "median of the runs", "steps beyond it", "runs with an alarm"):
        shown.add_column(heading)
    for rule in (*MEASURES, "held_out"):
        near = sorted(run.nearest[rule] for run in runs if rule in run.nearest)
        nearest = (f"{near[-1]:.2f}", f"{near[len(near) // 2]:.2f}") if near else ("-", "-")
        shown.add_row(
            rule, *nearest, f"{sum(run.alarms[rule] for run in runs)}", f"{sum(run.alarms[rule] > 0 for run in runs)}"
        )
    return shown


def figures(runs: Sequence[Watched]) -> list[Figure]:
    """One value per run."""
    made = [Figure("steps", "steps", tuple(float(run.steps) for run in runs))]
    for rule in MEASURES:
        if all(rule in run.nearest for run in runs):
            made.append(Figure(f"{rule}: nearest to its limit", "0 to 1", tuple(run.nearest[rule] for run in runs)))
    made.append(Figure("alarms", "steps", tuple(float(run.alarms.total()) for run in runs), "0 in healthy runs"))
    return made


@command
def main(arguments: list[str]) -> int:
    parser = Parser("performance.guard", __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="*", help="finished runs: their folders, or their names")
    parser.add_argument("--recipe", default="quickstart", help="default: quickstart")
    parser.add_argument(
        "--seeds", type=whole(0, 2**63 - 1), nargs="+", default=[], help="train the recipe with these first"
    )
    parser.add_argument("--fields", nargs="+", default=[], metavar="FIELD=VALUE", help="what the training changes")
    parser.add_argument("--rules", nargs="+", default=[], metavar="FIELD=VALUE", help="fields of the section guard")
    parser.add_argument("--folder", type=Path, default=runs_folder(), help="folder of the runs that are trained")
    add_json(parser)
    return measured(_measure, parser.parse_args(arguments))


def _measure(options: Namespace) -> None:
    console, runs = Console(highlight=False), [find_run(run) for run in options.runs]
    for seed in options.seeds:
        one = trial(options.recipe, ["healthy", "guard.action=warn", *options.fields], seed, options.folder)
        if not one.finished:
            train(one)
        runs.append(one.folder)
    if not runs:
        raise UserError("nothing to look at: name runs, or give --seeds to train some")
    found = []
    for run in runs:
        found.append(watched(run, options.rules))
        said = ", ".join(f"{rule} {count}" for rule, count in found[-1].alarms.items()) or "no alarm"
        back = f"; would have gone back after step {found[-1].back}" if found[-1].back is not None else ""
        say(console, f"{run.name}, {found[-1].steps} steps: {said}{back}")
    show_table(console, table(found))
    write(f"The guard's rules over {len(found)} runs", asked(options), figures(found), options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
