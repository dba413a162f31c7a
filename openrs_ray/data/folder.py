"""Data files in a folder: which of them make the data set, where they are not laid out as on the Hub."""

import re
from collections.abc import Collection
from pathlib import Path

from openrs_ray.errors import UserError

_SPLIT = re.compile(
    r"(?:^|[._\s-])(?:train|training|test|testing|eval|evaluation|val|valid|validation|dev)(?:[._\s-]|$)"
)
"""Names by which the Hub's loader tells splits apart."""


def data_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of the one data set that a folder holds, by name; none where it is laid out in splits, as on the Hub.

    Raises UserError when files of several forms lie in it, which no one can tell apart.
    """
    entries = [
        entry for entry in folder.iterdir() if entry.suffix in suffixes and not entry.name.startswith((".", "_"))
    ]
    files = sorted(entry for entry in entries if entry.is_file())
    if (folder / "README.md").exists() or any(_SPLIT.search(file.stem.lower()) for file in files):
        return []
    if len(forms := {file.suffix: file.name for file in files}) > 1:
        raise UserError(
            f"the folder {folder} holds data files of several forms ({', '.join(forms.values())}): name one"
        )
    return files
