"""Keeps the files and the token of a Ray that the run starts itself from other users of the machine."""

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openrs_ray.cluster.probes import ray_token
from openrs_ray.common.private_folder import new_private_folder

_TOKEN = "RAY_AUTH_TOKEN"


@contextmanager
def ray_folder() -> Iterator[Path]:
    """The folder for Ray's sessions; all of it but the logs is removed at the end of the block.

    Ray opens the folder that it is given to everybody: the one around it stays closed.
    """
    folder = new_private_folder("ray")
    try:
        yield folder / "ray"
    finally:
        for part in folder.glob("ray/session_*/*"):
            if part.name != "logs":
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def close_token_file() -> None:
    """Make the file with Ray's token readable by its owner alone: Ray writes it for everybody to read."""
    where = ray_token()
    if where not in (None, _TOKEN):
        with suppress(OSError):  # not ours: `launch.probe` says so
            Path(where).chmod(0o600)


def have_token() -> None:
    """Set a token in the environment where there is none yet: Ray would write one to a file."""
    if ray_token() is None:
        os.environ[_TOKEN] = secrets.token_hex(32)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restores the handler of SIGTERM, which Ray replaces when it is joined."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
