"""Loads the problems of each task: those to train on and the held-out ones."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.config.data import Columns
from openrs_ray.config.names import recipes, runs_folder
from openrs_ray.config.rollout import Rollout
from openrs_ray.config.schema import RunConfig
from openrs_ray.config.task import Task
from openrs_ray.data.answers import Gold
from openrs_ray.data.problems import hold_out, load_problems
from openrs_ray.data.rows import check_there
from openrs_ray.data.texts import same_text_key
from openrs_ray.data.tools import Tools
from openrs_ray.errors import UserError
from openrs_ray.models import bundled as builtin
from openrs_ray.records import Problem
from openrs_ray.rewards.answers import kinds
from openrs_ray.rewards.libraries.names import kind_of


@dataclass(frozen=True)
class TaskProblems:
    """Problems of all tasks, one task's after the other's, indexed anew over all of them."""

    problems: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    notes: tuple[str, ...]
    """Fate of the rows of each data set, and of held-out problems."""


def check_paths(config: RunConfig) -> None:
    """UserError where data is not there, or held-out problems are training problems unasked."""
    for task in config.tasks:
        if not config.evaluation.on_training_data:
            _check_apart(task)
    for path in (path for task in config.tasks for path in (task.data.path, task.held_out.path) if path):
        try:
            check_there(path)
        except UserError as error:
            raise UserError(f"{error}{_its_recipe(path)}") from error


def _its_recipe(path: str) -> str:
    """Hint at the command that makes a data set of the project's own; "" for other files."""
    file = Path(path).expanduser()
    name = f"{file.stem}-data"
    own = file.parent == runs_folder() / "data" / file.stem and name in recipes("data")
    return f"; python -m launch.curate {name} makes this one" if own else ""


def load_tasks(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, tools: Mapping[str, Tools] = MappingProxyType({})
) -> TaskProblems:
    """UserError where data cannot be used, or is too little for a step. `tools`: those of each task's environment."""
    loaded = [_load(task, config, tokenizer, tools.get(task.name, ())) for task in config.tasks]
    total = sum(Fraction(str(task.weight)) for task in config.tasks)
    for task, part in zip(config.tasks, loaded, strict=True):
        _check_enough(task, part, config, Fraction(str(task.weight)) / total)
    whole = TaskProblems(
        _indexed([problem for part in loaded for problem in part.problems]),
        _indexed([problem for part in loaded for problem in part.held_out]),
        tuple(note for part in loaded for note in part.notes),
    )
    return replace(whole, notes=(*whole.notes, *_shared(config, whole)))


def _load(task: Task, config: RunConfig, tokenizer: PreTrainedTokenizerBase, tools: Tools) -> TaskProblems:
    data, held, limit = task.data, task.held_out, config.rollout.max_prompt_tokens
    parseable = kinds.parseable(task.answer, task.rewards)
    keeps_all = task.rewards.unparseable_gold == "reward"
    rest = task.rewards.extraction == "published", task.name, task.answer, tools
    train = load_problems(data, tokenizer, limit, _given if keeps_all else parseable, *rest)
    notes = [str(train.report)]
    problems, held_out = hold_out(train.problems, held.hold_out, config.evaluation.hold_out_seed)
    if held.path is not None:
        elsewhere: dict[str, Any] = {"path": held.path, "split": held.split or data.split}
        if kind_of(held.path):
            elsewhere |= {"parameters": _evaluated(task), "curriculum": ()}
        if held.path in builtin.DATA and data.path not in builtin.DATA:
            elsewhere["columns"] = Columns()  # data.columns are those of the user's own file
        loaded = load_problems(data.model_copy(update=elsewhere), tokenizer, limit, parseable, *rest)
        held_out = loaded.problems[: held.problems]
        notes.append(str(loaded.report))
    elif held_out:
        left_out = len(train.problems) - len(problems) - len(held_out)
        notes.append(
            f"{len(held_out)} problems held out, and {left_out} rows left out that are the same in other spellings"
        )
    if len(held_out) == 1 and not task.right_or_wrong:
        raise UserError(
            f"answer.kind {task.answer.kind} is evaluated by the mean reward with an interval, which takes two held-out "
            "problems at least"
        )
    return TaskProblems(problems, held_out, tuple(f"{task.name}: {note}" if task.name else note for note in notes))


def _shared(config: RunConfig, loaded: TaskProblems) -> Iterator[str]:
    """Also between tasks: a problem held out of one may be one of another's."""
    if not any(task.held_out.path for task in config.tasks) and len(config.tasks) == 1:
        return
    trained = {same_text_key(problem.text) for problem in loaded.problems}
    if shared := len(trained & {same_text_key(problem.text) for problem in loaded.held_out}):
        yield f"{shared} of the {len(loaded.held_out)} held-out problems are trained on, too"


def _check_enough(task: Task, loaded: TaskProblems, config: RunConfig, share: Fraction) -> None:
    """UserError where a step would ask the same problem twice."""
    per_step, has = config.rollout.problems_per_step, len(loaded.problems)
    needed = math.ceil(per_step * share)
    if has >= needed:
        _check_stages(task, loaded, config.rollout, needed)
        return
    held = f" besides the {len(loaded.held_out)} of evaluation.hold_out" if task.held_out.hold_out else ""
    of_it = f", {needed} of them of task {task.name}," if task.name else ""
    usable = "usable problem" if has == 1 else "usable problems"
    raise UserError(
        f"rollout.problems_per_step is {per_step}{of_it} but {task.data.path} has only {has} {usable}{held}: "
        f"lower it or give more data"
    )


def _check_stages(task: Task, loaded: TaskProblems, rollout: Rollout, needed: int) -> None:
    """UserError where a stage passes over so many problems that a step would ask one twice."""
    for number, stage in enumerate(rollout.stages and rollout.each_stage):
        least, most = stage.min_prompt_tokens, stage.max_prompt_tokens or rollout.max_prompt_tokens
        fit = sum(least <= len(problem.prompt_ids) <= most for problem in loaded.problems)
        if fit < needed:
            raise UserError(
                f"rollout.stages[{number}] takes prompts of {least} to {most} tokens, as {fit} of the {len(loaded.problems)} "
                f"problems of {task.data.path} have, and a step needs {needed}: lower its min_prompt_tokens or raise its "
                "max_prompt_tokens"
            )


def _indexed(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(replace(problem, index=index) for index, problem in enumerate(problems))


def _check_apart(task: Task) -> None:
    """UserError where held-out problems are training problems unasked."""
    data, evaluation, place = task.data, task.held_out, f" of task {task.name}" if task.name else ""
    if evaluation.path is None or (kind_of(evaluation.path) and _evaluated(task) != data.parameters):
        return
    one, other = Path(data.path).expanduser(), Path(evaluation.path).expanduser()
    same = other.exists() and one.exists() and one.samefile(other)
    same_split = (evaluation.split or data.split) == data.split
    if (same and one.is_file()) or ((same or data.path == evaluation.path) and same_split):
        raise UserError(
            f"evaluation.path{place} is data.path ({data.path}), so the accuracy would be one on training problems: set "
            "evaluation.hold_out to keep some of them out instead, or evaluation.on_training_data true if that is meant"
        )


def _evaluated(task: Task) -> dict[str, Any]:
    """Parameters of held-out problems of a library."""
    if task.held_out.parameters is not None:
        return task.held_out.parameters
    return task.data.parameters if task.held_out.path == task.data.path else {}


def _given(golds: Sequence[Gold]) -> list[bool]:
    return [bool(gold) for gold in golds]
