"""Ways to change a finished run afterwards, each named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from whole_run import rewrite

from openrs_ray.run.completion_files import Phase, current_files
from openrs_ray.run.ledger import FILE, Ledger


def remade(run: Path) -> None:
    """Make the whole chain anew, as whoever owns the folder can."""
    (run / FILE).unlink(missing_ok=True)
    parts = [path.relative_to(run).as_posix() for path in run.glob("checkpoints/step-*/*") if path.name != "state"]
    Ledger(run).note("attempt", attempt=1, from_step=0, folders=[*parts, "evaluation"])


def record_file(run: Path, step: int, phase: Phase = "train") -> Path:
    return next(file.path for file in current_files(run, phase) if file.step == step)


def row(run: Path, step: int, name: str, change: Callable[[Any], Any], phase: Phase = "train", place: int = 1) -> None:
    """Change one cell of the record, with the checksum in the file's name made right again."""
    rewrite(run, step, lambda rows: rows[place].update({name: change(rows[place][name])}), phase)


def line(run: Path, name: str, place: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a line of a file of JSON lines; a change that returns nothing removes it."""
    lines = (run / name).read_text().splitlines()
    changed = change(json.loads(lines[place]))
    lines[place : place + 1] = [] if changed is None else [json.dumps(changed)]
    (run / name).write_text("".join(f"{one}\n" for one in lines))


def content(run: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON file in place."""
    known = json.loads((run / name).read_text())
    change(known)
    (run / name).write_text(json.dumps(known, indent=1) + "\n")


def byte(path: Path, place: int = -5) -> None:
    """Turn over one byte."""
    known = bytearray(path.read_bytes())
    known[place] ^= 1
    path.write_bytes(known)


def swapped(one: Path, other: Path) -> None:
    """Give two files each other's content."""
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def planted(run: Path, other: Path, step: int) -> None:
    """Put the record of another run's step in the place of this one's."""
    file = record_file(other, step)
    record_file(run, step).unlink()
    shutil.copy(file, run / "completions" / file.name)
