"""File permissions toward other users of this machine: Ray's token, its session folders, the folder of runs."""

import os
import stat
from pathlib import Path

import psutil


def readable_by_others(file: Path) -> bool:
    """True if modes let other users read a file. False where there is none."""
    return file.exists() and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)) and _reachable(file)


def writable_by_others(folder: Path) -> bool:
    """True if other users could make, replace or remove files in a folder."""
    return folder.is_dir() and bool(folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and _reachable(folder)


def _reachable(path: Path) -> bool:
    """True if all folders above a path let other users through."""
    return all(parent.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) for parent in path.resolve().parents)


def ray_sessions() -> list[Path]:
    """Session folders of this user's Rays here."""
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
