"""The common end of all commands: an exit code and one sentence."""

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
"""Errors about a path as such."""
Main = Callable[[list[str]], int | None]


def command(main: Main) -> Callable[[list[str]], int]:
    """Ends a command with its exit code: 2 for something to mend first, 1 for a failure, 128 + signal for a stop."""

    @wraps(main)
    def run(arguments: list[str]) -> int:
        try:
            with stopped_by_signals(), full_disk_in_a_sentence():
                return main(arguments) or 0
        except (UserError, RunError) as error:
            _say(f"error: {sentences(str(error))}")
            return 2 if isinstance(error, UserError) else 1
        except (KeyboardInterrupt, Stop) as stop:
            _say("Stopped.")
            return stop.exit_code if isinstance(stop, Stop) else 128 + signal.SIGINT
        except BrokenPipeError:  # the reader of our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_PATH:
                _say(f"error: {error.strerror}: {str(error.filename)[:60]!r}...")
                return 2
            _say(f"error: {sentences(unforeseen(error))}")
            return 1

    return run


def _say(text: str) -> None:
    """Write to stderr, with characters escaped that no terminal shows or that move its cursor."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stderr.flush()
