"""What all commands have in common: how they end."""

import signal
from collections.abc import Callable
from functools import wraps

from rich.console import Console

from openrs_ray.errors import RunError, UserError

Main = Callable[[list[str]], int | None]


def command(main: Main) -> Callable[[list[str]], int]:
    """Gives a command its exit code: its own or 0, 1 when it broke while running, 2 when there is something to mend first, each
    with one sentence; 130 after Ctrl-C."""

    @wraps(main)
    def run(arguments: list[str]) -> int:
        say = Console(stderr=True, highlight=False)
        try:
            return main(arguments) or 0
        except (UserError, RunError, OSError) as error:
            say.print(f"error: {error}", markup=False, soft_wrap=True)
            return 2 if isinstance(error, UserError) else 1
        except KeyboardInterrupt:
            say.print("stopped")
            return 128 + signal.SIGINT

    return run
