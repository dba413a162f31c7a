"""Shows the end of a run."""

from collections.abc import Iterator

from rich.console import Console

from launch.cli.typed import continue_with
from openrs_ray.common.console import say, show_table
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.gain import gain_text
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
        gain=_gain(config, progress),
    )
    show_table(console, table)
    for line in next_lines(config, progress):
        say(console, line)


def _gain(config: RunConfig, progress: Progress) -> str | None:
    if progress.before is None or progress.after is None or not progress.evaluated:
        return None
    try:
        return gain_text(config.run.path, progress.evaluated)
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
        yield f"  use it                     vllm serve {policies[-1].policy} (or transformers: from_pretrained of this folder)"


def _more(config: RunConfig, progress: Progress) -> tuple[str, str]:
    """The setting that ended the run, and twice its value."""
    if progress.ended == "budget" and config.cost.budget_usd is not None:
        return "cost.budget_usd", f"{2 * config.cost.budget_usd:g}"
    if progress.ended == "hours" and config.cost.max_hours is not None:
        return "cost.max_hours", f"{2 * config.cost.max_hours:g}"
    return "run.steps", str(2 * config.run.steps)
