"""Reads the whole lines that a growing file has gained since the last time."""

from dataclasses import dataclass
from pathlib import Path

from openrs_ray.errors import UserError


@dataclass
class Following:
    path: Path
    offset: int = 0
    """Bytes read so far, up to the end of a line."""

    def new_lines(self) -> tuple[list[bytes], bool]:
        """Lines since the last call, and True where the file was replaced by another one, of which all lines come again.

        A torn last line stays until it is whole. UserError when the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                replaced = size < self.offset
                file.seek(0 if replaced else self.offset)
                content = file.read()
        except FileNotFoundError:
            replaced, self.offset = self.offset > 0, 0
            return [], replaced
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror})") from error
        whole = content[: content.rfind(b"\n") + 1]
        self.offset = (0 if replaced else self.offset) + len(whole)
        return whole.splitlines(), replaced
