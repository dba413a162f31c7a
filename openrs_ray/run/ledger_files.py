"""The files of a run that its ledger is about, and their digests."""

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from openrs_ray.common.files import read_json
from openrs_ray.config.names import CODE
from openrs_ray.errors import UserError
from openrs_ray.run.checkpoint_files import ADAPTER, POLICY, TRAINER

APPENDED = ("attempts.jsonl", "metrics.jsonl", "decisions.jsonl")
"""Append-only files, noted line by line."""
REPLACED = ("config.json", "problems.json", "checkpoints/manifest.json", "teacher.json", "result.json")
"""Files that a run writes anew, noted whenever they have changed."""
ADDED = (
    *("completions/*.parquet", "teacher/completions/*.parquet", f"{CODE}/**/*"),
    *("attempts/*/environment.json", "attempts/*/config.json"),
)
"""Files that stay as they are, noted once; those of an attempt from its beginning on."""
MADE = ("evaluation/**/*", "report.html", "export/*/README.md")
"""Products of other commands, which note them; those of an older version are noted when this one goes on with its run."""
_KEPT = re.compile(r"report\.\w+|until_decided\.json|.*\.parquet|README\.md")
"""Names of what stays of an evaluation. Its lock, settings and cost are written anew by each sitting."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_digests(run_folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 by name. OSError for a file that cannot be read."""

    def of(name: str) -> str:
        with (run_folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    several = [*dict.fromkeys(names)]
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing and reads release the interpreter lock
        return dict(zip(several, pool.map(of, several), strict=True))


def found(run_folder: Path, patterns: Iterable[str], known: Container[str] = ()) -> list[str]:
    """Files of a run by pattern, but for `known` ones, as paths in its folder."""
    names = {name for pattern in patterns for name in glob(pattern, root_dir=run_folder, recursive=True)}
    return sorted(name for name in names if name not in known and (run_folder / name).is_file())


def whole_lines(content: bytes) -> list[bytes]:
    """Lines that end, without their ends."""
    return content.split(b"\n")[:-1]


def made(run_folder: Path) -> list[str]:
    """Products of other commands that lie in a run's folder."""
    return [name for name in found(run_folder, MADE) if _KEPT.fullmatch(Path(name).name)]


def outcomes(folder: Path) -> list[Path]:
    """The files of an evaluation's folder that no later sitting writes but to replace its report."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and _KEPT.fullmatch(path.name))


def newest_attempt(run_folder: Path) -> list[str]:
    """Files of the attempt that began last or is beginning: a start that failed before it did has left its own."""
    folders = sorted((run_folder / "attempts").glob("[0-9]*"), key=lambda path: (len(path.name), path.name))[-1:]
    patterns = [pattern for pattern in ADDED if pattern.startswith("attempts/")]
    return [name for name in found(run_folder, patterns) if (run_folder / name).parent in folders]


def inside(run_folder: Path, names: Sequence[str]) -> list[str]:
    """Files among the names, and in the folders among them."""
    single = [name for name in names if (run_folder / name).is_file()]
    return [*single, *found(run_folder, [f"{name}/**/*" for name in names if name not in single])]


def checkpoint_parts(run_folder: Path) -> Iterator[str]:
    """Patterns of the files to note of every listed checkpoint: all but the learner's state."""
    for listed in listed_checkpoints(run_folder):
        yield from (f"{listed}/{POLICY}/**/*", f"{listed}/{ADAPTER}/**/*", f"{listed}/{TRAINER}")


def listed_checkpoints(run_folder: Path) -> dict[str, int]:
    """Folders of the checkpoints in the manifest, with their steps; none where it is damaged."""
    try:
        content = read_json(run_folder / "checkpoints" / "manifest.json") or {}
        return {f"checkpoints/{each['folder']}": each["step"] for each in content["checkpoints"]}
    except (UserError, KeyError, TypeError):
        return {}
