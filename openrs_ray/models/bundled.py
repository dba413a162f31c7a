"""Built-in models and problems by name, made on first use and cached in `OPENRS_CACHE` (default `~/.cache/openrs_ray`).

An entry's name holds a hash of its settings and code. Built in a temporary folder and renamed, it is whole or absent.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from openrs_ray.common import hub
from openrs_ray.errors import RunError, UserError
from openrs_ray.models import smollm2
from openrs_ray.models.toy import arithmetic
from openrs_ray.models.toy.arithmetic import Split

BUILD_DEADLINE_S = 1800.0
"""Longest wait for another process that builds the same entry."""

SMOLLM2 = "smollm2-135m-instruct"
TOYS = ("toy", "toy-calculator", "toy-teacher")
MODELS = (*TOYS, SMOLLM2)
DATA: dict[str, Split] = {"toy": "train", "toy-heldout": "heldout"}
"""Built-in problems by name."""
_PROBLEMS = {"count": 4096, "seed": 0}


def resolve_model(path: str, field: str = "model.path") -> str:
    """Folder or Hub id to load. UserError, about a config's field, unless `path` is one, or a built-in's name."""
    if path in MODELS:
        return str(model_path(path))
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"the folder {folder.absolute()} holds no model: it has no config.json")
        return str(folder.absolute())
    if looks_like_hub_id(path):
        hub.problem()  # libraries that load it work offline where there is one
        return path
    raise UserError(
        f"no model at {path!r}: set {field} to an existing folder, a Hub id (owner/name) or a built-in "
        f"({', '.join(MODELS)})"
    )


def looks_like_hub_id(path: str) -> bool:
    """True for owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", path) is not None


def model_path(name: str) -> Path:
    """Folder of a built-in model, made first where the cache lacks it."""
    if name == SMOLLM2:
        return cached(
            name, {"package": smollm2.package_version(), "code": _code("smollm2.py")}, _without_bars(smollm2.build)
        )
    # It comes along with transformers, and warns of kernels that are not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Torch and transformers load only where the toy really has to be taught.
    from openrs_ray.models.toy.teach import CALCULATOR, ToySettings, build_toy

    if name == "toy":
        settings, start = ToySettings(), None
    elif name == "toy-teacher":  # for the toy to learn from: taught further, by right solutions alone
        settings, start = ToySettings(wrong_share=0.0, steps=200, learning_rate=1e-3), model_path("toy")
    else:
        settings, start = CALCULATOR, model_path("toy")
    key = {**asdict(settings), "start": start.name if start else None, "code": _code("toy")}
    return cached(name, key, _without_bars(partial(build_toy, settings=settings, start=start)))


def made(name: str) -> list[Path]:
    """Folders of a built-in model that the cache has already, of any version, the newest first; makes none."""
    entries = [path for path in _cache().glob(f"{name}-*") if re.fullmatch(rf"{name}-[0-9a-f]{{12}}", path.name)]
    return sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)


def _cache() -> Path:
    return Path(os.environ.get("OPENRS_CACHE", "~/.cache/openrs_ray")).expanduser().absolute()


def _without_bars(build: Callable[[Path], None]) -> Callable[[Path], None]:
    """Keeps transformers from drawing its progress into what a command says."""

    def quiet(folder: Path) -> None:
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            build(folder)
        finally:
            if shown:
                logging.enable_progress_bar()

    return quiet


def data_path(name: str) -> Path:
    """JSONL file of a built-in data set."""
    settings = {**_PROBLEMS, "split": DATA[name], "columns": 3, "code": _code("toy/arithmetic.py")}
    return cached(name, settings, partial(_write_problems, split=DATA[name])) / "problems.jsonl"


def cached(name: str, settings: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """Folder `name-<hash of settings>` in the cache; `build(folder)` fills a new one."""
    cache = _cache()
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    entry = cache / f"{name}-{key}"
    if entry.is_dir():
        return entry
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(entry.with_name(f"{entry.name}.lock"), timeout=BUILD_DEADLINE_S):
            if not entry.is_dir():
                unfinished = entry.with_name(f"{entry.name}.tmp")
                shutil.rmtree(unfinished, ignore_errors=True)  # left by a build that was killed
                unfinished.mkdir()
                build(unfinished)
                unfinished.rename(entry)
    except Timeout as error:
        raise RunError(f"waited {BUILD_DEADLINE_S:.0f} s for another process to build {entry}") from error
    return entry


def _write_problems(folder: Path, split: Split) -> None:
    with (folder / "problems.jsonl").open("w", encoding="utf-8") as file:
        for problem in arithmetic.distinct(split, **_PROBLEMS):
            row = {"problem": problem.text, "answer": str(problem.answer), "solution": arithmetic.solution(problem)}
            file.write(json.dumps(row) + "\n")


def _code(source: str) -> str:
    """Hash of a source file or of a folder: changed code never meets an old result."""
    path = Path(__file__).parent / source
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
