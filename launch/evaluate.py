"""`python -m launch.evaluate MODEL_OR_RUN [...] --benchmarks aime24,amc23 [--samples K]`: figures that can be believed.

A run is evaluated with its start model beside it, in the same harness; of several runs of one experiment mean and spread are
given, too. Killed, the same command goes on where it was.
"""

import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from launch.cli.command import command
from launch.cli.numbers import positive
from launch.cli.options import Parser, help_asked
from launch.driver.decided import UntilDecided, looked_before
from launch.driver.harness import Harness
from openrs_ray.common.console import json_output, say, show_markdown
from openrs_ray.config.answer import Answer
from openrs_ray.config.help import section_lines
from openrs_ray.config.load import checked
from openrs_ray.config.names import runs_folder
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation.benchmarks import Benchmark, chosen
from openrs_ray.evaluation.config import EvaluationConfig, as_in_run
from openrs_ray.evaluation.protocol import Protocol, protocol
from openrs_ray.evaluation.report import markdown, write
from openrs_ray.evaluation.sequential import Plan
from openrs_ray.evaluation.subject import Together, find_subjects, side_by_side
from openrs_ray.run.ledger import head_beside, note_evaluation

BENCHMARKS = "aime24,amc23,math500,minerva,olympiadbench"


@command
def main(arguments: list[str]) -> None:
    console = Console(highlight=False)
    if section := help_asked(arguments):
        say(console, "\n".join(section_lines(EvaluationConfig, {}, section)))
        return
    parser = _parser()
    options, overrides = parser.parse_with_fields(arguments)
    runs = runs_folder()
    found = [find_subjects(given, options.start, options.step, runs) for given in options.models]
    settings = {name: getattr(options, name) for name in ("samples", "temperature", "top_p", "max_tokens", "prompt")}
    how = protocol(options.protocol, found[0].run, **settings)
    benchmarks = asked_benchmarks(options)
    given_folder = Path(options.folder).expanduser().absolute() if options.folder else None
    subjects = side_by_side(found, how, runs, given_folder)
    known = as_in_run(found[0].run) if found[0].run else {}
    config = checked(EvaluationConfig, known, overrides, "evaluation", flags=parser.flags)
    benchmarks = with_answers(benchmarks, config.answers)
    notes = Console(highlight=False, stderr=options.json)
    for note in one_turn_notes([one.run for one in found if one.run]):
        say(notes, note)
    harness = Harness(how, benchmarks, subjects.folder, config, 3600 * options.hours, options.seed, console)
    plan = asked_plan(options, how, len(benchmarks), subjects)
    with json_output(options.json) as document:
        if options.dry_run:
            models = [harness.prepare(subject) for subject in subjects.all]
            content = harness.say_plan(models)
            if plan:
                content["until_decided"] = UntilDecided(harness, plan, models).say_plan()
            elif can_be_decided(how, subjects):
                say(console, "--until-decided may need fewer of them; with --dry-run, it says how many to expect.")
            document(content)
            return
        with harness.sitting(subjects.all) as models:
            harness.say_plan(models)
            if plan:
                content = UntilDecided(harness, plan, models).run()
            else:
                harness.sample(models)
                content = harness.report(models, subjects.seeds) | {"looked_before": looked_before(models)}
            content["differences"] = list(subjects.differences)
            head = head_beside(subjects.report)
            content["ledger"] = head and asdict(head)
            write(subjects.report, content)
            note_evaluation([subjects.report.parent, *(model.store.folder for model in models)])
        document(content)
        if not options.json:
            show_markdown(console, markdown(content))
        say(console, f"{subjects.report}/report.md, report.json and report.html; completions beside them")


def asked_plan(options: Namespace, how: Protocol, benchmarks: int, subjects: Together) -> Plan | None:
    """The plan of --until-decided. UserError for what does not go together."""
    if not options.until_decided:
        if given := [f"--{name}" for name in ("difference", "power") if getattr(options, name) is not None]:
            raise UserError(f"{given[0]} is for an evaluation that samples --until-decided")
        return None
    if not can_be_decided(how, subjects):
        raise UserError(
            "--until-decided compares one model with its start model, from two samples of each problem on: give one run, or one "
            "model and its --start, and --samples above 1"
        )
    power = 0.8 if options.power is None else options.power
    if not 0.5 <= power <= 0.99:
        raise UserError(f"--power is {power:g}; allowed: 0.5 to 0.99")
    if options.difference is not None and not 0 < options.difference <= 100:
        raise UserError(f"--difference is {options.difference:g}; allowed: above 0, up to 100 points")
    return Plan(how.samples, power, options.difference and options.difference / 100, benchmarks)


def can_be_decided(how: Protocol, subjects: Together) -> bool:
    """True for one model beside its start model, with several samples of each problem."""
    return len(subjects.models) == 1 and subjects.start is not None and how.samples > 1


def one_turn_notes(runs: Sequence[RunConfig]) -> list[str]:
    """Says that a run's tools are not asked here."""
    named = {(run.run.name, task.environment.name) for run in runs for task in run.tasks if task.environment.answers}
    return [
        f"run {run} trains with the environment {name}; benchmarks are asked in one turn, without it (the run's own evaluations, "
        "in its metrics, have it)"
        for run, name in sorted(named)
    ]


def asked_benchmarks(options: Namespace) -> tuple[Benchmark, ...]:
    """Benchmarks of --benchmarks, with the files of --data NAME=FILE."""
    sources = {}
    for text in options.data:
        name, equals, source = text.partition("=")
        if not (equals and source and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._]*", name)):
            raise UserError(
                f"--data {text}: write NAME=FILE, such as aime24=/data/aime24.jsonl; a name has letters, digits, dots and _"
            )
        sources[name] = source
    return tuple(chosen([name for name in options.benchmarks.split(",") if name], sources))


def with_answers(benchmarks: Sequence[Benchmark], answers: Mapping[str, Answer]) -> tuple[Benchmark, ...]:
    """Benchmarks with the kinds of `answers` for those that it names. UserError for a name of none."""
    if unknown := sorted(answers.keys() - {benchmark.name for benchmark in benchmarks}):
        raise UserError(f"--answers.{unknown[0]} is about a benchmark that --benchmarks does not ask for")
    return tuple(replace(one, answer=answers.get(one.name, one.answer)) for one in benchmarks)


def _parser() -> Parser:
    fields = (
        "Fields of engines and placement are changed as in a recipe: --placement.num_rollout_gpus 2 (--help SECTION)."
    )
    models = "a run (folder or name), a model's folder, a Hub id, a built-in; runs that differ in their seed are also summed up"
    parser = Parser("evaluate", __doc__, fields)
    parser.add_argument("models", metavar="MODEL_OR_RUN", nargs="+", help=models)
    add_benchmark_options(parser)
    parser.add_argument("--start", metavar="MODEL", help="the start model to compare with (default: the run's)")
    parser.add_argument("--step", type=int, help="the run's checkpoint (default: the last)")
    prompts = ("paper", "run", "plain")
    parser.add_argument("--prompt", choices=prompts, help="robust only (default: the run's, else paper)")
    parser.add_argument("--temperature", type=float, help="robust only (default: 0.6)")
    parser.add_argument("--top-p", type=float, help="robust only (default: 0.95)")
    parser.add_argument("--seed", type=int, default=42, help="of sampling (default: 42)")
    parser.add_argument("--folder", help="where completions and tables go (default: the run's folder)")
    hours = "how long one model may take, with --until-decided one block of it (default: 48)"
    parser.add_argument("--hours", type=positive, default=48, help=hours)
    decided = "sample in blocks, and stop when the comparison with the start model is decided or hopeless"
    parser.add_argument("--until-decided", action="store_true", help=decided)
    difference = "the difference to find --until-decided (default: the smallest that all samples can show)"
    parser.add_argument("--difference", type=float, metavar="POINTS", help=difference)
    power = "the chance of showing it with all samples (default: 0.8)"
    parser.add_argument("--power", type=float, metavar="SHARE", help=power)
    dry_run = "say what would be sampled and what it can show, and start nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    parser.add_json()
    return parser


def add_benchmark_options(parser: Parser) -> None:
    parser.add_argument("--benchmarks", default=BENCHMARKS, help=f"default: {BENCHMARKS}")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FILE", help="a local file of a benchmark")
    parser.add_argument("--protocol", choices=("robust", "as_published"), default="robust", help="default: robust")
    parser.add_argument("--samples", type=positive, metavar="K", help="of each problem (robust: 16, as_published: 1)")
    parser.add_argument("--max-tokens", type=positive, help="of a completion, robust only (default: 32768)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
