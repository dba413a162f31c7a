"""The environment of an attempt, `environment.json`: its code, machine and command, without secrets."""

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from openrs_ray.cluster.probes import ProbeError, gpus, within
from openrs_ray.common.files import read_json, write_json
from openrs_ray.common.redaction import hide_secrets

FILE = "environment.json"
ROOT = Path(__file__).resolve().parents[2]
_CODE = ("openrs_ray", "actors", "launch")
_GIT_S = 10.0
_PROBE_S = 20.0


def write_environment(folder: Path) -> dict[str, Any]:
    """Write and return the environment. Forks to ask for the GPUs: must come before any thread."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = describe()
    write_json(folder / FILE, environment)
    return environment


def headline(environment: Mapping[str, Any]) -> str:
    """A log's first line."""
    git = environment["git"]
    state = f"{git['commit'][:12]}{'' if git['clean'] else ' with changes'}" if git["commit"] else git["reason"]
    return f"started on {environment['host']} (commit: {state}): {environment['command']}"


def add_cluster(folder: Path, cluster: Mapping[str, Any]) -> None:
    write_json(folder / FILE, (read_json(folder / FILE) or {}) | {"ray": dict(cluster)})


def describe() -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": hide_secrets(shlex.join(sys.orig_argv)),
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "git": checkout(ROOT),
        "code_sha256": code_digest(ROOT),
        "python": sys.version,
        "packages": packages(),
        "gpus": _gpus(),
        "ray": {"address": hide_secrets(os.environ.get("RAY_ADDRESS") or "one of its own")},
    }


def checkout(root: Path) -> dict[str, Any]:
    """The commit of a checkout and its changes, or the reason why they are not known."""
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel").strip()).resolve() != root.resolve():
            return {"commit": None, "reason": "not a git checkout"}  # but a folder inside another one
        changed = _git(root, "status", "--porcelain").splitlines()
        return {"commit": _git(root, "rev-parse", "HEAD").strip(), "clean": not changed, "changed": changed[:50]}
    except FileNotFoundError:
        return {"commit": None, "reason": "no git on this machine"}
    except subprocess.CalledProcessError as error:
        return {"commit": None, "reason": str(error.stderr).strip().partition("\n")[0]}
    except subprocess.TimeoutExpired:
        return {"commit": None, "reason": f"git did not answer within {_GIT_S:.0f} s"}


def _git(root: Path, *arguments: str) -> str:
    command, settings = ["git", "-C", str(root), *arguments], {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    env = os.environ | settings
    return subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True, env=env).stdout


def code_digest(root: Path) -> str:
    """SHA-256 of the project's Python files, for machines without git."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in _CODE for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def packages() -> dict[str, str]:
    return dict(sorted((found.name, found.version) for found in metadata.distributions() if found.name))


def _gpus() -> list[dict[str, Any]] | str:
    try:
        return [asdict(gpu) for gpu in within(_PROBE_S, gpus)]
    except ProbeError as error:
        return f"not known: {error}"
