"""Shows the end of a run."""

from collections.abc import Iterator

from rich.console import Console

from launch.cli.typed import continue_with
from openrs_ray.common.console import say, show_table
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.gain import checked_tasks, gain_text
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.display import summary_table
from openrs_ray.run.progress import Progress


def show_end(console: Console, config: RunConfig, progress: Progress, budget: Budget) -> None:
    table = summary_table(
        before=progress.before,
        after=progress.after,
        problems=progress.held_out,
        samples=config.evaluation.samples,
        steps=progress.step,
        tokens=progress.tokens,
        seconds=progress.seconds,
        run_folder=config.run.path,
        costs=budget.rows(progress.step, progress.correct),
        gain=_gain(config, progress, checked_tasks(config)),
        tasks=_task_rows(config, progress),
        quantization=config.rollout.quantization,
    )
    show_table(console, table)
    for line in next_lines(config, progress):
        say(console, line)


def _task_rows(config: RunConfig, progress: Progress) -> Iterator[tuple[str, str]]:
    """The first policy and the last of each task, in its own figure."""
    for name in dict.fromkeys((*progress.tasks_before, *progress.tasks_after)):
        before, after = progress.tasks_before.get(name), progress.tasks_after.get(name)
        score = before or after
        if score is None:
            continue
        of_it = f", {score.problems} problems" if name else ""
        yield f"{name} {score.figure} before{of_it}".strip(), str(before or "not judged")
        if after:
            yield f"{name} {score.figure} after".strip(), str(after)
        if before and after and score.figure == "accuracy" and (gained := _gain(config, progress, [name])):
            yield f"{name} difference", gained


def _gain(config: RunConfig, progress: Progress, tasks: list[str] | None) -> str | None:
    if progress.before is None or progress.after is None or not progress.evaluated:
        return None
    try:
        return gain_text(config.run.path, progress.evaluated, tasks)
    except RunError as error:
        return f"not known: {error}"


def next_lines(config: RunConfig, progress: Progress) -> Iterator[str]:
    """Commands to measure, prove, continue and serve the trained model."""
    yield "Next:"
    yield f"  measure it on benchmarks   python -m launch.evaluate {config.run.path}"
    yield f"  prove that nothing is lost python -m launch.coverage {config.run.path}"
    yield f"  train it further           {continue_with(*_more(config, progress))}"
    policies = [each for each in CheckpointStore(config.run.path / "checkpoints").checkpoints() if each.kind == "kept"]
    if policies:
        yield f"  talk to it                 python -m launch.chat {config.run.path}"
        yield f"  use it elsewhere           python -m launch.export {config.run.path}"
        yield f"  serve it                   vllm serve {policies[-1].policy} (its README.md says how to prompt it)"


def _more(config: RunConfig, progress: Progress) -> tuple[str, str]:
    """The setting that ended the run, and twice its value."""
    if progress.ended == "budget" and config.cost.budget_usd is not None:
        return "cost.budget_usd", f"{2 * config.cost.budget_usd:g}"
    if progress.ended == "hours" and config.cost.max_hours is not None:
        return "cost.max_hours", f"{2 * config.cost.max_hours:g}"
    return "run.steps", str(2 * config.run.steps)
