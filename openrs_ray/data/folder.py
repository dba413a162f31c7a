"""Recognises data files by name."""

import re
from pathlib import Path

from openrs_ray.common.foreign import reading
from openrs_ray.errors import UserError

_SPLIT = re.compile(
    r"(?:^|[._\s-])(?:train(?:ing)?|test(?:ing)?|eval(?:uation)?|val(?:id(?:ation)?)?|dev)(?:[._\s-]|$)"
)
"""Split names that the Hub's loader recognises."""
_FORMS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv", ".tsv")
_ABOUT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Metadata files that `datasets` writes beside data."""


def data_form(name: str) -> str | None:
    """Extension of a data file, such as ".jsonl.gz"; None for other files."""
    return next((form for form in _FORMS if name.endswith(form)), None)


def _names_files(readme: Path) -> bool:
    """True when a data set's card says which files form which split."""
    with reading(f"cannot read {readme}"):
        return readme.is_file() and re.search(rb"^configs:", readme.read_bytes(), re.MULTILINE) is not None


def data_files(folder: Path) -> list[Path]:
    """Files of the one data set in a folder; none where it has splits, as on the Hub. UserError for several formats."""
    named = [entry for entry in folder.iterdir() if data_form(entry.name) and entry.name not in _ABOUT_DATA]
    files = sorted(entry for entry in named if not entry.name.startswith((".", "_")) and entry.is_file())
    if _names_files(folder / "README.md") or any(_SPLIT.search(file.stem.lower()) for file in files):
        return []
    if len(forms := {data_form(file.name): file.name for file in files}) > 1:
        raise UserError(
            f"the folder {folder} holds data files of several forms ({', '.join(forms.values())}): name one"
        )
    return files
