"""`python -m launch.benchmarks.waits RUN_FOLDER`: where a run's time went, and how much of it each side had nothing to do.

Reads what the run wrote; the first steps (`--skip`, default 2) are left out: they compile and fill caches.
"""

import argparse
import sys
from pathlib import Path

from launch.benchmarks.report import Figure, report
from launch.benchmarks.workload import command
from openrs_ray.errors import UserError
from openrs_ray.metrics import FILE, read_metrics

_FIELDS = {
    "step_s": "s",
    "collect_s": "s",
    "train_s": "s",
    "push_s": "s",
    "rollout_wait_share": "share",
    "learner_wait_share": "share",
}


def measure(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m launch.benchmarks.waits", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's own folder: run.folder/run.name")
    parser.add_argument("--skip", type=int, default=2, help="leave out so many first steps (default: 2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args(arguments)
    if not (options.run / FILE).is_file():
        raise UserError(f"{options.run} is no run's folder: it has no {FILE}")
    steps = [line for line in read_metrics(options.run) if line["step"] > options.skip]
    if not steps or any(name not in line for line in steps for name in _FIELDS):
        raise UserError(
            f"the run in {options.run} has no step after the first {options.skip} that says how long it waited"
        )
    figures = [Figure(name, unit, tuple(float(line[name]) for line in steps)) for name, unit in _FIELDS.items()]
    settings = {"run": str(options.run), "steps": len(steps), "skipped": options.skip}
    report(f"Waiting: {len(steps)} steps of {options.run.name}", settings, figures, options.json)


def main(arguments: list[str]) -> int:
    return command(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
