"""Inputs of a curation, read and checked before anything starts."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.config.data import Data, Example
from openrs_ray.config.placement import Slots
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import Model
from openrs_ray.curation.fates import KEPT, Candidate, Fate, user_turn
from openrs_ray.curation.recipe import Judged, ModelStage, Overlaps, Recipe, Solved, Source
from openrs_ray.data.answers import cell_texts, gold_answers
from openrs_ray.data.columns import column_cells, read_cells
from openrs_ray.data.prompts import load_tokenizer, tokenize_prompts
from openrs_ray.data.rows import read_rows
from openrs_ray.data.turns import plain_problem
from openrs_ray.errors import UserError
from openrs_ray.evaluation.benchmarks import KNOWN
from openrs_ray.evaluation.subject import Subject
from openrs_ray.models.bundled import resolve_model
from openrs_ray.preparation.served import check_served


@dataclass(frozen=True)
class Inputs:
    candidates: tuple[Candidate, ...]
    """Every raw row."""
    fates: tuple[Fate, ...]
    """Dropped without text or answer."""
    evaluations: dict[str, dict[str, list[str]]]
    """Texts by stage and evaluation set."""
    tokenizers: dict[str, PreTrainedTokenizerBase]
    """Tokenizers by stage that asks a model."""
    asked: list[tuple[str, dict[str, Any]]]
    """Name and deciding settings of each stage, the sources first."""


def load_inputs(recipe: Recipe) -> Inputs:
    """UserError where anything is missing."""
    candidates: list[Candidate] = []
    fates: list[Fate] = []
    for name, source in recipe.sources.items():
        try:
            candidates += _read_source(recipe, name, source, len(candidates))
        except UserError as error:
            raise UserError(f"sources.{name}: {error}") from error
    for candidate in candidates:
        missing = "problem" if not candidate.problem.strip() else "" if candidate.answer else "answer"
        fates.append(Fate(False, f"no {missing}: in this row") if missing else KEPT)
    rows = {"seed": recipe.seed, "rows": _digest(candidates), "sources": list(recipe.sources)}
    asked: list[tuple[str, dict[str, Any]]] = [("sources", rows)]
    evaluations: dict[str, dict[str, list[str]]] = {}
    tokenizers: dict[str, PreTrainedTokenizerBase] = {}
    for name, stage in recipe.stages.items():
        settings = stage.model_dump(mode="json", exclude={"paper"})
        for added in ("system_as_user", "examples"):
            if not settings.get(added):
                settings.pop(added, None)  # a curation that began before there was this field goes on
        try:
            if isinstance(stage, Overlaps):
                evaluations[name] = {one: _evaluation(name, one, path) for one, path in stage.against.items()}
                settings["against"] = {one: _digest(texts) for one, texts in evaluations[name].items()}
            elif isinstance(stage, Solved | Judged):
                tokenizers[name] = _check_model(stage, recipe.engine, recipe.placement)
                settings["model"] = Subject(name, name, resolve_model(stage.model), None).identity()
        except UserError as error:
            raise UserError(f"stages.{name}: {error}") from error
        asked.append((name, settings))
    return Inputs(tuple(candidates), tuple(fates), evaluations, tokenizers, asked)


def prompts(
    stage: Solved | Judged, candidates: Sequence[Candidate], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, ...]]:
    turns = [user_turn(stage, candidate) for candidate in candidates]
    return _ask(stage, turns, tokenizer) if turns else []


def _ask(stage: ModelStage, turns: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    data = Data(
        path="none",
        system_prompt=stage.system_prompt,
        system_as_user=stage.system_as_user,
        examples=_examples(stage) if isinstance(stage, Solved) else (),
    )
    return tokenize_prompts(data, turns, tokenizer)


def _examples(stage: Solved) -> tuple[Example, ...]:
    turns = [user_turn(stage, Candidate(0, "", example.problem, None, ())) for example in stage.examples]
    return tuple(Example(problem=turn, response=one.response) for turn, one in zip(turns, stage.examples, strict=True))


def _read_source(recipe: Recipe, name: str, source: Source, start: int) -> list[Candidate]:
    path, columns = source.path or _curated_file(recipe, source), source.columns
    wanted = {"problem": columns.problem, "answer": columns.answer}
    if columns.solution is not None:
        wanted["solution"] = columns.solution
    elif source.curated is not None:
        wanted["solution"] = "solution"
    needed = tuple(wanted.values()) if source.dropped_by is None else None
    rows = read_rows(path, source.split, source.subset, needed, f"sources.{name}.path")
    if source.dropped_by is not None:
        rows = [row for row in rows if not row["kept"]]
    rows = rows[: source.first]
    cells = {
        field: column_cells(rows, column, path, f"sources.{name}.columns.{field}") for field, column in wanted.items()
    }
    read: dict[str, Callable[[Any], Any]] = {
        "problem": lambda cell: "" if cell is None else plain_problem(cell),
        "answer": partial(gold_answers, after=columns.answer_after),
        "solution": lambda cell: None if cell is None else "\n".join(cell_texts(cell)),
    }
    fields = {field: read_cells(cells[field], read[field], path, column) for field, column in wanted.items()}
    solutions = fields.get("solution", [None] * len(rows))
    found = zip(fields["problem"], solutions, fields["answer"], strict=True)
    return [Candidate(number, name, *parts) for number, parts in enumerate(found, start=start)]


def _curated_file(recipe: Recipe, source: Source) -> str:
    folder = recipe.folder.expanduser() / str(source.curated)
    if source.dropped_by is None:
        found = [folder / f"{source.curated}.parquet"]
    else:
        found = sorted(folder.glob(f"[0-9][0-9]-{source.dropped_by}.parquet"))
    if not found or not found[0].is_file():
        what = f"stage {source.dropped_by} of {source.curated}" if source.dropped_by else f"the set {source.curated}"
        raise UserError(f"{what} is not in {folder}: make it first with its own recipe, or set path instead of curated")
    return str(found[0])


def _evaluation(stage: str, name: str, path: str | None) -> list[str]:
    known = KNOWN.get(name)
    if path is None and known is None:
        raise UserError(
            f"no evaluation set {name}: known are {', '.join(KNOWN)}; of your own give --stages.{stage}.against.{name} FILE"
        )
    try:
        source, split = (path or (known.source if known else "")), (known.split if known else "train")
        rows = read_rows(source, split, given_by=f"stages.{stage}.against.{name}")
    except UserError as error:
        copy = "" if path else f"; a local copy is given with --stages.{stage}.against.{name} FILE"
        raise UserError(f"{name}: {error}{copy}") from error
    cells = [row.get("problem") or row.get("question") or "" for row in rows]
    texts = read_cells(cells, plain_problem, f"evaluation set {name}", "problem")
    if not all(texts):
        raise UserError(f"row {texts.index('') + 1} of evaluation set {name} has nothing in problem or question")
    return texts


def _check_model(stage: ModelStage, engine: Engine, place: Slots) -> PreTrainedTokenizerBase:
    model = Model(path=stage.model, dtype=stage.dtype)
    tokenizer = load_tokenizer(model)
    tokens, fields = stage.max_prompt_tokens + stage.max_tokens, "max_prompt_tokens + max_tokens"
    check_served(model, resolve_model(stage.model), engine, place, tokens, fields)
    _ask(stage, ["1 + 1"], tokenizer)  # a template that refuses it says so before anything starts
    return tokenizer


def _digest(things: Sequence[object]) -> str:
    content = hashlib.sha256()
    for thing in things:
        content.update(repr(thing).encode())
    return content.hexdigest()
