"""What all commands have in common: how they end."""

import signal
from collections.abc import Callable
from functools import wraps

from rich.console import Console

from launch.hangup import Stop, stopped_by_signals
from openrs_ray.errors import RunError, UserError
from openrs_ray.room import full_disk_in_a_sentence

Main = Callable[[list[str]], int | None]


def command(main: Main) -> Callable[[list[str]], int]:
    """Gives a command its exit code: its own or 0, 1 when it broke while running, 2 when there is something to mend first, each
    with one sentence; 128 + signal when it was stopped by Ctrl-C, SIGTERM or SIGHUP."""

    @wraps(main)
    def run(arguments: list[str]) -> int:
        say = Console(stderr=True, highlight=False)
        try:
            with stopped_by_signals(), full_disk_in_a_sentence():
                return main(arguments) or 0
        except (UserError, RunError, OSError) as error:
            say.print(f"error: {error}", markup=False, soft_wrap=True)
            return 2 if isinstance(error, UserError) else 1
        except KeyboardInterrupt:
            say.print("stopped")
            return 128 + signal.SIGINT
        except Stop as stop:
            say.print("stopped")
            return stop.exit_code

    return run
