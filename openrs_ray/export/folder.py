"""Writes an exported policy: whole, or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrs_ray.common.files import TEMPORARY, read_json, sync, write_json
from openrs_ray.common.formatting import size_text
from openrs_ray.errors import UserError
from openrs_ray.export.base import Base
from openrs_ray.export.card import adapter_card, licence_note, model_card
from openrs_ray.export.policy_files import README
from openrs_ray.export.prompting import FILE, Prompting
from openrs_ray.export.source import Source
from openrs_ray.models.pretrained import CONFIG, GENERATION
from openrs_ray.run.checkpoint_files import ADAPTER, open_to, sync_and_list

HERE = "."
"""The folder in the examples of a card that lies in it."""
_ADAPTER_CONFIG = "adapter_config.json"

Convert = Callable[[Path], None]
"""Adds another format of the model to its folder."""


def check_target(folder: Path) -> None:
    """UserError unless an export can go there."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give another --folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty, and nothing in it was changed: remove it, or give another --folder")


def write_export(source: Source, folder: Path, where: str = HERE, convert: Convert | None = None) -> None:
    """Everything that belongs to a model to share.

    Args:
        where: the Hub id in the card's examples.
    """
    check_target(folder)
    policy = source.checkpoint.policy
    with _whole(folder, _size(policy)) as temporary:
        shutil.copytree(policy, temporary, dirs_exist_ok=True)
        _write_settings(temporary, source.prompting)
        (temporary / FILE).write_text(source.prompting.as_json(), encoding="utf-8")
        _write_licence(temporary, source.base)
        (temporary / README).write_text(model_card(source, where), encoding="utf-8")
        if source.adapter is not None:
            shutil.copytree(source.adapter, temporary / ADAPTER)
            _name_base(temporary / ADAPTER / _ADAPTER_CONFIG, source.base)
            (temporary / ADAPTER / README).write_text(adapter_card(source), encoding="utf-8")
        if convert is not None:
            convert(temporary)


@contextmanager
def _whole(folder: Path, needed: int) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` when the block ends well, and else goes."""
    temporary = folder.with_name(folder.name + TEMPORARY)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)  # of an export that was killed
    if (free := shutil.disk_usage(folder.parent).free) < needed:
        raise UserError(
            f"the model takes {size_text(needed)}, and {folder.parent} has {size_text(free)} free: make room, or give another "
            "--folder"
        )
    temporary.mkdir()
    try:
        yield temporary
        open_to(0o666 & ~_umask(), temporary)
        sync_and_list(temporary)
        os.rename(temporary, folder)  # an empty folder may be there
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder.parent)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _write_settings(folder: Path, prompting: Prompting) -> None:
    """generation_config.json with the run's sampling, and a cache, which training models are often saved without."""
    config, start = read_json(folder / CONFIG) or {}, read_json(folder / GENERATION) or {}
    write_json(folder / GENERATION, generation_config(config, start, prompting))
    if config.get("use_cache") is False:
        write_json(folder / CONFIG, config | {"use_cache": True})


def generation_config(config: Mapping[str, Any], start: Mapping[str, Any], prompting: Prompting) -> dict[str, Any]:
    """The start model's special tokens and the run's sampling; of the start model's own sampling nothing stays.

    Without `max_new_tokens`: vLLM takes it as a limit to every request.
    """
    tokens = {name: start.get(name, config.get(name)) for name in ("bos_token_id", "pad_token_id")}
    ends = list(prompting.end_ids) or start.get("eos_token_id", config.get("eos_token_id"))
    return {
        **{name: token for name, token in tokens.items() if token is not None},
        "eos_token_id": ends[0] if isinstance(ends, list) and len(ends) == 1 else ends,
        "do_sample": True,
        "temperature": prompting.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "use_cache": True,
    }


def _name_base(file: Path, base: Base) -> None:
    """The start model of an adapter, which in the run is a path of the machine that trained it."""
    write_json(file, (read_json(file) or {}) | {"base_model_name_or_path": base.shared})


def _write_licence(folder: Path, base: Base) -> None:
    """The start model's own texts, or a note."""
    files = base.licence_files()
    for file in files:
        shutil.copyfile(file, folder / file.name)
    if not files:
        (folder / "LICENSE").write_text(licence_note(base) + "\n", encoding="utf-8")
