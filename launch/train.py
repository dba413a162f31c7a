"""`python -m launch.train RECIPE [--dotted.field VALUE ...] [--dry-run] [--resume] [--restart]`: the main job."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from launch.command import command
from launch.hangup import leave_terminal, stop_signals
from launch.shutdown import Shutdown
from openrs_ray.atomic import read_json, write_json
from openrs_ray.budget import ENDING, Budget
from openrs_ray.checkpoints import CheckpointStore, run_lock
from openrs_ray.config import RunConfig
from openrs_ray.display import RunDisplay, summary_table
from openrs_ray.errors import RunError, UserError
from openrs_ray.overrides import check_resumable, dry_run_text, help_text, load_config
from openrs_ray.progress import Progress, read_result
from openrs_ray.room import check_room, full_disk_in_a_sentence
from openrs_ray.run_problems import RunProblems
from openrs_ray.state import CONFIG, begun, check_state

if TYPE_CHECKING:
    from actors.placement import Placement
    from openrs_ray.prepared import Prepared


@dataclass(frozen=True)
class Command:
    """What the command line says."""

    recipe: Path
    overrides: list[str]
    dry_run: bool
    resume: bool
    restart: bool


def parse(arguments: list[str]) -> Command:
    """Raises UserError when there is no recipe."""
    flags = ("--dry-run", "--resume", "--restart")
    rest = [argument for argument in arguments if argument not in flags]
    if not rest or rest[0].startswith("-"):
        raise UserError(
            "the first argument must be a recipe, such as launch/recipes/quickstart.yaml (--help lists all fields)"
        )
    return Command(Path(rest[0]), rest[1:], *(flag in arguments for flag in flags))


@command
def main(arguments: list[str]) -> int:
    """Also 0 where a limit of `cost` ended the run, and 128 + signal when it was stopped."""
    console = Console(highlight=False)
    if "--help" in arguments or "-h" in arguments:
        console.print(help_text(), markup=False, soft_wrap=True)
        return 0
    asked = parse(arguments)
    config = load_config(asked.recipe, asked.overrides)
    if asked.dry_run:
        return dry_run(config, console)
    if asked.restart:
        again = [argument for argument in sys.orig_argv[1:] if argument != "--restart"]
        return supervised(config, [sys.executable, *again], console)
    with full_disk_in_a_sentence(config.run.path), run_lock(config.run.path):
        check_run(config, asked.resume)
        return _train(config, asked, console)


def supervised(config: RunConfig, command: Sequence[str], console: Console) -> int:
    """Run the command that trains by `config`, again when it dies. Returns its exit code (`launch.supervise`)."""
    from launch.supervise import supervise

    store = CheckpointStore(config.run.path / "checkpoints")
    return supervise(
        command,
        lambda: max((checkpoint.step for checkpoint in store.checkpoints()), default=-1),
        lambda text: console.print(text, markup=False, soft_wrap=True),
    )


def check_run(config: RunConfig, resume: bool) -> None:
    """UserError when a run that has begun is not to be resumed, the config does not continue it, or its files are not whole."""
    if not begun(config.run.path):
        return
    if not resume:
        raise UserError(
            f"run {config.run.name} exists already in {config.run.path}: continue it with --resume, or choose another "
            "name with --run.name"
        )
    saved = read_json(config.run.path / CONFIG)
    if saved is not None:
        check_resumable(saved, config)
    check_state(config.run.path)


def begin_run(config: RunConfig, prepared: "Prepared") -> None:
    """Write down what this run is, now that everything it needs is known to be there.

    Raises:
        UserError: a run that is continued would no longer mean the same problems.
    """
    # A start that was killed between the two files below has left the first one, and nothing that must stay the same.
    known = RunProblems.read(config.run.path) if begun(config.run.path) else None
    problems = prepared.summary()
    if known is not None and known.fingerprint != problems.fingerprint:
        raise UserError(
            f"the problems in {config.data.path} or the prompts made of them have changed since run {config.run.name} began: "
            "restore them, or choose another run.name"
        )
    problems.write(config.run.path)
    write_json(config.run.path / CONFIG, config.model_dump(mode="json"))


def dry_run(config: RunConfig, console: Console) -> int:
    """Say what the run would do and need; start nothing."""
    from openrs_ray.memory import check_fits, memory_text, planned_gpu_bytes
    from openrs_ray.prepared import prepare

    gpu_bytes = planned_gpu_bytes(config)
    prepared = prepare(config)
    console.print(dry_run_text(config), markup=False, soft_wrap=True)
    for line in [*(f"data: {note}" for note in prepared.notes), *_power_lines(config, len(prepared.held_out))]:
        console.print(line, markup=False, soft_wrap=True)
    if config.placement.device == "gpu" or gpu_bytes is not None:
        for line in memory_text(config, prepared.shape, gpu_bytes):
            console.print(line, markup=False, soft_wrap=True)
        check_fits(config, prepared.shape, gpu_bytes)
    else:
        console.print("memory: planned for GPUs only")
    return 0


def _power_lines(config: RunConfig, held_out: int) -> list[str]:
    """Smallest difference that the run's own evaluation can show, and the cost of more samples."""
    from openrs_ray.evaluation.power import plan_lines

    every = config.evaluation.every_steps
    evaluations = len({0, config.run.steps, *(range(every, config.run.steps, every) if every else ())})
    sizes = {f"the run's {evaluations} evaluations": held_out}
    return plan_lines(sizes, config.evaluation.samples, evaluations) if held_out else []


def _train(config: RunConfig, command: Command, console: Console) -> int:
    # Heavy imports come late: a mistake in the recipe is said at once.
    from actors.placement import check_build, check_machine, connection, joins_cluster, place
    from openrs_ray.memory import planned_gpu_bytes

    done = read_result(config.run.path) or Progress()
    if done.step >= config.run.steps and done.ended in (None, "steps"):
        console.print(_summary(config, done, Budget(config, age_s=0.0)))
        return 0
    budget = Budget(config)
    budget.check("start", *(("step",) if done.ended else ()), *ENDING)
    budget.write()
    # First, because the probe forks, and forking is safe only without threads.
    gpu_bytes = planned_gpu_bytes(config, this_machine=not joins_cluster())
    with ExitStack() as ending:
        shutdown = ending.enter_context(Shutdown(budget.write))
        ending.enter_context(budget)
        # Loading data may take a minute; that the cluster or the machine is too small is said before.
        if joins_cluster():
            ending.enter_context(connection())
            placement = place(config)
            prepared = _prepare(config, gpu_bytes)
        else:
            check_machine(config)
            prepared = _prepare(config, gpu_bytes)
            check_build(config)
            ending.enter_context(connection())
            placement = place(config)
        begin_run(config, prepared)
        for note in prepared.notes:
            console.print(f"data: {note}", markup=False, soft_wrap=True)
        display = ending.enter_context(RunDisplay(config.run.name, config.run.steps, console, budget.text))

        def end(outcome: Outcome) -> None:
            display.close()
            _say_end(config, command, outcome, budget, console)
            shutdown.waits_for("closing the actors", outcome.code)

        outcome = asyncio.run(_closed(config, prepared, placement, display, budget, end))
        shutdown.waits_for("Ray")
    return outcome.code


def _say_end(config: RunConfig, command: Command, outcome: "Outcome", budget: Budget, console: Console) -> None:
    if outcome.progress is not None:
        console.print(_summary(config, outcome.progress, budget))
        if outcome.progress.ended not in (None, "steps"):
            console.print(budget.sentence(outcome.progress.ended), markup=False, soft_wrap=True)
    else:
        again = shlex.join(["python", "-m", "launch.train", str(command.recipe), *command.overrides, "--resume"])
        console.print(f"{outcome.sentence}\nContinue with: {again}", markup=False, soft_wrap=True)


def _prepare(config: RunConfig, gpu_bytes: float | None) -> "Prepared":
    """What the run needs, known to fit into the GPUs' memory where that is known."""
    from openrs_ray.memory import check_fits
    from openrs_ray.prepared import prepare

    prepared = prepare(config)
    check_fits(config, prepared.shape, gpu_bytes)
    check_room(config, prepared.shape.parameters)
    return prepared


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    code: int
    progress: Progress | None
    """Set when the run is complete, or ended by a limit of `cost`."""
    sentence: str = ""
    """Why it is not."""


async def _closed(
    config: RunConfig,
    prepared: "Prepared",
    placement: "Placement",
    display: RunDisplay,
    budget: Budget,
    end: Callable[[Outcome], None],
) -> Outcome:
    """An attempt whose actors are closed; `end` is told of its outcome first, since closing may hang or fail with Ray."""
    async with AsyncExitStack() as closing:
        outcome = await _attempt(config, prepared, placement, display, budget, closing)
        end(outcome)
    return outcome


async def _attempt(
    config: RunConfig,
    prepared: "Prepared",
    placement: "Placement",
    display: RunDisplay,
    budget: Budget,
    closing: AsyncExitStack,
) -> Outcome:
    from actors.trainer import Stopped, Trainer
    from launch.supervise import STOP

    if config.rollout.staleness:
        from actors.overlap import OverlappedTrainer

        trainer: Trainer = OverlappedTrainer(config, prepared, placement, display, budget)
    else:
        trainer = Trainer(config, prepared, placement, display, budget)
    closing.push_async_callback(trainer.close)
    received: list[int] = []

    def on_signal(number: int) -> None:
        if received and number == signal.SIGHUP:
            return  # a terminal's end comes twice, from the kernel and from the shell
        if received:
            os._exit(128 + number)  # asked twice: at once; the last checkpoint stands
        received.append(number)
        if number == signal.SIGHUP:
            leave_terminal()
        # All that one needs to know, at once: whoever sent this may soon send SIGKILL.
        display.note(
            f"{signal.Signals(number).name}: run {config.run.name} in {config.run.path} stops at the next point where nothing "
            "is lost; --resume continues it (once more: at once)"
        )
        trainer.stop()

    def on_stop() -> None:
        if not received:
            on_signal(signal.SIGTERM)

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(STOP, on_stop)
    try:
        await trainer.start()
        return Outcome(0, await trainer.run())
    except Stopped:
        where = f"run {config.run.name} stopped after step {trainer.progress.step}; it can be resumed from {config.run.path}"
        return Outcome(128 + received[0], None, where)
    except (RunError, OSError) as error:
        return Outcome(1, None, f"error: {error}")


def _summary(config: RunConfig, progress: "Progress", budget: Budget) -> Table:
    return summary_table(
        before=progress.before,
        after=progress.after,
        problems=progress.held_out,
        samples=config.evaluation.samples,
        steps=progress.step,
        tokens=progress.tokens,
        seconds=progress.seconds,
        run_folder=config.run.path,
        costs=budget.rows(progress.step, progress.correct),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
