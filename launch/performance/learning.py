"""`python -m launch.performance.learning`: compares settings of a recipe by held-out accuracy and by the time of a step.

Trains the recipe (default: the quickstart) once for each seed and variant, one after the other, each in a process of its own;
the first variant is the baseline. A variant is a name and the fields that it changes:
    --seeds 42 43 44 --variant full --variant lora learner.lora.rank=8 learner.learning_rate=1e-3
A finished run in --folder is used again. Its name holds a digest of its settings, but not of the code: give another --folder to
train anew. Accuracies are those of the held-out problems. Their intervals cover the choice of problems and the sampling of
answers, but not what differs between runs, which may be much more. The table therefore shows each variant's lowest and highest
seed and, from three seeds on, an interval over the seeds (Student's t) for the difference to the baseline: quote that one.
"""

import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from launch.api.commands import run_command
from launch.cli.command import command
from launch.cli.numbers import whole
from launch.cli.options import Parser
from launch.performance.report import Figure, add_json, asked, measured, write
from openrs_ray.common.console import say, show_table
from openrs_ray.config.load import load_config
from openrs_ray.config.names import runs_folder
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation.gain import recorded_scores
from openrs_ray.evaluation.paired import Pair, Paired, compare
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import read_result
from openrs_ray.stats import Interval, mean_interval, student_interval

_FEWEST_SEEDS = 3
"""With fewer, an interval over seeds says next to nothing."""
_HEADINGS = (
    *("start", "end", "lowest, highest seed", "paired difference (points)", "over the seeds", "s/step"),
    *("largest mismatch KL", "mean age", "runs"),
)


@dataclass(frozen=True, eq=False)
class Trial:
    """One variant with one seed; its run may be finished."""

    variant: str
    config: RunConfig
    arguments: tuple[str, ...]
    """Of `launch.train`."""

    @property
    def folder(self) -> Path:
        return self.config.run.path

    @property
    def finished(self) -> bool:
        result = read_result(self.folder) if self.folder.exists() else None
        return result is not None and result.step == self.config.run.steps

    @cached_property
    def steps(self) -> list[dict[str, Any]]:
        return read_metrics(self.folder)

    def scores(self, step: int) -> np.ndarray:
        """float [problems, samples]; NaN where not judged."""
        return recorded_scores(self.folder, step, None)

    @property
    def accuracy(self) -> float:
        """After the last step."""
        return float(np.nanmean(self.scores(self.config.run.steps)))

    def figures(self, name: str) -> list[float]:
        """A figure of metrics.jsonl, for each step that has it."""
        return [line[name] for line in self.steps if line.get(name) is not None]


def trial(recipe: str, variant: Sequence[str], seed: int, folder: Path) -> Trial:
    """The trial of a variant and seed. UserError if the recipe cannot take the variant's fields or has no held-out problems."""
    name, *fields = variant
    own = [*(f"--{field}" for field in fields), f"--run.seed={seed}", f"--run.folder={folder.absolute()}"]
    config = load_config(recipe, [*own, f"--run.name={name}"])
    if not any(task.held_out.path or task.held_out.hold_out for task in config.tasks):
        raise UserError(f"the recipe {recipe} has no held-out problems to compare on: give evaluation.path or hold_out")
    settings = config.model_dump(mode="json", exclude={"run": {"name", "folder"}})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    arguments = [recipe, "--resume", *own, f"--run.name=learning-{name}-{seed}-{digest}"]
    return Trial(name, load_config(recipe, [*own, arguments[-1]]), tuple(arguments))


def train(trial: Trial) -> None:
    """Train to the end, with the command's output in a log beside the run's folder. RunError when it fails."""
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    with trial.folder.with_suffix(".log").open("a", encoding="utf-8") as log, redirect_stdout(log):
        run_command("train", trial.arguments)


def pooled(trials: Sequence[Trial], last: bool) -> np.ndarray:
    """Scores before the first step or after the last, [problems, samples of all seeds]."""
    return np.concatenate([one.scores(one.config.run.steps if last else 0) for one in trials], axis=1)


def difference(ours: Sequence[Trial], theirs: Sequence[Trial]) -> Paired | None:
    """Paired difference after the last step, over the seeds that both have; None if they have none in common."""
    seeds = {one.config.run.seed for one in ours} & {one.config.run.seed for one in theirs}
    sides = [[one for one in side if one.config.run.seed in seeds] for side in (ours, theirs)]
    if not seeds:
        return None
    pair = Pair(*(pooled(side, last=True) for side in sides))
    if len(pair.ours) != len(pair.theirs):
        raise RunError(f"{ours[0].variant} and {theirs[0].variant} were not evaluated on the same problems")
    return compare([pair])


def over_seeds(ours: Sequence[Trial], theirs: Sequence[Trial]) -> Interval | None:
    """Mean difference of the accuracies after the last step, with its interval over the seeds; None with fewer than three."""
    ends = [{one.config.run.seed: one.accuracy for one in side} for side in (ours, theirs)]
    differences = [ends[0][seed] - ends[1][seed] for seed in sorted(ends[0].keys() & ends[1].keys())]
    return student_interval(np.array(differences)) if len(differences) >= _FEWEST_SEEDS else None


def points(interval: Interval) -> str:
    return f"{100 * interval.mean:+z.1f} [{100 * interval.low:+z.1f}, {100 * interval.high:+z.1f}]"


def row(trials: Sequence[Trial], baseline: Sequence[Trial]) -> list[str]:
    start, end = (mean_interval(pooled(trials, last)) for last in (False, True))
    ends = [one.accuracy for one in trials]
    paired = None if trials is baseline else difference(trials, baseline)
    seeds = None if trials is baseline else over_seeds(trials, baseline)
    ages = [mean(values) for one in trials if (values := one.figures("age_mean"))]
    return [
        str(start),
        str(end),
        f"{100 * min(ends):.1f}, {100 * max(ends):.1f} %",
        points(paired.difference) if paired else "",
        points(seeds) if seeds else "",
        f"{median(value for one in trials for value in one.figures('step_s')):.3g}",
        f"{max(value for one in trials for value in one.figures('mismatch_kl')):.2g}",
        f"{mean(ages):.2f}" if ages else "",
        " ".join(one.config.run.name for one in trials),
    ]


def table(title: str, variants: dict[str, list[Trial]]) -> Table:
    shown = Table(title=title)
    for heading in ("variant", *_HEADINGS):
        shown.add_column(heading)
    baseline = next(iter(variants.values()))
    for name, trials in variants.items():
        shown.add_row(name, *row(trials, baseline))
    return shown


def figures(variants: dict[str, list[Trial]]) -> list[Figure]:
    """Figures for the JSON file: one value per seed; intervals as (mean, low, high)."""
    baseline, made = next(iter(variants.values())), []
    for name, trials in variants.items():
        for when, last in (("start", False), ("end", True)):
            interval = mean_interval(pooled(trials, last))
            made.append(Figure(f"{name}: accuracy at the {when}", "share, 95 %", _values(interval)))
        if trials is not baseline and (paired := difference(trials, baseline)):
            made.append(Figure(f"{name}: paired difference", "share, 95 %", _values(paired.difference)))
        if trials is not baseline and (seeds := over_seeds(trials, baseline)):
            made.append(Figure(f"{name}: difference over the seeds", "share, 95 %", _values(seeds)))
        for figure, of, unit in (
            *(("step_s", median, "s/step"), ("mismatch_kl", max, "largest"), ("age_mean", mean, "versions")),
            *(("effective_sample_share", min, "smallest"), ("masked_sequence_share", mean, "mean")),
        ):
            values = tuple(float(of(found)) for one in trials if (found := one.figures(figure)))
            made += [Figure(f"{name}: {figure}", unit, values)] if values else []
    return made


def _values(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


@command
def main(arguments: list[str]) -> int:
    parser = Parser("performance.learning", __doc__)
    parser.add_argument("--recipe", default="quickstart", help="default: quickstart")
    parser.add_argument("--seeds", type=whole(0, 2**63 - 1), nargs="+", default=[42], help="default: 42")
    parser.add_argument(
        "--variant",
        action="append",
        nargs="+",
        metavar=("NAME", "FIELD=VALUE"),
        help="a name and the fields that it changes; the first variant is the baseline (default: the recipe as it is)",
    )
    parser.add_argument(
        "--folder", type=Path, default=runs_folder(), help="folder of the runs (default: that of all runs)"
    )
    add_json(parser)
    return measured(_measure, parser.parse_args(arguments))


def _measure(options: Namespace) -> None:
    chosen = options.variant or [["as-it-is"]]
    if len({name for name, *_ in chosen}) < len(chosen):
        raise UserError("two variants have the same name: give each its own")
    planned = [trial(options.recipe, variant, seed, options.folder) for seed in options.seeds for variant in chosen]
    console = Console(highlight=False)
    variants: dict[str, list[Trial]] = {name: [] for name, *_ in chosen}
    failed: dict[str, str] = {}
    for one in planned:
        about = f"{one.variant}, seed {one.config.run.seed}"
        try:
            if not one.finished:
                train(one)
            variants[one.variant].append(one)
            end = mean_interval(one.scores(one.config.run.steps))
            say(console, f"{about}: {mean_interval(one.scores(0))} -> {end}")
        except (UserError, RunError) as error:  # such as a collapse; the other variants still count
            failed[about] = str(error)
            say(console, f"{about} failed, its log is {one.folder.with_suffix('.log')}: {error}")
    variants = {name: trials for name, trials in variants.items() if trials}
    if not variants:
        raise RunError("every variant failed; the logs named above say why")
    title = f"Learning: {options.recipe}, seeds {' '.join(map(str, options.seeds))}"
    show_table(console, table(title, variants))
    write(title, asked(options) | {"failed": failed}, figures(variants), options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
