"""`python -m launch.show RUN [--worst 5 | --best 5] [--step N] [--problem P]`: completions with prompt, gold and verdict.

Without a choice it shows the newest step. `--held-out` shows the run's own evaluations, `--evaluation` those of launch.evaluate.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from launch.cli.command import command
from launch.cli.numbers import positive
from launch.cli.options import Parser
from openrs_ray.common.console import json_output
from openrs_ray.config.names import find_run
from openrs_ray.errors import UserError
from openrs_ray.evaluation.store import completion_files
from openrs_ray.records import Status
from openrs_ray.report.completions import Page, Query, find, find_evaluated
from openrs_ray.run.completion_files import current_files

_SHOWN = 5


@command
def main(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    run = find_run(options.run)
    page = _evaluated(run, options) if options.evaluation is not None else _recorded(run, options)
    with json_output(options.json) as document:
        document(page.rows)
    if options.json:
        return
    for row in page.rows:
        sys.stdout.write(printable("\n".join(lines(row, options.prompt))) + "\n\n")
    if len(page.rows) < page.total:
        sys.stdout.write(f"{len(page.rows):,} of {page.total:,} completions: --limit shows more\n")


def _parser() -> Parser:
    parser = Parser("show", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run: its folder, or its name")
    order = parser.add_mutually_exclusive_group()
    count: dict[str, Any] = {"nargs": "?", "const": _SHOWN, "type": positive, "metavar": "N"}
    order.add_argument("--worst", help=f"those of the least reward (default: {_SHOWN} of them)", **count)
    order.add_argument("--best", help="those of the highest reward", **count)
    parser.add_argument("--step", type=int, metavar="N", help="of this step alone")
    parser.add_argument("--problem", type=int, metavar="P", help="for this problem_index alone")
    parser.add_argument("--task", metavar="NAME", help="of this task or benchmark alone")
    parser.add_argument("--status", choices=[str(status) for status in Status], help="with this verdict alone")
    parser.add_argument("--text", help="with this in the problem or the completion")
    parser.add_argument("--limit", type=positive, metavar="N", help=f"at most so many (default: {_SHOWN})")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("--held-out", action="store_true", help="of the run's own evaluations, by step")
    evaluation = "of launch.evaluate; PROTOCOL/MODEL where there are several, such as robust/step-50"
    family.add_argument("--evaluation", nargs="?", const="", metavar="MODEL", help=evaluation)
    parser.add_argument("--prompt", action="store_true", help="with the prompt as the model saw it, template included")
    parser.add_json()
    return parser


def _recorded(run: Path, options: Namespace) -> Page:
    query = _query(options)
    if options.held_out:
        query = replace(query, phase="evaluation")
    steps = [file.step for file in current_files(run, query.phase)]
    if not steps:
        raise UserError(
            f"the record in {run} has no completions{' of held-out problems' if options.held_out else ''} yet"
        )
    if options.step is not None and options.step not in steps:
        raise UserError(f"the record in {run} has no step {options.step}: it has {min(steps)} to {max(steps)}")
    if not _chosen(options):
        query = replace(query, steps=(max(steps), max(steps)))
    return _some(partial(find, run), query, options)


def _evaluated(run: Path, options: Namespace) -> Page:
    folder = evaluated_model(run, options.evaluation)
    if options.step is not None:
        raise UserError(f"--step is of training: name the model, as in --evaluation robust/step-{options.step}")
    return _some(partial(find_evaluated, folder), _query(options), options)


def evaluated_model(run: Path, named: str) -> Path:
    """The folder of a model that was evaluated. UserError names the others."""
    place = run / "evaluation"
    known = sorted({path.parent for path in place.rglob("settings.json") if completion_files(path.parent)})
    found = [folder for folder in known if named in ("", folder.name, str(folder.relative_to(place)))]
    if len(found) == 1:
        return found[0]
    if not known:
        raise UserError(f"{place} has no completions: python -m launch.evaluate {run.name} makes some")
    names = ", ".join(str(folder.relative_to(place)) for folder in found or known)
    wrong = f"{len(found)} evaluated models fit" if found else f"no evaluated model is called {named}"
    raise UserError(f"{wrong}; --evaluation takes one of {names}")


def _chosen(options: Namespace) -> bool:
    names = ("worst", "best", "step", "problem", "task", "status", "text")
    return any(getattr(options, name) is not None for name in names)


def _query(options: Namespace) -> Query:
    return Query(
        steps=None if options.step is None else (options.step, options.step),
        status=(options.status,) if options.status else (),
        problem=options.problem,
        task=options.task,
        text=options.text,
        order="worst" if options.worst else "best" if options.best else "step",
    )


def _some(found: Callable[..., Page], query: Query, options: Namespace) -> Page:
    page = found(query, 0, options.limit or options.worst or options.best or _SHOWN)
    if not page.total:
        raise UserError("no completion fits: python -m launch.show --help says how to choose others")
    return page


def lines(row: dict[str, Any], with_prompt: bool) -> Iterator[str]:
    """A completion as text."""
    yield " | ".join(_head(row))
    if with_prompt and row.get("prompt"):
        yield f"prompt:\n{_indented(row['prompt'])}"
    else:
        yield f"problem:\n{_indented(row['problem'])}"
    gold, answer = row.get("gold"), row.get("answer")
    yield f"gold: {'(not in the record)' if gold is None else ' or '.join(gold) or '(none)'}"
    yield f"answer: {'(none)' if answer is None else answer}"
    yield f"completion:\n{_indented(row['text'])}"


def _head(row: dict[str, Any]) -> Iterator[str]:
    if row.get("step") is not None:
        yield f"step {row['step']}"
    yield (
        f"{row['task']} problem {row['problem_index']}".lstrip()
        if row.get("task")
        else f"problem {row['problem_index']}"
    )
    yield f"sample {row['sample']}"
    yield row["status"] + (f" ({row['detail']})" if row.get("detail") else "")
    if row.get("reward") is not None:
        parts = ", ".join(f"{name} {value:.3g}" for name, value in row["rewards"].items())
        yield f"reward {row['reward']:.3g}" + (f" ({parts})" if parts else "")
    yield f"{row['length']:,} tokens" + (", cut" if row["finish_reason"] == "length" else "")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def printable(text: str) -> str:
    """Text in which characters are escaped that no terminal shows or that move its cursor."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
