"""Shows the end of a run."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from launch.cli.typed import continue_with
from openrs_ray.common.console import say, show_table
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.evaluation.gain import checked_tasks, gain, gain_text
from openrs_ray.report.decided import counts
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import Checkpoint, CheckpointStore
from openrs_ray.run.display import summary_table
from openrs_ray.run.ledger import read_head
from openrs_ray.run.progress import Progress
from openrs_ray.run.teacher_score import teacher_accuracy


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
        costs=[*budget.rows(progress.step, progress.correct), *_guard_rows(config)],
        gain=_gain(config, progress, checked_tasks(config)),
        tasks=[*_teacher_rows(config), *_task_rows(config, progress)],
        quantization=config.rollout.quantization,
    )
    if head := read_head(config.run.path):
        table.add_row("chain of digests", f"head {head} (docs/audit.md)")
    show_table(console, table)
    for line in next_lines(config, progress):
        say(console, line)


def _guard_rows(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Number of the guard's warnings and rollbacks, where there were any."""
    found = counts(config.run.path)
    if found["guard_warnings"]:
        yield "guard", f"{found['guard_warnings']} warnings, {found['rollbacks']} rollbacks"


def end_as_json(config: RunConfig, progress: Progress, budget: Budget) -> dict[str, Any]:
    """The table's content; accuracies and differences are shares of 1."""
    spent = budget.spent()
    kept, guard = _kept(config), counts(config.run.path)
    names = dict.fromkeys((*progress.tasks_before, *progress.tasks_after))
    return {
        "run": config.run.name,
        "folder": config.run.path,
        "ended_by": progress.ended,
        "ended_why": progress.why,
        "steps": progress.step,
        "sampled_tokens": progress.tokens,
        "correct_completions": progress.correct,
        "seconds": progress.seconds,
        "held_out_problems": progress.held_out,
        "samples_per_problem": config.evaluation.samples,
        "accuracy_before": progress.before,
        "accuracy_after": progress.after,
        "accuracy_of_teacher": teacher_accuracy(config.run.path, config),
        "difference": _gain_as_json(config, progress, checked_tasks(config)),
        "tasks": {
            name: {
                "before": progress.tasks_before.get(name),
                "after": progress.tasks_after.get(name),
                "difference": _gain_as_json(config, progress, [name]),
            }
            for name in names
        },
        "hours": spent.hours,
        "gpu_hours": spent.gpu_hours,
        "dollars": spent.dollars if budget.priced else None,
        "guard": {"warnings": guard["guard_warnings"], "rollbacks": guard["rollbacks"]},
        "policy": kept[-1].policy if kept else None,
        "ledger": read_head(config.run.path),
    }


def _gain_as_json(config: RunConfig, progress: Progress, tasks: list[str] | None) -> dict[str, Any] | None:
    """None where it is not known."""
    if not _has_gain(progress):
        return None
    try:
        paired, problems = gain(config.run.path, progress.evaluated or 0, tasks)
    except RunError:
        return None
    return {"problems": problems, "p": paired.p, "interval": paired.difference}


def _teacher_rows(config: RunConfig) -> Iterator[tuple[str, str]]:
    if accuracy := teacher_accuracy(config.run.path, config):
        yield "teacher itself, for $ 0", str(accuracy)


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
    if not _has_gain(progress):
        return None
    try:
        return gain_text(config.run.path, progress.evaluated or 0, tasks)
    except RunError as error:
        return f"not known: {error}"


def _has_gain(progress: Progress) -> bool:
    return progress.before is not None and progress.after is not None and bool(progress.evaluated)


def _kept(config: RunConfig) -> list[Checkpoint]:
    """Checkpoints with a policy."""
    return [each for each in CheckpointStore(config.run.path / "checkpoints").checkpoints() if each.kind == "kept"]


def next_lines(config: RunConfig, progress: Progress) -> Iterator[str]:
    """Commands to look at the run, and to measure, prove, continue and serve the trained model."""
    yield "Next:"
    yield f"  look at it                 python -m launch.report {config.run.path}"
    yield f"  measure it on benchmarks   python -m launch.evaluate {config.run.path}"
    yield f"  prove that nothing is lost python -m launch.coverage {config.run.path}"
    yield f"  prove that it is unchanged python -m launch.audit {config.run.path}"
    yield f"  train it further           {continue_with(*_more(config, progress))}"
    if policies := _kept(config):
        yield f"  talk to it                 python -m launch.chat {config.run.path}"
        yield f"  use it elsewhere           python -m launch.export {config.run.path}"
        yield f"  serve it                   vllm serve {policies[-1].policy} (its README.md says how to prompt it)"


def _more(config: RunConfig, progress: Progress) -> tuple[str, str]:
    """The setting that ended the run, and twice its value."""
    if progress.ended == "budget" and config.cost.budget_usd is not None:
        return "cost.budget_usd", f"{2 * config.cost.budget_usd:g}"
    if progress.ended == "hours" and config.cost.max_hours is not None:
        return "cost.max_hours", f"{2 * config.cost.max_hours:g}"
    if progress.ended == "flat" and config.cost.min_points_per_usd is not None:
        return "cost.min_points_per_usd", f"{config.cost.min_points_per_usd / 2:g}"
    return "run.steps", str(2 * config.run.steps)
