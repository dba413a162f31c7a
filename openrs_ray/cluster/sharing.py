"""File permissions toward other users of this machine."""

import os
import stat
from pathlib import Path

import psutil


def readable_by_others(file: Path) -> bool:
    """False where there is no file."""
    return file.exists() and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)) and _reachable(file)


def writable_by_others(folder: Path) -> bool:
    """True if other users could make, replace or remove files in it."""
    return folder.is_dir() and bool(folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and _reachable(folder)


def _reachable(path: Path) -> bool:
    """True if all folders above let other users through."""
    return all(parent.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) for parent in path.resolve().parents)


def ray_sessions() -> list[Path]:
    """Session folders of this user's Rays."""
    sessions = set()
    for process in psutil.process_iter():
        try:
            if process.name() == "raylet" and process.uids().effective == os.getuid():
                sessions |= {
                    Path(word.partition("=")[2]) for word in process.cmdline() if word.startswith("--session_dir=")
                }
        except psutil.Error:  # gone
            continue
    return sorted(sessions)
