"""Keeps an index of completions in a file beside the record, so that the next process need not read every file again."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from openrs_ray.common.files import replacing

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def read_index(path: Path, dtype: np.dtype[Any], meaning: object) -> tuple[dict[str, np.ndarray], list[str | None]]:
    """Entries by name of their file, and the tasks; nothing where it is missing, damaged, or of another `meaning`."""
    with suppress(*_UNREADABLE), np.load(path) as found:
        about, entries, sizes = json.loads(str(found["about"])), found["entries"], found["sizes"]
        names, edges = about["names"], np.cumsum([0, *sizes])
        if (
            about["meaning"] == meaning
            and entries.dtype == dtype
            and (len(names), len(entries)) == (len(sizes), edges[-1])
        ):
            return dict(zip(names, (entries[a:b] for a, b in pairwise(edges)), strict=True)), about["tasks"]
    return {}, []


def write_index(path: Path, blocks: Mapping[str, np.ndarray], tasks: Sequence[str | None], meaning: object) -> None:
    """Does nothing where the folder cannot be written: the next process reads the files again."""
    about = json.dumps({"names": [*blocks], "tasks": [*tasks], "meaning": meaning})
    sizes = np.array([len(block) for block in blocks.values()])
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=np.array(about), entries=np.concatenate([*blocks.values()]), sizes=sizes)
