"""`python -m launch.train RECIPE [--dotted.field VALUE ...] [--dry-run] [--resume] [--restart] [--page] [--json]`: trains."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.options import Parser, help_asked
from launch.cli.typed import continue_with
from launch.driver.attempt import Outcome, attempt
from launch.driver.closing import end_as_json, show_end
from launch.driver.shutdown import Shutdown
from openrs_ray.common.console import Document, json_output, say
from openrs_ray.config.help import help_text
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation.slope import check_worth
from openrs_ray.run.activity import Activity
from openrs_ray.run.budget import ENDING, Budget
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.environment import add_cluster, headline, write_environment
from openrs_ray.run.lock import run_lock
from openrs_ray.run.log import RunLog, append_lines, attempt_folder, newest_log
from openrs_ray.run.progress import Progress, read_result
from openrs_ray.run.resume import begin_run, check_run, kept_fields, resume_notes
from openrs_ray.run.room import check_room, full_disk_in_a_sentence
from openrs_ray.run.spans import FOLDER as TRACE
from openrs_ray.run.spans import following, recording
from openrs_ray.run.state import begun
from openrs_ray.sinks.sinks import check_sinks

if TYPE_CHECKING:
    from actors.cluster.placement import Placement
    from openrs_ray.cluster.machine import Machine
    from openrs_ray.preparation.prepared import Prepared

_FLAGS = ("--dry-run", "--resume", "--restart", "--page", "--json")


@dataclass(frozen=True)
class Command:
    recipe: str
    overrides: list[str]
    dry_run: bool
    resume: bool
    restart: bool
    page: bool = False
    json: bool = False


def parse(arguments: list[str]) -> Command:
    parser = Parser("train", None)
    parser.add_argument("recipe", metavar="RECIPE")
    for flag in _FLAGS:
        parser.add_argument(flag, action="store_true")
    options, fields = parser.parse_with_fields(arguments)
    return Command(**vars(options) | {"overrides": fields})


@command
def main(arguments: list[str]) -> int:
    console = Console(highlight=False)
    if (section := help_asked(arguments)) is not None:
        say(console, help_text(section))
        return 0
    asked = parse(arguments)
    config = load_config(asked.recipe, asked.overrides, _FLAGS)
    check_sinks(config.run.sinks)
    belongs_to(config.run.path)
    if asked.restart and not asked.dry_run:  # the process that trains writes the document
        again = [argument for argument in sys.orig_argv[1:] if argument not in ("--restart", "--page")]
        console = Console(highlight=False, stderr=asked.json)
        with _page(config, console, asked.page):
            return supervised(config, [sys.executable, *again], console)
    with json_output(asked.json) as document:
        if asked.dry_run:
            from openrs_ray.preparation.dry_run import dry_run

            document(dry_run(config, partial(say, console), asked.resume))
            return 0
        return _locked(config, asked, console, document)


def _locked(config: RunConfig, asked: Command, console: Console, document: Document) -> int:
    with full_disk_in_a_sentence(config.run.path), run_lock(config.run.path):
        check_run(config, asked.resume)
        if asked.resume and not begun(config.run.path):
            say(console, f"nothing to resume in {config.run.path}: the run begins")
        for note in resume_notes(config):
            say(console, note)
        with _page(config, console, asked.page):
            return _train(config, console, document)


@contextmanager
def _page(config: RunConfig, console: Console, wanted: bool) -> Iterator[None]:
    """Serves the run page in a process beside this one; a run does not end for want of it."""
    with ExitStack() as ending:
        if wanted:
            from openrs_ray.report.beside import page_beside

            try:
                address = ending.enter_context(page_beside(config.run.path))
                say(console, f"page: {address} on this machine, as long as this command runs (docs/page.md)")
            except (UserError, OSError) as error:
                say(console, f"WARNING: the page cannot be shown: {error}")
        yield


def supervised(config: RunConfig, command: Sequence[str], console: Console) -> int:
    """Run the command that trains, again when it dies."""
    from launch.driver.supervise import supervise

    store = CheckpointStore(config.run.path / "checkpoints")

    def tell(text: str) -> None:
        say(console, text)
        if log := newest_log(config.run.path):
            append_lines(log, text)

    return supervise(command, lambda: max((checkpoint.step for checkpoint in store.checkpoints()), default=-1), tell)


def _train(config: RunConfig, console: Console, document: Document) -> int:
    done = read_result(config.run.path) or Progress()
    if done.step >= config.run.steps and done.ended in (None, "steps"):
        budget = Budget(config, age_s=0.0)
        show_end(console, config, done, budget)
        document(end_as_json(config, done, budget))
        return 0
    check_worth(config, done)
    # Heavy imports come late: a mistake in the recipe is said at once.
    from actors.cluster.placement import joins_cluster
    from openrs_ray.cluster.machine import Machine

    age_s = None
    # First, because the probe forks, and forking is safe only without threads.
    machine = Machine.planned(config, this_machine=not joins_cluster())
    while True:
        folder = attempt_folder(config.run.path)
        with RunLog(folder, console) as log, recording(folder / TRACE, "driver"):
            log.write(headline(write_environment(log.folder)))
            outcome = _start(config, machine, console, log, done, document, age_s)
        if not outcome.again:
            return outcome.code
        age_s = 0.0


def _start(
    config: RunConfig,
    machine: "Machine",
    console: Console,
    log: RunLog,
    done: Progress,
    document: Document,
    age_s: float | None,
) -> Outcome:
    """One attempt. `age_s`: seconds of this process that no earlier attempt has counted; None: all of them."""
    from actors.cluster.description import describe_cluster
    from actors.cluster.placement import check_build, check_machine, connection, joins_cluster, place
    from openrs_ray.preparation.preview import warning_lines

    placement: Placement | None = None
    size = config.engine.tensor_parallel
    budget = Budget(config, age_s, extra_gpus=lambda: size * placement.extra_engines() if placement else 0)
    budget.check("start", *(("step",) if done.ended else ()), *ENDING)
    budget.write()
    with ExitStack() as ending:
        shutdown = ending.enter_context(Shutdown(budget.write))
        ending.enter_context(budget)
        # Loading data may take a minute; that the cluster or the machine is too small is said before.
        if joins_cluster():
            ending.enter_context(connection())
            placement = place(config)
            prepared = _prepare(config, machine)
        else:
            check_machine(config)
            prepared = _prepare(config, machine)
            check_build(config.placement)
            ending.enter_context(connection())
            placement = place(config)
        add_cluster(log.folder, describe_cluster())
        begin_run(config, prepared.summary())
        for line in [*(f"data: {note}" for note in prepared.notes), *warning_lines(config, prepared)]:
            say(console, line)
        rollout = config.rollout
        activity = Activity(
            rollout.problems_per_step, rollout.completions_per_problem, rollout.staleness > 0, log.folder / TRACE
        )
        ending.enter_context(following(activity))
        show = budget.text, log.write, activity.text, budget.elapsed
        display = ending.enter_context(RunDisplay(config.run.name, config.run.steps, console, *show))

        def end(outcome: Outcome) -> None:
            display.close()
            if not outcome.again:
                _say_end(config, outcome, budget, console)
            if outcome.progress is not None:
                document(end_as_json(config, outcome.progress, budget))

        outcome = asyncio.run(attempt(config, prepared, placement, display, budget, end, shutdown))
        shutdown.waits_for("Ray")
    return outcome


def _say_end(config: RunConfig, outcome: Outcome, budget: Budget, console: Console) -> None:
    if outcome.progress is not None:
        show_end(console, config, outcome.progress, budget)
        if outcome.progress.ended == "flat":
            say(console, outcome.progress.why)
        elif outcome.progress.ended not in (None, "steps"):
            say(console, budget.sentence(outcome.progress.ended))
    else:
        say(console, outcome.sentence)
        if not outcome.recurs:
            say(console, f"Continue with: {continue_with()}")


def _prepare(config: RunConfig, machine: "Machine") -> "Prepared":
    from openrs_ray.cluster.fitting import check_fits
    from openrs_ray.preparation.judges import check_judges
    from openrs_ray.preparation.prepared import prepare

    check_judges(config)
    prepared = prepare(config)
    check_fits(config, prepared.shape, machine, kept_fields(config))
    check_room(config, prepared.shape.parameters, prepared.shape.adapters(config.learner.lora))
    return prepared


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
