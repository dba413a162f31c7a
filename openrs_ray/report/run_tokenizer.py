"""The tokenizer of a run for reading its tokens, without transformers and without a network."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from openrs_ray.common.files import read_json
from openrs_ray.common.foreign import reading
from openrs_ray.data.completions import Decoder
from openrs_ray.errors import RunError, UserError
from openrs_ray.models.bundled import MODELS, looks_like_hub_id, made, resolve_model

_FILE = "tokenizer.json"


def decoder_of(run: Path) -> Decoder | None:
    """None where neither a policy of the run nor its start model has a tokenizer.json on this machine."""
    found = next((file for file in _files(run) if file.is_file()), None)
    return _load(found) if found else None


def _files(run: Path) -> Iterator[Path]:
    """The newest policy's first, which lies in the run's folder also where that was moved to another machine."""
    yield from sorted(run.glob(f"checkpoints/step-*/policy/{_FILE}"), reverse=True)
    model = (read_json(run / "config.json") or {}).get("model", {}).get("path")
    if not isinstance(model, str):
        return
    if model in MODELS:  # never made for a page, which would take minutes and the run's CPU
        yield from (folder / _FILE for folder in made(model))
        return
    if looks_like_hub_id(model) and not Path(model).expanduser().is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, _FILE)
        if isinstance(cached, str):
            yield Path(cached)
        return
    try:
        yield Path(resolve_model(model)) / _FILE
    except (UserError, RunError):  # it was moved: tokens are shown as numbers
        return


@lru_cache(maxsize=4)
def _load(file: Path) -> Decoder:
    from tokenizers import Tokenizer

    with reading(f"{file} cannot be read as a tokenizer"):
        return Decoder(Tokenizer.from_file(str(file)), None, light=True)
