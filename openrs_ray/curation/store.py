"""The folder of one curated set: finished work in it is not done again.

NAME/curation.json            each stage's request, with digests of rows, evaluation sets and models
NAME/00-sources.parquet       every raw row, with `kept` and `reason`
NAME/01-boxed.parquet         the same of every problem that reached the first stage
NAME/02-trivial/000003.parquet    completions for problems that a model was asked about together, with the problems' fates
NAME/02-trivial.parquet
NAME/NAME.parquet             the result: problem, solution, answer, source
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa

from openrs_ray.common.completion_columns import row_json, with_common
from openrs_ray.common.files import damaged, write_json
from openrs_ray.common.foreign import parse_json
from openrs_ray.common.parquet import column_names, read_table, write_table
from openrs_ray.common.same_request import check_same
from openrs_ray.curation.fates import Candidate, Fate, Reply
from openrs_ray.data.completions import opening_after
from openrs_ray.errors import UserError
from openrs_ray.records import Status, Verdict

Asked = tuple[str, dict[str, Any]]
"""Its name, and everything that decides its outcome."""

_STAGE = pa.schema(
    [
        ("row", pa.int32()),
        ("source", pa.string()),
        ("problem", pa.string()),
        ("solution", pa.string()),
        ("answer", pa.list_(pa.string())),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
    ]
)
COMPLETIONS = with_common(
    ("kept", pa.bool_()),  # the problem, by all its completions
    ("reason", pa.string()),
)
_OLDER_CHUNK = pa.schema([("row", pa.int32()), ("kept", pa.bool_()), ("reason", pa.string())])
"""What counts of the older files, which had a row per problem with lists of replies."""


@dataclass(frozen=True, slots=True)
class Told:
    candidate: Candidate
    replies: tuple[Reply, ...]
    verdicts: tuple[Verdict, ...]
    """Of the check of each reply; empty where none is checked."""
    fate: Fate

    def rows(self, stage: str, prompt: str) -> list[dict[str, Any]]:
        one = self.candidate
        verdicts = self.verdicts or [Verdict(Status.UNCHECKED, {}, None)] * len(self.replies)
        of_problem = {
            "task": stage,
            "problem_index": one.row,
            "problem": one.problem,
            "prompt": prompt,
            "gold": list(one.answer),
            "row": row_json({"source": one.source, "solution": one.solution}, one.problem),
            **asdict(self.fate),
        }
        return [
            of_problem
            | {
                "sample": sample,
                "text": opening_after(prompt) + reply.text,
                "token_ids": [*reply.token_ids],
                "length": reply.tokens,
                "finish_reason": reply.finish_reason,
                "status": str(verdict.status),
                "answer": verdict.answer,
                "detail": verdict.detail,
                "worker": reply.worker,
            }
            for sample, (reply, verdict) in enumerate(zip(self.replies, verdicts, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class Counts:
    """A line of the table."""

    stage: str
    entered: int
    kept: int
    paper: int | None
    reasons: dict[str, int]
    """By the part of each reason before the colon."""


class CurationStore:
    """Use: `open`, then per stage `add` finished chunks, `write`, and `kept` for the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, asked: list[Asked]) -> None:
        """Write down the request. UserError if the folder holds work on another one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "curation.json"
        try:
            saved = [_asked(stage) for stage in parse_json(path.read_bytes())] if path.exists() else []
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged: restore it, or choose another name with --name") from error
        for number, (before, now) in enumerate(zip_longest(saved, asked)):
            if before != now and any([*self.folder.glob(f"{k:02d}-*")] for k in range(number, len(saved))):
                name = now[0] if now else ""
                contents = {
                    f"rows of stage {name}": f"the rows of stage {name}",
                    f"against of stage {name}": f"the evaluation sets of stage {name}",
                }
                instead = (
                    f"choose another name with --name, or remove the files whose names begin with {number:02d} or more"
                )
                work = f"the work in {self.folder}"
                check_same(_settings(number, before), _settings(number, now), work, instead, contents)
        if saved != asked:
            self.result.unlink(missing_ok=True)  # another recipe must not read what is no longer this set
        write_json(path, asked)

    def has(self, number: int, name: str) -> bool:
        return self._stage(number, name).exists()

    def write(self, number: int, name: str, candidates: Sequence[Candidate], fates: Sequence[Fate]) -> None:
        rows = [asdict(c) | asdict(f) for c, f in zip(candidates, fates, strict=True)]
        write_table(self._stage(number, name), pa.Table.from_pylist(rows, schema=_STAGE))

    def kept(self, number: int, name: str) -> list[Candidate]:
        """Kept problems in row order."""
        return [
            Candidate(row["row"], row["source"], row["problem"], row["solution"], tuple(row["answer"]))
            for row in _read(self._stage(number, name), _STAGE)
            if row["kept"]
        ]

    def counts(self, number: int, name: str, paper: int | None) -> Counts:
        rows = _read(self._stage(number, name), _STAGE, ["kept", "reason"])
        kept = [row["kept"] for row in rows]
        reasons = Counter(
            f"{reason.partition(':')[0]}{' (kept)' if stays else ''}"
            for stays, reason in ((row["kept"], row["reason"]) for row in rows)
            if reason
        )
        return Counts(name, len(kept), sum(kept), paper, dict(reasons.most_common()))

    def told(self, number: int, name: str) -> dict[int, Fate]:
        """Fates by row."""
        files = sorted((self.folder / f"{number:02d}-{name}").glob("*.parquet"))
        return {row: fate for file in files for row, fate in _fates(file)}

    def add(self, number: int, name: str, told: Sequence[Told], prompts: Mapping[int, str]) -> None:
        """`prompts`: as the model saw them, by row."""
        folder = self.folder / f"{number:02d}-{name}"
        free = max((int(file.stem) + 1 for file in folder.glob("*.parquet")), default=0)
        rows = [row for one in told for row in one.rows(name, prompts[one.candidate.row])]
        write_table(folder / f"{free:06d}.parquet", pa.Table.from_pylist(rows, schema=COMPLETIONS))

    @property
    def result(self) -> Path:
        return self.folder / f"{self.folder.name}.parquet"

    def finish(self, candidates: Sequence[Candidate]) -> None:
        single = all(len(candidate.answer) == 1 for candidate in candidates)
        columns: Mapping[str, Any] = {
            "problem": [candidate.problem for candidate in candidates],
            "solution": pa.array([candidate.solution for candidate in candidates], pa.string()),
            "answer": [candidate.answer[0] if single else candidate.answer for candidate in candidates],
            "source": [candidate.source for candidate in candidates],
        }
        write_table(self.result, pa.table(columns))

    def _stage(self, number: int, name: str) -> Path:
        return self.folder / f"{number:02d}-{name}.parquet"


def _fates(chunk: Path) -> Iterator[tuple[int, Fate]]:
    """By row; once for each of its completions."""
    older = "replies" in column_names(chunk)
    schema, index = (_OLDER_CHUNK, "row") if older else (COMPLETIONS, "problem_index")
    for row in _read(chunk, schema, [index, "kept", "reason"]):
        yield row[index], Fate(row["kept"], row["reason"])


def _read(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(path, columns, schema).to_pylist()
    if any(row.get(name, 0) is None for row in rows for name in ("row", "problem", "problem_index", "answer", "kept")):
        raise damaged(path)
    return rows


def _asked(stage: Any) -> Asked:
    """ValueError or TypeError when it is not a stage."""
    name, settings = stage
    return str(name), dict(settings)


def _settings(number: int, stage: Asked | None) -> dict[str, Any]:
    if stage is None:
        return {}
    name = " ".join(stage[0].split())
    return {f"stage {number}": name} | {f"{key} of stage {name}": value for key, value in stage[1].items()}
