"""Which models an evaluation is about: a run's checkpoint or any model, and the start model beside it."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.builtin import resolve_model
from openrs_ray.checkpoints import CheckpointStore
from openrs_ray.config import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation.report import published_name

START = "start model"
_EDGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """A model. Example: Subject("open-rs3, step 50", "step-000050", "/runs/open-rs3/.../policy", "Open-RS3")"""

    label: str
    folder: str
    """Name of its folder inside the evaluation's."""
    path: str
    """What transformers and vLLM load."""
    published: str | None
    """Its name in the published tables."""

    def identity(self) -> str:
        """The path and, of a folder, a digest of its files: completions of another model must not count as its own."""
        folder = Path(self.path)
        if not folder.is_dir():
            return self.path
        digest = hashlib.sha256()
        for file in sorted(f for f in folder.iterdir() if f.suffix in (".safetensors", ".bin", ".json")):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as content:  # both ends: weights of several GB are not read for this
                digest.update(content.read(_EDGE_BYTES))
                content.seek(max(0, size - _EDGE_BYTES))
                digest.update(content.read())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Subjects:
    model: Subject
    start: Subject | None
    run: RunConfig | None
    """The run that the model comes from."""
    folder: Path
    """Where evaluations of it go unless another folder is given."""


def find_subjects(given: str, start: str | None, step: int | None, runs: Path) -> Subjects:
    """What is meant by a path or name.

    Args:
        given: a run (its folder, or its name inside `runs`), a model's folder, a Hub id or a built-in.
        start: the start model; by default the run's own, and none for a model.
        step: the run's checkpoint (default: the last that has a policy).

    Raises:
        UserError: there is no such model, run or checkpoint.
    """
    run_folder = next((f for f in (Path(given).expanduser(), runs / given) if _is_run(f)), None)
    if run_folder is None:
        if step is not None:
            raise UserError(f"--step is for a run, and {given} is none")
        model = _plain(given, None)
        first = None if start is None else start_model(start)
        return Subjects(model, first, None, runs / "evaluations" / model.folder)
    config = _read_run(run_folder)
    kept = policies_of(run_folder, config.run.name)
    if not kept:
        raise UserError(f"run {config.run.name} in {run_folder} has no checkpoint with a policy yet")
    chosen = max(kept) if step is None else step
    if chosen not in kept:
        raise UserError(
            f"run {config.run.name} has no policy of step {chosen}: there are {', '.join(map(str, sorted(kept)))}"
        )
    return Subjects(kept[chosen], start_model(start or config.model.path), config, run_folder / "evaluation")


def policies_of(run_folder: Path, name: str) -> dict[int, Subject]:
    """The policies that run `name` has kept, by step in order."""
    checkpoints = CheckpointStore(run_folder / "checkpoints").checkpoints()
    kept = {checkpoint.step: checkpoint.policy for checkpoint in checkpoints if any(checkpoint.policy.glob("*"))}
    return {
        step: Subject(f"{name}, step {step}", f"step-{step:06d}", str(policy), published_name(name, begins=True))
        for step, policy in sorted(kept.items())
    }


def start_model(path: str) -> Subject:
    """The model that others are compared with."""
    return _plain(path, START)


def _is_run(folder: Path) -> bool:
    """A model's folder has a config.json too, but no sections of a run in it."""
    try:
        content: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"run", "rollout", "data"} <= content.keys()


def _read_run(folder: Path) -> RunConfig:
    try:
        return RunConfig.model_validate_json((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not the config of a run of this version") from error


def _plain(path: str, label: str | None) -> Subject:
    name = label or path.rstrip("/").rpartition("/")[2]
    return Subject(name, re.sub(r"[^A-Za-z0-9._-]+", "-", name), resolve_model(path), published_name(path))
