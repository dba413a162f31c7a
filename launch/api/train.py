"""`openrs.train`: the training command, called from Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.api.commands import run_command
from launch.api.finished import TrainedRun
from launch.api.given import recipe_file
from openrs_ray.config.load import load_config
from openrs_ray.config.names import runs_folder
from openrs_ray.errors import UserError


def train(
    recipe: str | Path | Mapping[str, Any],
    *,
    data: Any = None,
    rewards: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    resume: bool = False,
    **sections: Mapping[str, Any],
) -> TrainedRun:
    """Train as `python -m launch.train RECIPE` does: the same checks, the same run folder; Ctrl-C saves.

    Args:
        recipe: a recipe by name or file, or the content of one.
        data: rows (a list of mappings, a table of pandas, pyarrow or datasets), or the section `data`.
        rewards: weights by name; a function, or (function, weight), is a reward of your own: it is sent to the checking
            processes, where it may hang or crash without harm. Or the whole section, with `weights` among its fields.
        run: the section `run`, such as {"name": "sums", "steps": 10}.
        resume: go on with a run that was stopped.
        sections: any other section of a recipe, such as rollout={"staleness": 1}.

    Raises:
        UserError: what to mend, before anything starts.
        RunError: the run broke; it can be resumed.
        KeyboardInterrupt: it was stopped by Ctrl-C, after it has saved.
    """
    if run is not None and not isinstance(run, Mapping):
        raise UserError(f'run is the section run, such as {{"name": "sums", "steps": 10}}, not {type(run).__name__}')
    folder = Path((run or {}).get("folder") or runs_folder()).expanduser() / "given"
    file = recipe_file(recipe, {"data": data, "rewards": rewards, "run": run, **sections}, folder)
    config = load_config(file, [])
    run_command("train", [str(file), *(["--resume"] if resume else [])])
    return TrainedRun(config.run.path)
