"""The user's own files in a run: their hashes in its identity, their copies in its folder."""

from collections.abc import Mapping
from pathlib import Path, PurePath

from openrs_ray.common.files import replacing
from openrs_ray.common.same_request import check_same
from openrs_ray.config.names import CODE
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.problems import RunProblems


def user_code_digests(config: RunConfig) -> dict[str, str]:
    """SHA-256 by file, as the config names it. UserError where one cannot be read."""
    return {(code := config.user_code(reference)).file: code.sha256 for reference in config.user_references}


def keep_user_code(config: RunConfig) -> None:
    """Copy the user's own files into the run's folder, where they are found again if the originals are gone."""
    for reference in config.user_references:
        code = config.user_code(reference)
        path = config.run.path / CODE / copy_name(code.file, code.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(code.content)


def copy_name(file: str, sha256: str) -> PurePath:
    """Place of a copy below the folder of copies: that of the file below the recipe's, or its name with its hash."""
    path = PurePath(file)
    inside = not path.is_absolute() and ".." not in path.parts and not file.startswith("~")
    return path if inside else PurePath(f"{sha256[:8]}-{path.name}")


def check_user_code(known: RunProblems, now: Mapping[str, str], config: RunConfig, instead: str) -> None:
    """UserError about a file that is another one than when the run began."""
    folder = config.run.path / CODE
    before = {file: digest for file, digest in known.user_code.items() if file in now}
    lines = {
        file: f"the lines of {_meant(config, file)} (kept in {folder / copy_name(file, was)})"
        for file, was in before.items()
    }
    check_same(before, {file: now[file] for file in before}, f"run {config.run.name}", instead, lines)


def _meant(config: RunConfig, file: str) -> Path | str:
    codes = map(config.user_code, config.user_references)
    return next((code.path for code in codes if code.file == file), file)
