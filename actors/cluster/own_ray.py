"""Corrects Ray's habits: files and token open to all users, a replaced signal handler, needless warnings."""

import logging
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
_TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"
_TOKEN_WARNING = "Token authentication is enabled for this Ray cluster"


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Folder for Ray's sessions; afterwards only the logs remain."""
    folder = new_private_folder("ray")
    try:
        yield folder / "ray"  # Ray opens this one to everybody; the one around it stays closed
    finally:
        for part in folder.glob("ray/session_*/*"):
            if part.name != "logs":
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)


def close_token_file() -> None:
    """Close Ray's token file to other users."""
    where = ray_token()
    if where not in (None, _TOKEN):
        with suppress(OSError):  # not ours: `launch.probe` says so
            Path(where).chmod(0o600)


def have_token() -> None:
    """Set a token where there is none: Ray would write one to a file."""
    if ray_token() is None:
        os.environ[_TOKEN] = secrets.token_hex(32)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restores the handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def silence_expected_warnings() -> None:
    logging.getLogger(_TOKEN_LOGGER).addFilter(_unexpected)  # the same function once, however often it is added


def _unexpected(record: logging.LogRecord) -> bool:
    return _TOKEN_WARNING not in record.getMessage()
