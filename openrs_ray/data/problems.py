"""Loading problems: rows in, `Problem` records out, with a report of what was left out and why.

Every row becomes a problem or is counted in the report. Prompts are templated and tokenised here, once; a prompt over
the limit is dropped, never cut; a gold answer that cannot be parsed is dropped, never rewarded.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from openrs_ray.config import Columns, Data
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.data.rows import Row, read_rows
from openrs_ray.data.texts import letters_key
from openrs_ray.errors import UserError
from openrs_ray.rewards.extraction import last_boxed
from openrs_ray.samples import Problem

Gold = tuple[str, ...]

_HELD_OUT = 0x4F5554
"""Sets this draw apart from others of the same seed."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of the rows: rows = kept + too_long + unparseable."""

    path: str
    rows: int
    kept: int
    too_long: int
    """Prompts over the limit."""
    unparseable: int
    """Gold answers that are missing or that the accuracy check cannot read."""
    longest_prompt: int
    """Tokens of the longest prompt that was kept."""

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
) -> Loaded:
    """The problems of `data.path`, indexed 0, 1, 2, ... in file order.

    Held-out problems load the same way: `load_problems(data.model_copy(update={"path": evaluation.path}), ...)`.
    `parseable` says which golds (accepted answers) completions can be compared with. With `whole_golds` a gold is its whole
    cell, as `rewards.extraction: published` reads it.
    Raises UserError when the data cannot be read, a column is missing, too many gold answers are unparseable, or no
    problem is left.
    """
    rows = read_rows(data.path, data.split, data.subset)
    _check_columns(rows, data)
    texts = [_text(row, data, number) for number, row in enumerate(rows, start=1)]
    cells = [row[data.columns.answer] for row in rows]
    golds = [whole_cell(cell) if whole_golds else gold_answers(cell, data.columns) for cell in cells]
    readable = parseable(golds)
    usable = [(text, gold) for text, gold, known in zip(texts, golds, readable, strict=True) if known]
    unparseable = [(n, rows[n - 1][data.columns.answer]) for n, known in enumerate(readable, start=1) if not known]
    _check_share(unparseable, len(rows), data)
    prompts = tokenize_prompts(data, [text for text, _ in usable], tokenizer) if usable else []
    short = [(*problem, ids) for problem, ids in zip(usable, prompts, strict=True) if len(ids) <= max_prompt_tokens]
    problems = tuple(Problem(index, text, ids, gold) for index, (text, gold, ids) in enumerate(short))
    too_long = len(usable) - len(problems)
    if not problems:
        raise UserError(
            f"none of the {len(rows)} problems of {data.path} can be used: {too_long} prompts are longer than "
            f"rollout.max_prompt_tokens ({max_prompt_tokens}), {len(unparseable)} gold answers cannot be parsed"
        )
    longest = max(len(problem.prompt_ids) for problem in problems)
    report = LoadReport(data.path, len(rows), len(problems), too_long, len(unparseable), longest)
    return Loaded(problems, report)


def hold_out(problems: Sequence[Problem], count: int, seed: int) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """What is left to train on, and `count` problems that a seed picks; each part indexed 0, 1, 2, ... in its old order.

    Problems with the same letters and digits go together: what is held out is not trained on in another spelling.
    """
    keys = [letters_key(problem.text) or problem.text for problem in problems]
    first = dict(zip(reversed(keys), reversed(problems), strict=True))
    texts = list(dict.fromkeys(keys))
    picked = np.random.Generator(np.random.PCG64([seed, _HELD_OUT])).permutation(len(texts))[:count]
    held = {texts[number] for number in picked}
    kept = [problem for problem, key in zip(problems, keys, strict=True) if key not in held]
    return _indexed(kept), _indexed([first[text] for text in texts if text in held])


def _indexed(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(replace(problem, index=index) for index, problem in enumerate(problems))


def gold_answers(value: Any, columns: Columns) -> Gold:
    """The accepted answers in one cell: a string, a number, or a list of either. Empty when there is none.

    Of a text that holds \\boxed{} (a whole solution, say) the last boxed answer counts; with `answer_after`, what
    follows the marker's last occurrence.
    """
    cells = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    answers = [_answer(cell, columns.answer_after) for cell in cells]
    return tuple(answer for answer in answers if answer)


def whole_cell(value: Any) -> Gold:
    """The text of one cell as the only accepted answer; empty text where there is none."""
    return ("" if value is None else str(value),)


def _answer(cell: Any, after: str | None) -> str:
    if cell is None or isinstance(cell, bool):
        return ""
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return ""
        return f"{cell:.0f}" if cell.is_integer() else repr(cell)
    text = str(cell)
    if after is not None:
        _, marker, text = text.rpartition(after)
        if not marker:
            return ""
    boxed = last_boxed(text)
    return (text if boxed is None else boxed).strip()


def _text(row: Row, data: Data, number: int) -> str:
    text = row[data.columns.problem]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"row {number} of {data.path} has no text in column {data.columns.problem!r}")
    return text


def _check_columns(rows: list[Row], data: Data) -> None:
    for field, column in (("problem", data.columns.problem), ("answer", data.columns.answer)):
        for number, row in enumerate(rows, start=1):
            if column not in row:
                raise UserError(
                    f"row {number} of {data.path} has no column {column!r} (it has: {', '.join(map(str, row))}): "
                    f"set data.columns.{field}"
                )


def _check_share(unparseable: list[tuple[int, Any]], rows: int, data: Data) -> None:
    if len(unparseable) <= data.max_unparseable_share * rows:
        return
    number, example = unparseable[0]
    shown = repr(example)
    raise UserError(
        f"{len(unparseable)} of {rows} gold answers in {data.path} cannot be parsed, more than "
        f"data.max_unparseable_share ({data.max_unparseable_share:g}) allows; the first is in row {number}: "
        f"{shown if len(shown) <= 120 else shown[:117] + '...'}"
    )
