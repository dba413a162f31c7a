"""Completions to read: found by filter and order, a page at a time, out of any number of them.

A query looks at an index of 39 bytes per completion, which is made once of five columns of each file in its steps, and kept in
the run's folder where there are many files. Of texts only those of the page are read; a query with `text` reads the texts of all
completions that its other filters leave.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.compute as pc

from openrs_ray.errors import UserError
from openrs_ray.evaluation.store import SCHEMA as EVALUATED
from openrs_ray.report.completion_index import STATUSES, Index, Snapshot, index_of, index_of_evaluation
from openrs_ray.report.completion_reading import read_columns
from openrs_ray.report.completion_tokens import TOKEN_COLUMNS, tokens_of
from openrs_ray.run.completion_files import RecordFile
from openrs_ray.run.completions import SCHEMA

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from openrs_ray.data.completions import Decoder

Phase = Literal["train", "replaced", "evaluation"]
Order = Literal["step", "best", "worst", "longest", "shortest", "most_changed"]

_COLUMNS = [name for name in SCHEMA.names if name not in (*TOKEN_COLUMNS, "versions")]
_EVALUATED = [name for name in EVALUATED.names if name != "token_ids"]
_SEARCHED = ("problem", "text")
_AT_ONCE = 4
_KEPT_RESULTS = 8


@dataclass(frozen=True, slots=True)
class Query:
    """All filters together; None and () let everything through."""

    phase: Phase = "train"
    steps: tuple[int, int] | None = None
    """From, to, both included."""
    status: tuple[str, ...] = ()
    reward: tuple[float, float] | None = None
    length: tuple[int, int] | None = None
    """In sampled tokens."""
    problem: int | None = None
    """problem_index"""
    task: str | None = None
    text: str | None = None
    """Part of the problem or the completion, in upper or lower case."""
    order: Order = "step"
    """best, worst: by reward, without those that have none. most_changed: problems by how far their mean reward has moved from
    the first step with them to the last, each with all its completions; without problems of a single step."""


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    """Columns of `openrs_ray.run.completions` but those of tokens; `rewards` as a dict."""
    total: int
    """Completions that the query finds."""


def find(run: Path, query: Query, offset: int = 0, limit: int = 20) -> Page:
    """Some of the completions that a run's query finds. RunError where a file is damaged."""
    return _page(index_of(run.resolve(), query.phase), query, offset, limit, _COLUMNS)


def find_evaluated(folder: Path, query: Query, offset: int = 0, limit: int = 20) -> Page:
    """The same of a model's folder in an evaluation by `launch.evaluate`, with its columns.

    Phase and steps do not matter; in orders and filters a correct completion has the reward 1 and a wrong one 0.
    """
    query = replace(query, phase="train", steps=None)
    return _page(index_of_evaluation(folder.resolve()), query, offset, limit, _EVALUATED)


def one(
    run: Path,
    phase: Phase,
    step: int,
    attempt: int,
    position: int,
    sample: int,
    tokenizer: "PreTrainedTokenizerBase | Decoder | None" = None,
) -> dict[str, Any]:
    """A completion with its `tokens`: {"id", "text", "logprob", "advantage", "version", "sampled": lists of equal length}.

    `text` is null without `tokenizer`; log-probability, advantage and version are null where an environment gave the token.
    UserError where there is no such completion, RunError where the file is damaged.
    """
    wanted = f"completion {phase} step {step} attempt {attempt} position {position} sample {sample}"
    for file in index_of(run.resolve(), phase).snapshot((step, step)).files:
        if file.attempt == attempt:
            keys = read_columns(file.path, ("position", "sample"))
            found = np.flatnonzero((keys["position"].to_numpy() == position) & (keys["sample"].to_numpy() == sample))
            if len(found):
                (row,) = _rows(file, found[:1], SCHEMA.names)
                tokens = tokens_of(row, tokenizer)
                return {name: row[name] for name in _COLUMNS} | {"tokens": tokens}
    raise UserError(f"the record in {run} has no {wanted}")


def _page(index: Index, query: Query, offset: int, limit: int, columns: Sequence[str]) -> Page:
    snapshot = index.snapshot(query.steps)
    places = snapshot.found.get(query)  # a dictionary of several threads: another may clear it now
    if places is None:
        places = _places(snapshot, query)
        if len(snapshot.found) >= _KEPT_RESULTS:
            snapshot.found.clear()
        snapshot.found[query] = places
    return Page(_rows_at(snapshot, places[offset : offset + limit], columns), len(places))


def _places(snapshot: Snapshot, query: Query) -> np.ndarray:
    """All places in the snapshot that the query finds, in its order."""
    places = np.flatnonzero(_passing(snapshot, query))
    if query.text:
        places = places[_containing(snapshot, snapshot.entries[places], query.text)]
    return np.take(places, _ordered(snapshot.entries[places], query.order))


def _passing(snapshot: Snapshot, query: Query) -> np.ndarray:
    entries = snapshot.entries
    passing = np.ones(len(entries), dtype=np.bool_)
    for name, bounds in (("step", query.steps), ("reward", query.reward), ("length", query.length)):
        if bounds is not None:
            passing &= (entries[name] >= bounds[0]) & (entries[name] <= bounds[1])
    if query.status:
        passing &= np.isin(entries["status"], [STATUSES.index(each) for each in query.status if each in STATUSES])
    if query.problem is not None:
        passing &= entries["problem"] == query.problem
    if query.task is not None:
        passing &= np.isin(entries["task"], [n for n, name in enumerate(snapshot.tasks) if (name or "") == query.task])
    if query.order in ("best", "worst"):
        passing &= ~np.isnan(entries["reward"])
    return passing


def _containing(snapshot: Snapshot, entries: np.ndarray, text: str) -> np.ndarray:
    """bool [entries]; entries of a file lie together, and a file's texts are dropped when they have been looked through."""
    edges = np.flatnonzero(np.diff(entries["file"], prepend=-1, append=-1))
    parts = [entries[start:end] for start, end in pairwise(edges)]

    def search(part: np.ndarray) -> np.ndarray:
        table = read_columns(snapshot.files[part["file"][0]].path, _SEARCHED, part["row"])
        found = [pc.match_substring(table[name], text, ignore_case=True) for name in _SEARCHED]
        return np.asarray(pc.fill_null(pc.or_kleene(*found), False).to_numpy())

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return np.concatenate([np.zeros(0, np.bool_), *threads.map(search, parts)])


def _ordered(entries: np.ndarray, order: Order) -> np.ndarray:
    """Places in their order; of equal ones the newest first."""
    if order == "step":
        return np.arange(len(entries))
    if order == "most_changed":
        return _most_changed(entries)
    name, sign = {"best": ("reward", -1), "worst": ("reward", 1), "longest": ("length", -1), "shortest": ("length", 1)}[
        order
    ]
    return np.asarray(np.lexsort((-np.arange(len(entries)), sign * entries[name])))


def _most_changed(entries: np.ndarray) -> np.ndarray:
    """Places of the problems of several steps, problem by problem, those that have changed most first."""
    if not len(entries):
        return np.arange(0)
    steps, problems = entries["step"].max() + 1, entries["problem"].max() + 1
    problem = entries["problem"] + (entries["task"] + 1) * problems
    judged = ~np.isnan(entries["reward"])
    visits, which, count = np.unique(
        (problem * steps + entries["step"])[judged], return_inverse=True, return_counts=True
    )
    means = np.bincount(which, entries["reward"][judged], len(visits)) / count
    known, first = np.unique(visits // steps, return_index=True)
    last = np.append(first[1:], len(visits)) - 1
    change = dict(
        zip(known[last > first].tolist(), np.abs(means[last] - means[first])[last > first].tolist(), strict=True)
    )
    kept = np.flatnonzero(np.isin(problem, [*change]))
    moved = np.array([change[each] for each in problem[kept].tolist()])
    return kept[np.lexsort((problem[kept], -moved))] if len(kept) else kept


def _rows_at(snapshot: Snapshot, places: np.ndarray, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows in the order of `places`; each file is read once."""
    chosen = snapshot.entries[places]
    rows: dict[int, dict[str, Any]] = {}
    for number in np.unique(chosen["file"]):
        own = np.flatnonzero(chosen["file"] == number)
        rows |= dict(zip(own.tolist(), _rows(snapshot.files[number], chosen["row"][own], columns), strict=True))
    return [rows[place] for place in range(len(places))]


def _rows(file: RecordFile, rows: np.ndarray, columns: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_columns(file.path, columns, rows).to_pylist()
    for row in found:
        if "rewards" in row:
            row["rewards"] = dict(row["rewards"] or ())
    return found
