"""Serves the page of one run in a process of its own while the run trains: it yields the CPU to it and ends with it.

The driver opens the port and keeps it, so that it knows the address at once and waits for nothing.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openrs_ray.common.parent import end_with_parent
from openrs_ray.report.server import address, listen, new_secret, serve

_SECRET = "OPENRS_PAGE_SECRET"
_END_S = 5.0
_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def page_beside(run: Path) -> Iterator[str]:
    """Yield the page's address; the page goes when the block or this process ends."""
    listening, secret = listen(), new_secret()
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(listening.fileno()), str(run)]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command,
        pass_fds=[listening.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {_SECRET: secret, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for the run, which still saves
    )
    where = address(listening, secret)
    listening.close()
    try:
        yield where
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()


def main(parent: int, descriptor: int, run: Path) -> None:
    end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        return
    os.nice(19)
    serve([run], socket.socket(fileno=descriptor), os.environ.pop(_SECRET))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
