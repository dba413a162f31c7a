"""Checks that go wrong on purpose, for the pool's tests. The checking processes import this file by its name."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from openrs_ray.common.telling import part
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.records import JudgeItem

_KEPT: list[bytearray] = []


class _OwnText(str):
    """A class of the user's own."""


def check(item: str) -> Verdict:
    """Does what the item says."""
    action, _, argument = item.partition(" ")
    if action == "hang":
        # As bad as a check can be: no signal that can be blocked reaches it, and no exception ends it.
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        while True:
            time.sleep(60)
    elif action == "compute":
        until = time.process_time() + float(argument)
        while time.process_time() < until:
            pass
    elif action == "sleep":
        time.sleep(float(argument))
    elif action == "mark_and_sleep":
        with Path(argument).open("a") as marks:
            marks.write(f"{os.getpid()}\n")
        time.sleep(1.0)
    elif action == "crash":
        os._exit(17)
    elif action == "raise":
        raise ValueError(argument)
    elif action == "fill_memory":
        bytearray(int(argument))
    elif action == "keep_memory":
        _KEPT.append(bytearray(int(argument)))
    elif action == "start_sleeper":
        with Path(argument).open("a") as pids:
            pids.write(f"{subprocess.Popen(['sleep', '600']).pid}\n")
        time.sleep(60)
    elif action == "hang_in_part":
        with part("my_file.py:my_function"):
            sys.stdout.write("about to hang")
            sys.stdout.write("\nsecond line")
            check("hang")
    elif action == "fork":
        if os.fork() == 0:
            return Verdict(Status.WRONG, {}, 0.0, "the fork's")
    elif action == "write_into_pipe":
        os.write(int(sys.argv[1]), b"\0\0\0\7garbage")
    elif action == "own_class":
        return Verdict(Status.CORRECT, {}, 1.0, _OwnText("4"))
    elif action == "environment":
        return Verdict(Status.CORRECT, {}, 1.0, os.environ.get(argument))
    return Verdict(Status.CORRECT, {}, 1.0, f"{item} by {os.getpid()}")


def judge_text(item: JudgeItem) -> Verdict:
    """The same for a completion, whose text is the action: "hang", or "reward 2" for a verdict with reward 2."""
    action, _, value = item.text.partition(" ")
    if action == "reward":
        return Verdict(Status.CORRECT, {"accuracy": float(value)}, float(value))
    return check(item.text)


class Unloadable:
    """A check that no process can load."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return _refuse, ()

    def __call__(self, item: str) -> Verdict:
        return check(item)


def _refuse() -> None:
    raise ImportError("this check cannot be loaded")


def fail_as_text(status: Status, detail: str, seconds: float) -> str:
    return f"{status} after {seconds:.0f} s: {detail}"


def refuse() -> None:
    """A preparation that fails."""
    raise FileNotFoundError("the table of words")
