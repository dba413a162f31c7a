"""Restarts a run from its last checkpoint when it dies or breaks (`launch.train ... --restart`)."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial

from launch.cli.hangup import leave_terminal, stop_signals
from launch.cli.typed import handed_on
from openrs_ray.common.parent import end_with_parent

STOP = signal.SIGUSR1
"""Asks the run to stop; a second SIGTERM, such as `ray job stop` sends to all processes, would mean "at once"."""

_PAUSE_S = 5.0
TRIES = 5
_SUPERVISED = "OPENRS_SUPERVISED"
_RECURS = 3


def code_of_recurring() -> int:
    """Exit code of a failure that would recur: 1, or a code that `supervise` knows."""
    return _RECURS if _SUPERVISED in os.environ else 1


def supervise(
    command: Sequence[str], saved: Callable[[], int], say: Callable[[str], None], pause_s: float = _PAUSE_S
) -> int:
    """Run `command` until exit code 0 or 2, a failure that would recur, a stop, or TRIES tries in a row without a new checkpoint.

    The first SIGINT or SIGTERM is handed on as STOP, a second one and SIGHUP as they are; then 128 + signal is returned, else
    the last exit code. `saved`: step of the newest checkpoint, or -1.
    """
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _: object) -> None:
        if asked and number == signal.SIGHUP:
            return  # a terminal's end comes twice, from the kernel and from the shell
        if child is not None:
            child.send_signal(number if asked or number == signal.SIGHUP else STOP)
        asked.append(number)
        if number == signal.SIGHUP:
            leave_terminal()

    before = {number: signal.signal(number, hand_on) for number in stop_signals()}
    try:
        newest, in_vain = saved(), 0
        while True:
            # A session of its own: Ctrl-C in a terminal would otherwise reach it twice, which means "at once". And it saves and
            # stops when this process is killed: nobody would watch it any more.
            child = subprocess.Popen(
                command,
                start_new_session=True,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
                env=handed_on() | {_SUPERVISED: "1"},
            )
            if asked:  # while it was being started
                child.send_signal(signal.SIGHUP if asked[0] == signal.SIGHUP else STOP)
            code = child.wait()
            code = 128 - code if code < 0 else code
            if code in (0, 2):
                return code
            if code == _RECURS:
                return 1
            if asked:
                return 128 + asked[0]
            now = saved()
            in_vain = 0 if now != newest else in_vain + 1  # an earlier one after a rollback of the guard
            newest = now
            if in_vain == TRIES:
                say(f"{TRIES} tries in a row ended without a new checkpoint: the run is not started again")
                return code
            where = f"its last checkpoint (step {max(now, 0)})"
            say(f"the run ended with exit code {code} and is started again from {where}")
            time.sleep(pause_s)
            if asked:
                return 128 + asked[0]
            command = command if "--resume" in command else [*command, "--resume"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
