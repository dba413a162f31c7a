"""Ends a process with its parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal when the parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def main(parent: int, *command: str) -> None:
    """`python -m openrs_ray.common.parent PARENT COMMAND ...`: becomes the command, which gets SIGTERM when its parent dies."""
    end_with_parent(signal.SIGTERM)
    if os.getppid() == parent:  # else it died before the line above
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
