"""Checks that all files of a run are there: without one of them it would silently become another run.

Each implies those before it:

    cost.json  problems.json  config.json  checkpoints/manifest.json  attempts.jsonl  completions/, metrics.jsonl, result.json
"""

from pathlib import Path

from openrs_ray.config.names import CONFIG as CONFIG
from openrs_ray.errors import UserError
from openrs_ray.run import account, attempts, metrics
from openrs_ray.run import problems as run_problems
from openrs_ray.run.account import Spent
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completion_files import FOLDER, current_files, record_files
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.progress import RESULT, read_result

_MANIFEST = "checkpoints/manifest.json"


def begun(run_folder: Path) -> bool:
    """True when a folder has more than a failed start leaves."""
    marks = (CONFIG, _MANIFEST, attempts.FILE, metrics.FILE, RESULT)
    return any((run_folder / name).exists() for name in marks) or bool(record_files(run_folder))


def check_state(run_folder: Path) -> None:
    """UserError when a file of a run is missing, damaged, or lacks what another one has."""
    _check_presence(run_folder)
    RunProblems.read(run_folder)
    Spent.read(run_folder)
    read_result(run_folder)
    check_attempts(run_folder)
    newest = max(
        (checkpoint.step for checkpoint in CheckpointStore(run_folder / "checkpoints").checkpoints()), default=0
    )
    if newest > 0:
        _check_covered(run_folder, newest)


def check_attempts(run_folder: Path) -> None:
    """UserError when rows or figures are of an attempt that attempts.jsonl lacks."""
    found = {file.attempt for file in record_files(run_folder)} | metrics.attempts_logged(run_folder)
    if missing := found - attempts.read_attempts(run_folder).keys():
        fault = f"{attempts.FILE} has no line of attempt {min(missing)}, which wrote rows or figures"
        raise _missing(run_folder, fault)


def _check_presence(run_folder: Path) -> None:
    later = bool(record_files(run_folder)) or any((run_folder / name).exists() for name in (metrics.FILE, RESULT))
    for name in (attempts.FILE, _MANIFEST, CONFIG, run_problems.FILE, account.FILE):
        if (run_folder / name).exists():
            later = True
        elif later:
            raise _missing(run_folder, f"{name} is missing")


def _check_covered(run_folder: Path, step: int) -> None:
    if not any(file.step == step for file in current_files(run_folder, "train")):
        raise _missing(run_folder, f"{FOLDER}/ has no rows of step {step}, which a checkpoint covers")
    if not any(line["step"] == step for line in metrics.read_metrics(run_folder)):
        raise _missing(run_folder, f"{metrics.FILE} has no line of step {step}, which a checkpoint covers")


def _missing(run_folder: Path, what: str) -> UserError:
    return UserError(f"the run in {run_folder} is not whole: {what}; restore it, or choose another run.name")
