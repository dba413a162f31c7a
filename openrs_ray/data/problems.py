"""Loads problems: rows become `Problem` records, but for too long prompts and golds that cannot be parsed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from openrs_ray.common.formatting import quoted
from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.data.answers import Gold, gold_answers, tests_in, whole_cell
from openrs_ray.data.columns import CellError, column_cells, read_cells, top_column
from openrs_ray.data.libraries import library_rows
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.data.rows import Row, read_rows
from openrs_ray.data.texts import letters_key
from openrs_ray.data.tools import Tools
from openrs_ray.data.turns import Asked, continued, has_system_message, read_problem, text_of
from openrs_ray.errors import UserError
from openrs_ray.records import Problem
from openrs_ray.rewards.answers import kinds
from openrs_ray.rewards.libraries.names import kind_of

_MATHEMATICS = Answer()
_HELD_OUT = 0x4F5554
"""Separates this draw from others of the same seed."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Number of rows: rows = kept + too_long + unparseable."""

    path: str
    rows: int
    kept: int
    too_long: int
    unparseable: int
    """Golds that are missing or that the accuracy check cannot read."""
    longest_prompt: int
    """In tokens, of those kept."""

    def __str__(self) -> str:
        return (
            f"{self.kept} of {self.rows} problems from {self.path} "
            f"({self.too_long} prompts too long, {self.unparseable} gold answers unparseable; "
            f"longest prompt {self.longest_prompt} tokens)"
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    problems: tuple[Problem, ...]
    report: LoadReport


def load_problems(
    data: Data,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    parseable: Callable[[Sequence[Gold]], list[bool]],
    whole_golds: bool = False,
    task: str = "",
    answer: Answer = _MATHEMATICS,
    tools: Tools = (),
) -> Loaded:
    """Problems of `data.path`, indexed 0, 1, 2, ... in file order. UserError where the data cannot be used.

    `parseable` says which golds completions can be compared with; `answer` how their rows belong to them; `whole_golds`:
    a gold is its whole cell.
    """
    rows = library_rows(data) if kind_of(data.path) else read_rows(data.path, data.split, data.subset)
    columns = data.columns
    questions = column_cells(rows, columns.problem, data.path, "data.columns.problem")
    cells = _gold_cells(rows, data, answer)
    for setting, column in kinds.columns(answer).items():
        column_cells(rows, column, data.path, setting)
    asked = [_problem(question, data, number) for number, question in enumerate(questions, start=1)]
    read = whole_cell if whole_golds else partial(gold_answers, after=columns.answer_after)
    golds = read_cells(cells, read if answer.kind != "code" else tests_in, data.path, columns.answer)
    asked = [
        continued(problem, kinds.addition(answer, gold, row))
        for problem, gold, row in zip(asked, golds, rows, strict=True)
    ]
    readable = [
        known and kinds.readable(answer, gold, row)
        for known, gold, row in zip(parseable(golds), golds, rows, strict=True)
    ]
    usable = [
        (problem, gold, row) for problem, gold, row, known in zip(asked, golds, rows, readable, strict=True) if known
    ]
    unparseable = [(n, cells[n - 1]) for n, known in enumerate(readable, start=1) if not known]
    _check_share(unparseable, len(rows), data, answer.kind)
    prompts = tokenize_prompts(data, [problem for problem, *_ in usable], tokenizer, tools) if usable else []
    short = [(*problem, ids) for problem, ids in zip(usable, prompts, strict=True) if len(ids) <= max_prompt_tokens]
    problems = tuple(
        Problem(index, text_of(problem), ids, gold, task, row) for index, (problem, gold, row, ids) in enumerate(short)
    )
    too_long = len(usable) - len(problems)
    if not problems:
        raise UserError(
            f"none of the {len(rows)} problems of {data.path} can be used: {too_long} prompts are longer than "
            f"rollout.max_prompt_tokens ({max_prompt_tokens}), {len(unparseable)} gold answers cannot be parsed"
        )
    longest = max(len(problem.prompt_ids) for problem in problems)
    report = LoadReport(data.path, len(rows), len(problems), too_long, len(unparseable), longest)
    return Loaded(problems, report)


def _gold_cells(rows: Sequence[Row], data: Data, answer: Answer) -> list[Any]:
    """Empty ones where nothing is checked and there is no such column."""
    if answer.kind == "none" and not any(top_column(data.columns.answer, row) for row in rows):
        return [None] * len(rows)
    return column_cells(rows, data.columns.answer, data.path, "data.columns.answer")


def hold_out(problems: Sequence[Problem], count: int, seed: int) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Training problems and `count` held-out ones, each part indexed anew in its old order."""
    # Spellings of one problem stay together: a held-out problem is not trained on in another one.
    keys = [letters_key(problem.text) or problem.text for problem in problems]
    first = dict(zip(reversed(keys), reversed(problems), strict=True))
    texts = list(dict.fromkeys(keys))
    picked = np.random.Generator(np.random.PCG64([seed, _HELD_OUT])).permutation(len(texts))[:count]
    held = {texts[number] for number in picked}
    kept = [problem for problem, key in zip(problems, keys, strict=True) if key not in held]
    return _indexed(kept), _indexed([first[text] for text in texts if text in held])


def _indexed(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(replace(problem, index=index) for index, problem in enumerate(problems))


def _problem(question: Any, data: Data, number: int) -> Asked:
    where = f"row {number} of {data.path}"
    try:
        asked = read_problem(question)
    except CellError as error:
        raise UserError(f"{where} has no text in column {data.columns.problem!r}: {error}") from error
    if not text_of(asked).strip():
        raise UserError(f"{where} has no text in column {data.columns.problem!r}")
    if data.system_prompt and has_system_message(asked):
        raise UserError(f"{where} has a system message of its own: leave out data.system_prompt")
    return asked


def _check_share(unparseable: list[tuple[int, Any]], rows: int, data: Data, kind: str) -> None:
    if len(unparseable) <= data.max_unparseable_share * rows:
        return
    number, example = unparseable[0]
    raise UserError(
        f"{len(unparseable)} of {rows} gold answers in {data.path} cannot be parsed (answer.kind {kind}), more than "
        f"data.max_unparseable_share ({data.max_unparseable_share:g}) allows; the first is in row {number}: "
        f"{quoted(example, 120)}"
    )
