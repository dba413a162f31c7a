"""Benchmarks of the paper as problems with golds."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from openrs_ray.common.formatting import quoted
from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.data.answers import gold_answers
from openrs_ray.data.columns import CellError
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.data.rows import Row, read_rows
from openrs_ray.data.turns import plain_problem
from openrs_ray.errors import UserError
from openrs_ray.evaluation.check import MATHEMATICS
from openrs_ray.records import Problem
from openrs_ray.rewards.answers import kinds
from openrs_ray.rewards.answers.choice import LETTERS

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Benchmark:
    name: str
    title: str
    """As the tables spell it."""
    source: str
    """Hub id or local file."""
    split: str = "train"
    problems: int | None = None
    answer: Answer = MATHEMATICS
    """Kind of its answers."""
    opening: int | None = None
    """Problems with the same first so many characters are parts of one exercise."""


KNOWN = {
    benchmark.name: benchmark
    for benchmark in (
        # The ids are those of the public task file of the re-evaluation (arXiv 2504.07086).
        Benchmark("aime24", "AIME24", "HuggingFaceH4/aime_2024", "train", 30),
        Benchmark("aime25", "AIME25", "yentinglin/aime_2025", "train", 30),
        Benchmark("amc23", "AMC23", "knoveleng/AMC-23", "train", 40),
        Benchmark("math500", "MATH-500", "HuggingFaceH4/MATH-500", "test", 500),
        Benchmark("minerva", "Minerva", "knoveleng/Minerva-Math", "train", 272, opening=60),
        # Gated on the Hub: a copy of gpqa_diamond.csv is given with --data.
        Benchmark(
            "gpqa_diamond",
            "GPQA Diamond",
            "Idavidrein/gpqa",
            "train",
            198,
            Answer(kind="choice", choices="choices", show_choices=True),
        ),
        Benchmark("olympiadbench", "OlympiadBench", "knoveleng/OlympiadBench", "train", 675, opening=60),
    )
}


def is_benchmark(path: str | None) -> bool:
    """True for the name or the source of a known benchmark."""
    return path in KNOWN or any(path == benchmark.source for benchmark in KNOWN.values())


_PROBLEM_COLUMNS = ("problem", "question")
_ANSWER_COLUMNS = ("final_answer", "answer", "solution")
"""The first that a row has counts; the gold is in the last box of a solution."""


_GPQA_OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_NOTHING_ELSE = Data(path="none")


@dataclass(frozen=True, slots=True)
class Prompt:
    """`template` with {problem}, between `data`'s system prompt, examples and suffix."""

    name: str
    template: str = "{problem}"
    data: Data = _NOTHING_ELSE


PAPER_PROMPT = Prompt(
    "paper",
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the following "
    "format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) where ANSWER is just "
    "the final number or expression that solves the problem. Think step by step before answering.\n\n{problem}",
)
"""User turn of the published evaluation, which has no system prompt."""


@dataclass(frozen=True, slots=True)
class Task:
    problem: Problem
    tolerance: float | None = None
    """Largest absolute error of a numeric answer."""
    cluster: str | None = None
    """Equal for problems that belong together."""
    answer: Answer = MATHEMATICS
    """Kind of its answer."""


def chosen(names: Sequence[str], sources: dict[str, str]) -> list[Benchmark]:
    """Benchmarks with local files or Hub ids of `sources`. UserError for names that do not fit together."""
    if not names:
        raise UserError(f"--benchmarks names none: known are {', '.join(KNOWN)}")
    unknown = [name for name in names if name not in KNOWN and name not in sources]
    if unknown:
        raise UserError(
            f"no benchmark {unknown[0]}: known are {', '.join(KNOWN)}; for one of your own give --data {unknown[0]}=FILE"
        )
    unused = [name for name in sources if name not in names]
    if unused:
        raise UserError(f"--data names {unused[0]}, which --benchmarks does not ask for")
    known = {name: KNOWN.get(name, Benchmark(name, name, "")) for name in names}
    return [replace(one, source=sources.get(name, one.source)) for name, one in known.items()]


def load_tasks(benchmark: Benchmark, prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> tuple[Task, ...]:
    """All problems, in order. UserError where the source or a row cannot be read."""
    try:
        rows = read_rows(benchmark.source, benchmark.split, given_by=f"--data {benchmark.name}=FILE")
    except UserError as error:
        known = benchmark == KNOWN.get(benchmark.name)
        hint = f"; give a local copy with --data {benchmark.name}=FILE" if known else ""
        raise UserError(f"benchmark {benchmark.name}: {error}{hint}") from error
    if benchmark.problems not in (None, len(rows)):
        raise UserError(
            f"benchmark {benchmark.name} has {benchmark.problems} problems but {benchmark.source} has {len(rows)}: give it "
            f"another name, such as --benchmarks my_{benchmark.name} --data my_{benchmark.name}=FILE"
        )
    rows = [_lettered(row) for row in rows]
    texts = [_read(plain_problem, row, _PROBLEM_COLUMNS, number, benchmark) for number, row in enumerate(rows, start=1)]
    golds = [_gold(row, number, benchmark) for number, row in enumerate(rows, start=1)]
    for number, (row, gold) in enumerate(zip(rows, golds, strict=True), start=1):
        if not kinds.readable(benchmark.answer, gold, row):
            raise UserError(
                f"row {number} of benchmark {benchmark.name} ({benchmark.source}) has a gold that cannot be read as "
                f"{benchmark.answer.kind}: {quoted(gold, 120)}"
            )
    texts = [
        text + kinds.addition(benchmark.answer, gold, row) for text, gold, row in zip(texts, golds, rows, strict=True)
    ]
    asked = [prompt.template.replace("{problem}", text) for text in texts]
    ids = tokenize_prompts(prompt.data, asked, tokenizer)
    problems = [
        Problem(i, text, prompt_ids, gold, row=row)
        for i, (text, prompt_ids, gold, row) in enumerate(zip(texts, ids, golds, rows, strict=True))
    ]
    return tuple(
        Task(problem, _tolerance(row), _cluster(row, problem, benchmark.opening), benchmark.answer)
        for problem, row in zip(problems, rows, strict=True)
    )


def clusters(tasks: Sequence[Task]) -> np.ndarray | None:
    """[problems], equal for problems that belong together; None where none do."""
    names = [f"problem {number}" if t.cluster is None else f"cluster {t.cluster}" for number, t in enumerate(tasks)]
    _, numbers = np.unique(names, return_inverse=True)
    return numbers if numbers.max(initial=-1) + 1 < len(tasks) else None


def fingerprint(tasks: Sequence[Task]) -> str:
    kinds_of = [repr(t.answer) for t in tasks if t.answer.kind != "math"]
    content = repr([(t.problem.prompt_ids, t.problem.gold, t.tolerance) for t in tasks]) + "".join(kinds_of)
    return hashlib.sha256(content.encode()).hexdigest()


def _read(read: Callable[[Any], Value], row: Row, columns: Sequence[str], number: int, benchmark: Benchmark) -> Value:
    """Value of the first column that is not empty."""
    where = f"row {number} of benchmark {benchmark.name} ({benchmark.source})"
    column = next((name for name in columns if row.get(name) not in (None, "", [])), None)
    if column is None:
        raise UserError(f"{where} has nothing in {' or '.join(columns)}; it has the columns {', '.join(map(str, row))}")
    try:
        return read(row[column])
    except CellError as error:
        raise UserError(f"{where}, column {column!r}: {error}") from error


def _gold(row: Row, number: int, benchmark: Benchmark) -> tuple[str, ...]:
    gold = _read(gold_answers, row, _ANSWER_COLUMNS, number, benchmark)
    if "final_answer" in row:
        # Several values of one answer each stand between dollars of their own, which a reader could take for alternatives.
        gold = tuple(answer.replace("$", "") for answer in gold)
    if not gold:
        raise UserError(f"row {number} of benchmark {benchmark.name} ({benchmark.source}) has no gold answer")
    return gold


def _lettered(row: Row) -> Row:
    """A row of GPQA's own files with its options in one column, in an order that its text draws."""
    if not {"Question", *_GPQA_OPTIONS} <= row.keys():
        return row
    options = [str(row[name]).strip() for name in _GPQA_OPTIONS]
    drawn = sorted(options, key=lambda option: hashlib.sha256(f"{row['Question']}\n{option}".encode()).digest())
    return {"problem": row["Question"], "choices": drawn, "answer": LETTERS[drawn.index(options[0])]}


def _cluster(row: Row, problem: Problem, opening: int | None) -> str | None:
    """The row's, or the common beginning of an exercise's parts."""
    if row.get("cluster") not in (None, ""):
        return str(row["cluster"])
    return None if opening is None else problem.text[:opening]


def _tolerance(row: Row) -> float | None:
    """OlympiadBench's `error`: "1e-1" is an absolute tolerance of 0.1."""
    try:
        return float(row.get("error") or 0) or None
    except ValueError:
        return None
