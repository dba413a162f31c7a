"""The checkpoint to export: a given step, or the best on the run's own held-out problems, never on a benchmark."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from openrs_ray.config.load import load_config
from openrs_ray.errors import UserError
from openrs_ray.evaluation.benchmarks import is_benchmark
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.metrics import read_metrics

Asked = int | Literal["best"]
_FIGURES = {"accuracy": "accuracy", "mean_reward": "mean reward"}
"""By name in the metrics: the first that every candidate has decides."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Example: Choice(100, "Step 100 was asked for.", candidates=1)"""

    step: int
    why: str
    candidates: int
    """Policies among which held-out figures decided; with several, those of the chosen one are optimistic."""


def kept_policies(run_folder: Path) -> dict[int, Checkpoint]:
    """Checkpoints with a policy, by step."""
    found = CheckpointStore(run_folder / "checkpoints").checkpoints()
    return {one.step: one for one in found if any(one.policy.glob("*"))}


def default_folder(run_folder: Path, step: int) -> Path:
    return run_folder / "export" / f"step-{step:06d}"


def chosen(run_folder: Path, kept: Collection[int], asked: Asked) -> Choice:
    """UserError for a step without a policy, and for `best` without held-out figures of a kept policy, or with a benchmark's."""
    name, steps = run_folder.name, sorted(kept)
    if not steps:
        raise UserError(
            f"run {name} in {run_folder} has no kept policy yet: the first comes at step checkpoint.every_steps, or at the end"
        )
    if asked != "best":
        if asked not in steps:
            raise UserError(f"run {name} has no policy of step {asked}: there are {', '.join(map(str, steps))}")
        return Choice(asked, f"Step {asked} was asked for.", 1)
    evaluated = {line["step"]: line for line in read_metrics(run_folder, "evaluation") if line["step"] in steps}
    figure = _deciding(evaluated)
    if figure is None:
        raise UserError(
            f"no kept policy of run {name} was evaluated on held-out problems, so none is known to be the best: name one with "
            f"--step, of {', '.join(map(str, steps))}"
        )
    _refuse_benchmarks(run_folder)
    values = _values(evaluated, figure)
    best = _highest(values)
    return Choice(best, _why(best, values, steps, _FIGURES[figure]), len(values))


def best_step(evaluated: Mapping[int, Mapping[str, Any]]) -> int | None:
    """The best of evaluated policies, given their figures by step; None without a figure that decides."""
    figure = _deciding(evaluated)
    return None if figure is None else _highest(_values(evaluated, figure))


def _deciding(evaluated: Mapping[int, Mapping[str, Any]]) -> str | None:
    return next((name for name in _FIGURES if _values(evaluated, name)), None)


def _highest(values: Mapping[int, float]) -> int:
    """The step of the highest figure, the earlier of equal ones."""
    return max(values, key=lambda step: (values[step], -step))


def _refuse_benchmarks(run_folder: Path) -> None:
    """UserError where the held-out problems are a benchmark's, which is to judge the policy and must not choose it."""
    found = {task.held_out.path for task in load_config(run_folder, []).tasks if is_benchmark(task.held_out.path)}
    if found:
        raise UserError(
            f"the held-out problems of run {run_folder.name} are those of a benchmark ({', '.join(sorted(map(str, found)))}), "
            "which must not choose a policy: name a step with --step"
        )


def _values(evaluated: Mapping[int, Mapping[str, Any]], figure: str) -> dict[int, float]:
    return {step: line[figure] for step, line in evaluated.items() if line.get(figure) is not None}


def _why(best: int, values: Mapping[int, float], steps: Collection[int], figure: str) -> str:
    others = [step for step, value in values.items() if value == values[best] and step != best]
    same = f"; step {' and '.join(map(str, others))} had the same, and the earlier one is taken" if others else ""
    unknown = len(steps) - len(values)
    rest = f"; {unknown} more kept {'policies were' if unknown > 1 else 'policy was'} not evaluated" if unknown else ""
    if len(values) == 1:
        return f"Step {best} is the only kept policy that was evaluated on the run's held-out problems{rest}."
    return (
        f"Step {best} has the highest {figure} on the run's held-out problems of the {len(values)} kept policies that were "
        f"evaluated during training{same}{rest}. No benchmark had a say."
    )
