"""The lock that gives a run's folder to one driver."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrs_ray.errors import UserError


@contextmanager
def run_lock(run_folder: Path) -> Iterator[None]:
    """Make the folder and hold it until this process ends. UserError, naming the process, if another driver has it."""
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        file = (run_folder / "driver.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Run folder {run_folder} cannot be written ({error.strerror}): set run.folder.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(
                f"Run {run_folder} is being driven by {owner}: wait for it, stop it, or choose another name or folder."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
