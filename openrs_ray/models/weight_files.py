"""Names and shapes of a model's weights, from the headers of its safetensors files."""

from pathlib import Path

from huggingface_hub import get_safetensors_metadata, try_to_load_from_cache
from huggingface_hub.errors import NotASafetensorsRepoError
from safetensors import safe_open
from transformers import PreTrainedConfig

from openrs_ray.common.foreign import parse_json, reading, why
from openrs_ray.errors import UserError
from openrs_ray.models.pretrained import CONFIG, INDEX, WHOLE, Shapes, check_shapes

_PICKLED = (
    "weights only as a pickle (.bin), which could run code: save them as safetensors (save_pretrained of transformers)"
)


def check_weights(path: str, config: PreTrainedConfig) -> None:
    """UserError unless the safetensors files hold exactly the weights that the configuration describes."""
    if getattr(config, "quantization_config", None) is None:
        check_shapes(config, stored_shapes(path), path)


def stored_shapes(path: str) -> Shapes:
    """Shapes of a model in a folder or on the Hub."""
    folder = model_folder(path)
    if folder is not None and (Path(path).is_dir() or (folder / WHOLE).exists() or (folder / INDEX).exists()):
        files = _files(folder, path)
        if files is not None:
            return {name: shape for file in files for name, shape in _header(file).items()}
    return _remote(path)


def model_folder(path: str) -> Path | None:
    """The model's own folder, or its part of the Hub cache where that has its config.json."""
    if Path(path).is_dir():
        return Path(path)
    cached = try_to_load_from_cache(path, CONFIG)
    return Path(cached).parent if isinstance(cached, str) else None


def _files(folder: Path, path: str) -> list[Path] | None:
    """As transformers chooses them; None where the cache has only some."""
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if not (folder / INDEX).exists():
        pickled = any(folder.glob("*.bin"))
        raise UserError(
            f"model {path} has {_PICKLED if pickled else f'no weights: neither {WHOLE} nor {INDEX} is in it'}"
        )
    with reading(f"{folder / INDEX} is not the index of weights in several files"):
        names = sorted(set(parse_json((folder / INDEX).read_bytes())["weight_map"].values()))
        missing = [name for name in names if not (folder / name).exists()]
    if missing and Path(path).is_dir():
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(names)} files of its weights: {missing[0]} is not there"
        )
    return None if missing else [folder / name for name in names]


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="pt") as stored:
            return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has an exception of its own, and a damaged header has any text
        raise UserError(f"{file} is not a whole safetensors file: {why(error)}") from error


def _remote(path: str) -> Shapes:
    try:
        files = get_safetensors_metadata(path).files_metadata.values()
    except NotASafetensorsRepoError as error:
        raise UserError(f"model {path} has {_PICKLED}, or has none at all") from error
    except Exception as error:  # of the network, of which there are many kinds
        raise UserError(
            f"the weights of {path} are not in the cache, and the Hub does not say what they are: {why(error)}"
        ) from error
    return {name: tuple(tensor.shape) for file in files for name, tensor in file.tensors.items()}
