"""`python -m launch.audit RUN [--head DIGEST]`: what a run's record proves, checked by anybody on a CPU.

Verifies the chain of digests over all that the run has written (RUN/ledger), judges every completion again, computes
advantages, losses and figures again, and scores a sample of completions with the kept policies. docs/audit.md says what each
check shows, and what none can.
"""

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.numbers import whole
from launch.cli.options import Parser
from openrs_ray.audit.audit import UNPROVEN, Asked, audit
from openrs_ray.audit.findings import Check, of_all
from openrs_ray.common.console import json_output, say, show_table
from openrs_ray.config.names import CONFIG, find_run
from openrs_ray.errors import UserError
from openrs_ray.run.ledger import FILE, read_head


@command
def main(arguments: list[str]) -> int:
    """Exit code 1: something is not as it should be, and is named."""
    options = _parser().parse_args(arguments)
    folder = find_run(options.run).absolute()
    if not any((folder / name).exists() for name in (CONFIG, FILE)):
        raise UserError(f"{folder} is no run: it has neither {CONFIG} nor {FILE}")
    belongs_to(folder)
    read_head(folder)  # one that may not be read says so before checks that may take hours
    console = Console(highlight=False)
    with json_output(options.json) as document:
        checks = []
        for check in audit(folder, Asked(options.head, options.processes, options.score, options.seed)):
            checks.append(check)
            if not options.json:  # as each ends: they may take hours
                say(console, f"{check.name}: {_outcome(check)}")
        if not options.json:
            _show(console, checks)
        document(_as_json(folder, checks))
    return 1 if any(check.findings for check in checks) else 0


def _parser() -> Parser:
    parser = Parser("audit", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run: its folder, or its name")
    head = "a head of the chain that you know, as printed at the end of the training or by its reports"
    parser.add_argument("--head", metavar="DIGEST", type=_digest, help=head)
    score = "completions of each kept policy to score again (default: 8; 0: none)"
    parser.add_argument("--score", metavar="N", type=whole(0, 10_000), default=8, help=score)
    seed = "draws them: the number that an earlier audit printed (default: one that nobody knows before)"
    parser.add_argument("--seed", metavar="N", type=whole(0, 2**32 - 1), help=seed)
    parser.add_argument(
        "--processes", metavar="N", type=whole(1, 256), default=1, help="processes that judge (default: 1)"
    )
    parser.add_json()
    return parser


def _digest(text: str) -> str:
    if not 8 <= len(text) <= 64 or set(text.lower()) - set("0123456789abcdef"):
        raise ArgumentTypeError(f"must have 8 to 64 hexadecimal digits, not {text!r}")
    return text.lower()


def _show(console: Console, checks: Sequence[Check]) -> None:
    table = Table(title="Audit", title_justify="left")
    for heading in ("check", "outcome", "looked at"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(check.name, _outcome(check), check.looked_at)
    show_table(console, table)
    for check in checks:
        for finding in check.findings:
            say(console, f"FOUND {finding}")
        if check.left_out:
            say(console, f"      and {check.left_out} more of: {check.name}")
    for check in checks:
        for note in check.notes:
            say(console, f"note ({check.name}): {note}")
    say(console, f"Not shown: {'; '.join(UNPROVEN)}.")


def _outcome(check: Check) -> str:
    count = len(check.findings) + check.left_out
    return f"{count} finding{'s' * (count != 1)}" if count else check.state


def _as_json(folder: Path, checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "run": folder,
        "outcome": of_all(checks),
        "head": read_head(folder),
        "checks": [
            {
                "check": check.name,
                "outcome": check.state,
                "looked_at": check.looked_at,
                "findings": check.findings,
                "findings_left_out": check.left_out,
                "notes": check.notes,
            }
            for check in checks
        ],
        "not_shown": UNPROVEN,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
