"""Runs a command of this project in a process of its own and passes on what it says, as a notebook's cell can show it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from openrs_ray.common.parent import end_with_parent
from openrs_ray.errors import RunError, UserError

_ROOT = Path(__file__).resolve().parents[2]
_ERROR = "error: "
_READ_BYTES = 65_536
_AS_A_TERMINAL = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
"""Set by a notebook's kernel: a command would take the pipe for a terminal, and redraw its screen in the cell."""


def run_command(name: str, arguments: Sequence[str]) -> None:
    """`python -m launch.NAME ARGUMENTS`; what it prints is written to `sys.stdout`.

    Ctrl-C, or a notebook's interrupt, is handed on to the command and raised again when it has ended; a second one ends it at
    once.

    Raises:
        UserError, RunError: with the command's last sentence.
    """
    command = [sys.executable, "-m", f"launch.{name}", *arguments]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    inherited = {name: value for name, value in os.environ.items() if name not in _AS_A_TERMINAL}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C is handed on once, below
        preexec_fn=partial(end_with_parent, signal.SIGTERM),
    )
    said, interrupted = _Said(), False
    try:
        while True:
            try:
                if not said.more(process):
                    code = process.wait()
                    break
            except KeyboardInterrupt:
                interrupted = True
                process.send_signal(signal.SIGINT)
    finally:
        process.kill()
        process.wait()
    if interrupted:
        raise KeyboardInterrupt
    if code:
        sentence = said.error or f"python -m launch.{name} ended with exit code {code}."
        raise UserError(sentence) if code == 2 else RunError(sentence)


class _Said:
    def __init__(self) -> None:
        self.error = ""
        """The last sentence that began with `error: `."""
        self._rest = b""

    def more(self, process: "subprocess.Popen[bytes]") -> bool:
        """Pass on what there is; False at the end."""
        assert process.stdout is not None
        new = os.read(process.stdout.fileno(), _READ_BYTES)
        *lines, self._rest = (self._rest + (new or b"\n" * bool(self._rest))).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace")
            if text.startswith(_ERROR):
                self.error = text.removeprefix(_ERROR)
            sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        return bool(new)
