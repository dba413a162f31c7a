"""`python -m launch.performance.waits RUN`: where a run's time went, and how much of it each side had nothing to do.

Reads what the run wrote; the first steps (`--skip`, default 2) are left out: they compile and fill caches.
"""

import sys
from pathlib import Path

from launch.cli.command import command
from launch.cli.options import Parser
from launch.performance.report import Figure, report
from launch.performance.workload import asked
from openrs_ray.config.names import find_run
from openrs_ray.errors import UserError
from openrs_ray.run.metrics import FILE, read_metrics

_SECONDS = ("step_s", "collect_s", "train_s", "push_s")
_SHARES = ("rollout_wait_share", "learner_wait_share")


@command
def main(arguments: list[str]) -> None:
    parser = Parser("performance.waits", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run: its folder, or its name")
    parser.add_argument("--skip", type=int, default=2, help="leave out so many first steps (default: 2)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args(arguments)
    options.run = find_run(options.run)
    if not (options.run / FILE).is_file():
        raise UserError(f"{options.run} is no run's folder: it has no {FILE}")
    steps = [line for line in read_metrics(options.run) if line["step"] > options.skip]
    if not steps or any(name not in line for line in steps for name in (*_SECONDS, *_SHARES)):
        raise UserError(
            f"the run in {options.run} has no step after the first {options.skip} that says how long it waited: let it run on, "
            "or lower --skip"
        )
    figures = [Figure(name, "s", tuple(line[name] for line in steps)) for name in _SECONDS]
    figures += [Figure(name, "share", tuple(line[name] for line in steps)) for name in _SHARES]
    report(f"Waiting: {len(steps)} steps of {options.run.name}", asked(options), figures, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
