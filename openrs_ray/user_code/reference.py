"""References to a user's own code, `my_rewards.py:brevity`, and the source text behind one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openrs_ray.common.foreign import reading
from openrs_ray.errors import UserError

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>.*)", re.DOTALL)
_LONGEST_BYTES = 10_000_000


def is_reference(name: str) -> bool:
    """True for FILE.py:NAME, as far as its form goes."""
    return _REFERENCE.fullmatch(name) is not None


def file_of(reference: str) -> str:
    """Example: file_of("my_rewards.py:brevity") == "my_rewards.py"."""
    found = _REFERENCE.fullmatch(reference)
    return found["file"] if found else ""


@dataclass(frozen=True, slots=True)
class UserCode:
    """An object of a user's own file, by the file's text: it travels pickled, and no other machine needs the file.

    Example: UserCode.read("my_rewards.py:brevity", [recipe.parent, Path.cwd()])
    """

    reference: str
    """As the recipe has it."""
    path: str
    """Absolute, where it was read."""
    name: str
    """Of the object in it."""
    sha256: str
    content: bytes = field(repr=False)
    """Of the file."""
    below: str | None = None
    """Its folder below the working directory, which `ray job submit` takes to every node; None outside of it."""

    @classmethod
    def read(cls, reference: str, folders: Sequence[Path]) -> UserCode:
        """The code of a reference; relative ones are looked for in `folders`, in order. UserError in one sentence."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise UserError(f"{reference} is no FILE.py:NAME, such as my_rewards.py:brevity")
        file, name = found["file"], found["name"]
        if not name.isidentifier():
            raise UserError(f"{reference} names nothing in the file: write {file}:NAME, such as {file}:brevity")
        path = _found(reference, file, folders)
        with reading(f"cannot read {path} ({reference})"):
            content = path.read_bytes()
        if len(content) > _LONGEST_BYTES:
            raise UserError(f"{path} ({reference}) has {len(content):,} bytes: that is no file of Python code")
        code = cls(reference, str(path), name, hashlib.sha256(content).hexdigest(), content, _below(path.parent))
        try:
            code.source  # noqa: B018
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{path} ({reference}) is not text that Python can read: {error}") from error
        return code

    @property
    def source(self) -> str:
        return importlib.util.decode_source(self.content)

    @property
    def file(self) -> str:
        """As the reference has it."""
        return file_of(self.reference)

    @property
    def module(self) -> str:
        """Name of its module, the same in every process, so that objects of its classes can be pickled."""
        mark = hashlib.sha256(f"{self.path}\0{self.sha256}".encode()).hexdigest()[:12]
        return re.sub(r"\W", "_", Path(self.path).stem) + f"_{mark}"

    @property
    def folders(self) -> list[str]:
        """Places of the files that it may import, as far as they are on this machine."""
        places = [Path(self.path).parent, *([Path.cwd() / self.below] if self.below is not None else [])]
        return [str(place) for place in places if place.is_dir()]


def _found(reference: str, file: str, folders: Sequence[Path]) -> Path:
    given = Path(os.path.expanduser(file))
    places = [given] if given.is_absolute() else list(dict.fromkeys(folder.absolute() / given for folder in folders))
    for place in places:
        if place.is_file():
            return place
    looked = " and ".join(str(place.parent) for place in places)
    raise UserError(f"there is no file {file} ({reference}): it was looked for in {looked}")


def _below(folder: Path) -> str | None:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return None
