"""Models of an evaluation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from openrs_ray.common.foreign import reading
from openrs_ray.config.load import flat
from openrs_ray.config.names import is_run, runs_text
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation.identity import model_identity
from openrs_ray.evaluation.protocol import Protocol
from openrs_ray.evaluation.report import published_name
from openrs_ray.models.bundled import MODELS, looks_like_hub_id, resolve_model
from openrs_ray.run.checkpoints import CheckpointStore

START = "start model"


@dataclass(frozen=True, slots=True)
class Subject:
    """Example: Subject("open-rs3, step 50", "step-000050", "/runs/open-rs3/.../policy", "Open-RS3")"""

    label: str
    folder: str
    """Inside the evaluation's folder, or absolute."""
    path: str
    """For transformers and vLLM to load."""
    published: str | None
    """Its name in the published tables."""

    def inside(self, folder: Path) -> "Subject":
        """The same subject in another evaluation's folder."""
        return replace(self, folder=str(folder / self.folder))

    def identity(self) -> str:
        """Digest of a folder's files: another model's completions must not count as its own."""
        return model_identity(self.path)


@dataclass(frozen=True, slots=True)
class Subjects:
    model: Subject
    start: Subject | None
    run: RunConfig | None
    folder: Path
    """Default of its evaluations."""


def find_subjects(given: str, start: str | None, step: int | None, runs: Path) -> Subjects:
    """Models that a path or name means. UserError if there is no such model, run or checkpoint.

    Args:
        given: a run (folder or name inside `runs`), a model's folder, a Hub id or a built-in.
        start: default: the run's own; none for a model.
        step: default: the last with a policy.
    """
    with reading(f"cannot look for run or model {given}"):
        run_folder = next((f for f in (Path(given).expanduser(), runs / given) if is_run(f)), None)
        is_folder = Path(given).expanduser().is_dir()
    if run_folder is None:
        if step is not None:
            raise UserError(f"--step is for a run, and {given} is none")
        if not (given in MODELS or looks_like_hub_id(given) or is_folder):
            raise UserError(
                f"there is no run or model {given}: {runs_text(given, runs)}; a model is a folder, a Hub id (owner/name) or a "
                f"built-in ({', '.join(MODELS)})"
            )
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


@dataclass(frozen=True, slots=True)
class Together:
    models: tuple[Subject, ...]
    start: Subject | None
    folder: Path
    """For completions that lie nowhere else."""
    report: Path
    """For the tables."""
    seeds: bool = False
    """Runs of one experiment."""
    differences: tuple[str, ...] = ()
    """Fields in which the runs differ, besides seed, place and speed."""

    @property
    def all(self) -> list[Subject]:
        """The start model last."""
        return [*self.models, *([self.start] if self.start else [])]


def side_by_side(several: Sequence[Subjects], how: Protocol, runs: Path, folder: Path | None) -> Together:
    """Combine models; without `folder`, completions of runs go into each run's own. UserError where they do not fit."""
    first = several[0]
    if len(several) == 1:
        place = folder or first.folder / how.name
        return Together((first.model,), first.start, place, place / first.model.folder)
    configs = [subjects.run for subjects in several if subjects.run is not None]
    if configs and len(configs) < len(several):
        raise UserError("give runs or models, not both: a mean over them would mean nothing")
    labels = [subjects.model.label for subjects in several]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"the model {twice[0]} is given twice, or two have this name: the tables tell them apart by it")
    starts = sorted({subjects.start.path for subjects in several if subjects.start is not None})
    if len(starts) > 1:
        raise UserError(f"the runs begin from different models, {' and '.join(starts)}: give one with --start")
    differences = _differences(configs)
    if how.prompt.name == "run" and (other := [name for name in differences if _PROMPT.fullmatch(name)]):
        raise UserError(f"the runs differ in {other[0]}, so they ask differently: ask all alike with --prompt paper")
    if _TEMPLATE in differences:
        raise UserError(f"the runs differ in {_TEMPLATE}, so they ask differently: evaluate each by itself")
    names = [config.run.name for config in configs] or [subjects.model.folder for subjects in several]
    place = folder or runs / "evaluations" / "+".join(names) / how.name
    models = [subjects.model for subjects in several]
    start = first.start
    if folder is not None and configs:
        models = [replace(model, folder=f"{name}-{model.folder}") for name, model in zip(names, models, strict=True)]
    elif configs:
        models = [subjects.model.inside(subjects.folder / how.name) for subjects in several]
        start = start and start.inside(first.folder / how.name)
    return Together(tuple(models), start, place, place, bool(configs), tuple(differences))


_PROMPT = re.compile(r"data(\[\d+\])?\.(system_prompt|system_as_user|examples|suffix)")
_TEMPLATE = "model.chat_template"
_SAME_EXPERIMENT = (
    "run.name",
    "run.folder",
    "run.seed",
    "evaluation.",
    "engine.",
    "placement.",
    "checkpoint.",
    "cost.",
)
"""Prefixes of fields in which runs of one experiment may differ."""


def _differences(configs: Sequence[RunConfig]) -> list[str]:
    fields = [flat(config) for config in configs]
    known = [name for name in dict.fromkeys(chain(*fields)) if not name.startswith(_SAME_EXPERIMENT)]
    return [name for name in known if any(name not in other or other[name] != fields[0].get(name) for other in fields)]


def policies_of(run_folder: Path, name: str) -> dict[int, Subject]:
    """Kept policies by step, in order."""
    checkpoints = CheckpointStore(run_folder / "checkpoints").checkpoints()
    kept = {checkpoint.step: checkpoint.policy for checkpoint in checkpoints if any(checkpoint.policy.glob("*"))}
    return {
        step: Subject(f"{name}, step {step}", policy_folder(step), str(policy), published_name(name, begins=True))
        for step, policy in sorted(kept.items())
    }


def policy_folder(step: int) -> str:
    """Inside an evaluation's folder."""
    return f"step-{step:06d}"


def start_model(path: str) -> Subject:
    return _plain(path, START)


def _read_run(folder: Path) -> RunConfig:
    try:
        return RunConfig.model_validate_json((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is not the config of a run of this version") from error


def _plain(path: str, label: str | None) -> Subject:
    name = label or path.rstrip("/").rpartition("/")[2]
    return Subject(name, re.sub(r"[^A-Za-z0-9._-]+", "-", name), resolve_model(path), published_name(path))
