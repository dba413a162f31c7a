"""The ledger of a run, `RUN/ledger`: a chain of digests over what the run has written.

Each line is an entry in JSON. It names the digest of the line before it, every file that is new or has changed since then, and
every line that the append-only files have gained, by their SHA-256:

    {"entry": 7, "before": "5be0...", "at": "2026-01-01T12:00:00+00:00", "about": "step", "step": 3, "attempt": 1,
     "files": {"completions/train-step-000003-attempt-001-9f3c21d0.parquet": "c2a1..."},
     "lines": {"metrics.jsonl": ["77d0..."]}}

The digest of the last line is the head of the chain: whoever knows it can tell that nothing before it was changed afterwards.
A kill may tear the last line, which is then no entry, or come between a file and its entry; the next attempt's first entry
names that file. docs/audit.md says what is in no entry.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ValidationError

from openrs_ray.common.files import append_line
from openrs_ray.common.foreign import parse_json, reading
from openrs_ray.run.ledger_files import (
    ADDED,
    APPENDED,
    REPLACED,
    checkpoint_parts,
    digest,
    file_digests,
    found,
    inside,
    listed_checkpoints,
    made,
    newest_attempt,
    outcomes,
    whole_lines,
)

FILE = "ledger"


class _Content(BaseModel, strict=True):
    """Fields that the readers of an entry rely on; it may hold more."""

    entry: int
    before: str
    about: str
    step: int | None = None
    attempt: int = 1
    from_step: int = 0
    files: dict[str, str | None] = {}
    lines: dict[str, list[str]] = {}


@dataclass(frozen=True, slots=True)
class Head:
    """Example: Head("3f7a...", entries=148)"""

    digest: str
    entries: int

    def __str__(self) -> str:
        return f"{self.digest} ({self.entries} entries)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger."""

    digest: str
    """Of the line itself."""
    line: int
    """Its number in the file, from 1."""
    content: Mapping[str, Any]

    @property
    def number(self) -> int:
        return int(self.content["entry"])

    @property
    def about(self) -> str:
        """start, attempt, step, evaluation, checkpoint, end, stop, report, page or export."""
        return str(self.content["about"])

    @property
    def step(self) -> int | None:
        return self.content.get("step")

    @property
    def files(self) -> Mapping[str, str | None]:
        """Digest by path in the run's folder; None for a file that has gone."""
        files: Mapping[str, str | None] = self.content.get("files", {})
        return files

    @property
    def lines(self) -> Mapping[str, Sequence[str]]:
        """Digests of the lines that a file has gained."""
        lines: Mapping[str, Sequence[str]] = self.content.get("lines", {})
        return lines


@dataclass
class Known:
    """The content of a ledger so far."""

    entries: list[Entry] = field(default_factory=list)
    count: int = 0
    """Of all entries."""
    files: dict[str, str | None] = field(default_factory=dict)
    """The newest digest of each file."""
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Digests of all lines of each append-only file."""
    torn: list[int] = field(default_factory=list)
    """Numbers of lines that are no entries."""

    def add(self, number: int, line: bytes) -> None:
        content = _content(line)
        if content is None:
            self.torn.append(number)
            return
        entry = Entry(digest(line), number, content)
        self.entries.append(entry)
        self.count += 1
        self.files |= entry.files
        for name, several in entry.lines.items():
            self.lines.setdefault(name, []).extend(several)

    @property
    def head(self) -> Head | None:
        return Head(self.entries[-1].digest, self.count) if self.entries else None


class Ledger:
    """Appends entries to the ledger of a run. Every process that adds to the run's folder may; they take turns.

    Example:
        Ledger(run_folder).note("step", step=3, attempt=1)
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder
        self._known = Known()
        self._read = 0  # bytes of the ledger
        self._count = 0  # lines of it
        self._places: dict[str, tuple[int, int]] = {}  # lines and bytes of each append-only file that are noted

    def note(
        self, about: str, *, folders: Sequence[str] = (), only_news: bool = False, alone: bool = False, **facts: Any
    ) -> Head | None:
        """Append an entry about all that is new or has changed; returns the head.

        Args:
            folders: files or folders of the run to look at besides what every entry looks at. Example: "evaluation/robust"
            only_news: append none where nothing is new or has changed.
            alone: look at `folders` and nothing else, as for a product of another command than training: it must not note
                changes of the run's own files, which nobody but the run makes.
            facts: what the entry says besides, such as step and attempt.
        """
        path = self.run_folder / FILE
        with path.open("ab+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            _end_last_line(held)
            self._catch_up(path)
            head = self._known.head
            about_it = {"entry": head.entries if head else 0, "before": head.digest if head else "", "at": _now()}
            files = self._changed_in(folders) if alone else self._changed(folders)
            news = {"files": files, "lines": {} if alone else self._gained()}
            entry = about_it | {"about": about} | facts | {name: part for name, part in news.items() if part}
            if any(news.values()) or not only_news:
                append_line(path, entry, synced=True)
                self._catch_up(path)
        return self._known.head

    def _catch_up(self, path: Path) -> None:
        """Read what this and other processes have appended."""
        with path.open("rb") as file:
            file.seek(self._read)
            for line in whole_lines(file.read()):
                self._read += len(line) + 1
                self._count += 1
                self._known.add(self._count, line)
                del self._known.entries[:-1]  # a run of many steps must not fill the driver's memory with them

    def _changed_in(self, folders: Sequence[str]) -> dict[str, str | None]:
        return self._new(file_digests(self.run_folder, inside(self.run_folder, folders)))

    def _new(self, digests: Mapping[str, str]) -> dict[str, str | None]:
        return {name: value for name, value in digests.items() if self._known.files.get(name) != value}

    def _changed(self, folders: Sequence[str]) -> dict[str, str | None]:
        known = self._known.files
        patterns = [*ADDED, *checkpoint_parts(self.run_folder)]
        added = found(self.run_folder, patterns, known)
        looked_at = [
            *(name for name in REPLACED if (self.run_folder / name).exists()),
            *newest_attempt(self.run_folder),
            *inside(self.run_folder, folders),
            *(made(self.run_folder) if not self._known.entries else ()),
        ]
        digests = file_digests(self.run_folder, [*added, *looked_at])
        gone = [name for name in REPLACED if known.get(name) and not (self.run_folder / name).exists()]
        gone += self._discarded()
        return self._new(digests) | dict.fromkeys(gone)

    def _discarded(self) -> list[str]:
        """Noted files of checkpoints that are listed no more: a later one may have the same name."""
        listed = listed_checkpoints(self.run_folder)
        noted = ((name, name.split("/")) for name, value in self._known.files.items() if value)
        return [
            name
            for name, parts in noted
            if parts[0] == "checkpoints"
            and len(parts) > 2
            and "/".join(parts[:2]) not in listed
            and not (self.run_folder / name).exists()
        ]

    def _gained(self) -> dict[str, list[str]]:
        gained = {name: [*self._new_lines(name)] for name in APPENDED}
        return {name: lines for name, lines in gained.items() if lines}

    def _new_lines(self, name: str) -> Iterator[str]:
        path = self.run_folder / name
        if not path.exists():
            return
        noted = len(self._known.lines.get(name, ()))
        count, place = self._places.get(name, (0, 0))
        with path.open("rb") as file:
            file.seek(place)
            place += sum(len(file.readline()) for _ in range(noted - count))  # noted by others
            new = whole_lines(file.read())
        self._places[name] = noted + len(new), place + sum(len(line) + 1 for line in new)
        yield from map(digest, new)


def read_ledger(run_folder: Path) -> Known | None:
    """None without a file; UserError where it may not be read."""
    path = run_folder / FILE
    if not path.exists():
        return None
    known = Known()
    with reading(f"cannot read the chain of digests {path}"):
        lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], start=1):
        known.add(number, line)
    return known


def read_head(run_folder: Path) -> Head | None:
    """The head of the chain as it stands; None without a ledger."""
    known = read_ledger(run_folder)
    return known.head if known else None


def note_beside(path: Path, about: str, **facts: Any) -> Head | None:
    """Note a file or folder in the ledger of the run that it lies in; None where it lies in none with a ledger."""
    run = _run_around(path)
    if run is None:
        return None
    return Ledger(run).note(about, folders=[path.absolute().relative_to(run).as_posix()], alone=True, **facts)


def note_evaluation(folders: Iterable[Path]) -> None:
    """Note reports and completions in these folders, each in the ledger of the run that it lies in."""
    by_run: dict[Path, list[str]] = {}
    for folder in folders:
        if run := _run_around(folder):
            names = [path.absolute().relative_to(run).as_posix() for path in outcomes(folder)]
            by_run.setdefault(run, []).extend(names)
    for run, names in by_run.items():
        Ledger(run).note("report", folders=names, alone=True)


def _run_around(path: Path) -> Path | None:
    """The run with a ledger that a path lies in."""
    return next((folder for folder in path.absolute().parents if (folder / FILE).is_file()), None)


def head_beside(path: Path) -> Head | None:
    """Head of the ledger of the run that a path lies in."""
    return next(filter(None, map(read_head, path.absolute().parents)), None)


def _end_last_line(file: BinaryIO) -> None:
    """End a line that a kill has torn: it may even be whole but for its end."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
            file.flush()


def _content(line: bytes) -> dict[str, Any] | None:
    """None for what is no entry."""
    try:
        content = parse_json(line)
    except ValueError:
        return None
    try:
        _Content.model_validate(content)
    except ValidationError:
        return None
    whole: dict[str, Any] = content
    return whole


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
