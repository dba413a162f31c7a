"""A Ray head node of a test's own: token authentication on, its ports free ones, ended by its own handle."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from commands import assert_all_gone

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class RayHead:
    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    """Its temporary files (`ray/`) and its log."""
    environment: dict[str, str]
    """With its token, for commands."""

    @property
    def log(self) -> Path:
        return self.folder / "log"


@contextmanager
def ray_head(*options: str, **variables: str) -> Iterator[RayHead]:
    """`options` of `ray start`; `variables` of its environment."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's sockets lie in it
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        **variables,
    }
    (folder / "token").write_text("0123456789abcdef" * 4)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--port", str(port), "--num-cpus", "4"),
        *("--temp-dir", str(folder / "ray"), "--object-store-memory", str(128 << 20)),
        # Of its own, too: where another Ray has the default one, this head would have no agent, and no agent starts jobs.
        *("--dashboard-agent-listen-port", str(free_port()), *options),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield RayHead(process, port, folder, environment)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert_all_gone(family)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
