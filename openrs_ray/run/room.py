"""Checks disk space, and names full disks."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrs_ray.cluster.disk import checkpoint_sizes
from openrs_ray.cluster.probes import disk_bytes
from openrs_ray.common.formatting import size_text
from openrs_ray.config.names import runs_folder
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError

_LEAST = 16 << 20

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
# Ray, torch and safetensors hand a full disk on as their own exceptions, of which only the text is left. PyTorch's zip
# writer does not even say why a write failed.
_DISK_FULL_TEXTS = (
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed",
    "inline_container.cc",
)


def check_room(config: RunConfig, parameters: int, adapters: int = 0) -> None:
    """UserError when the run's disk has no room for a first checkpoint."""
    needed, free = sum(checkpoint_sizes(config, parameters, adapters)) + _LEAST, disk_bytes(config.run.path)
    if free < needed:
        raise UserError(
            f"the disk of {config.run.path} has {size_text(free)} free, and the run's first checkpoint takes "
            f"{size_text(needed)}: make room, or set run.folder to another disk"
        )


@contextmanager
def full_disk_in_a_sentence(*folders: Path) -> Iterator[None]:
    """Turn errors about a full disk into a UserError that names it; `folders`: more to look at."""
    try:
        yield
    except (UserError, RunError):
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise UserError(f"a disk is full{_where(error, folders)}: make room and give the same command again") from error


def _where(error: Exception, folders: tuple[Path, ...]) -> str:
    """The file that could not be written, or the usual places that have no room."""
    if isinstance(error, OSError) and error.filename:
        return f" ({error.filename} could not be written)"
    cache = Path(os.environ.get("OPENRS_CACHE", "~/.cache")).expanduser()
    places = dict.fromkeys([*folders, runs_folder(), cache, Path(tempfile.gettempdir()), Path("/dev/shm")])
    full = [str(place) for place in places if _free(place) < _LEAST]
    return f" (that of {' and '.join(full)})" if full else ""


def _free(place: Path) -> float:
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    return float(status.f_bavail * status.f_frsize)


def is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        if any(text in str(error) for text in _DISK_FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False
