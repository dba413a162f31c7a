"""What all commands have in common: how they end."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps

from launch.cli.failures import unforeseen
from launch.cli.hangup import Stop, stopped_by_signals
from openrs_ray.common.formatting import sentences
from openrs_ray.errors import RunError, UserError
from openrs_ray.run.room import full_disk_in_a_sentence

_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of the system about a path as such; every access to a path that a user gave may raise them."""
Main = Callable[[list[str]], int | None]


def command(main: Main) -> Callable[[list[str]], int]:
    """Gives a command its exit code: its own or 0; 2 when there is something to mend first, 1 when it broke while running, each
    with one sentence (and a file with the traceback where nobody foresaw the error); 128 + signal when it was stopped by
    Ctrl-C, SIGTERM or SIGHUP."""

    @wraps(main)
    def run(arguments: list[str]) -> int:
        try:
            with stopped_by_signals(), full_disk_in_a_sentence():
                return main(arguments) or 0
        except (UserError, RunError) as error:
            _say(f"error: {sentences(str(error))}")
            return 2 if isinstance(error, UserError) else 1
        except KeyboardInterrupt:
            _say("Stopped.")
            return 128 + signal.SIGINT
        except Stop as stop:
            _say("Stopped.")
            return stop.exit_code
        except BrokenPipeError:  # the reader of our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except OSError as error:
            if error.errno in _NO_PATH:
                _say(f"error: {error.strerror}: {str(error.filename)[:60]!r}...")
                return 2
            _say(f"error: {sentences(unforeseen(error))}")
            return 1
        except Exception as error:
            _say(f"error: {sentences(unforeseen(error))}")
            return 1

    return run


def _say(text: str) -> None:
    """Write to stderr, with escapes for characters that no terminal shows or that would move its cursor."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stderr.flush()
