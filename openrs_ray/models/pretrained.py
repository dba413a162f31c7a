"""Loads model files through transformers; no other module does.

Invariants: a model's own code never runs; missing weights are never made up; a damaged file is one UserError.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as messages

from openrs_ray.common.foreign import reading
from openrs_ray.common.hub import unreachable
from openrs_ray.errors import UserError
from openrs_ray.models.bundled import looks_like_hub_id

Shapes = Mapping[str, tuple[int, ...]]

CONFIG, GENERATION = "config.json", "generation_config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_NO_CODE = {"trust_remote_code": False}  # left out, transformers would ask, and take a "y" from a pipe for an answer


def read_config(path: str) -> PreTrainedConfig:
    with _reading("the configuration", path, CONFIG):
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, **_NO_CODE)
        return config


def read_config_file(path: str) -> dict[str, Any]:
    """Content of config.json, without the defaults of its class."""
    with _reading(CONFIG, path, CONFIG):
        content: dict[str, Any] = PreTrainedConfig.get_config_dict(path)[0]
        return content


def read_generation_config(path: str) -> GenerationConfig | None:
    with _reading(GENERATION, path, GENERATION):
        return None if _has_no(GENERATION, path) else GenerationConfig.from_pretrained(path)


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    with _reading("the tokenizer", path, *_TOKENIZER):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **_NO_CODE)
        return tokenizer


def read_model(path: str, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """On the CPU. UserError unless the files hold exactly the weights that the model has."""
    with _reading("the weights", path, WHOLE, INDEX):
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,  # the other format is a pickle
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report
            **_NO_CODE,
        )
    check_report(report, model, path)
    if broken := next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None):
        raise UserError(f"the weight {broken} of {path} holds numbers that are not finite: give a whole model")
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if tied and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise UserError(
            f"config.json of {path} ties the output head to the embedding, but the weights hold two that differ, and engines "
            "would sample with the embedding: set tie_word_embeddings to false there, or take the head out of the weights"
        )
    return model


def read_gguf(folder: str, file: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, **_NO_CODE)
    return tokenizer, AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, **_NO_CODE)


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Without memory for weights. UserError when the configuration is not a causal language model's."""
    with _reading("the configuration", config.name_or_path), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **_NO_CODE)
        return model


def fixed_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Stored weights that are not parameters (buffers); training leaves them unchanged."""
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


def check_shapes(config: PreTrainedConfig, stored: Shapes, path: str) -> None:
    """UserError unless the stored weights are exactly those of the model."""
    # transformers loads weights of these shapes without content, by its own rules for renamed, tied and optional ones.
    fake = FakeTensorMode(allow_non_fake_inputs=True)  # some families compute with a number that they keep in a tensor
    with _reading("the configuration", path), fake, _in_this_thread_without_report():
        empty = empty_model(config)
        again = _stored_again(empty, stored)  # only `read_model` compares their content
        weights = {name: torch.empty(shape) for name, shape in stored.items() if name not in again}
        model, report = type(empty).from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, ignore_mismatched_sizes=True
        )
    odd = {(name, stored[name], shape) for name, shape in again.items() if stored[name] != shape}
    check_report({**report, "mismatched_keys": {*report["mismatched_keys"], *odd}}, model, path)


def check_report(report: Mapping[str, Any], model: PreTrainedModel, path: str) -> None:
    """UserError where transformers' loading report names a missing, superfluous or misshapen weight."""
    found = []
    if report["missing_keys"]:
        found.append(f"missing {_some(report['missing_keys'])}")
    if report["unexpected_keys"]:
        found.append(f"unexpected {_some(report['unexpected_keys'])}")
    found += [
        f"{name} is {_size(stored)} instead of {_size(expected)}"
        for name, stored, expected in sorted(report["mismatched_keys"], key=str)[:1]
    ]
    found += report["error_msgs"][:1]
    if found:
        raise UserError(
            f"the weights of {path} are not those of the {type(model).__name__} in its config.json: {'; '.join(found)}. "
            "A weight that does not fit would start at random: give the whole model with its own config.json"
        )


def _stored_again(model: PreTrainedModel, stored: Shapes) -> Shapes:
    """Shapes of tied weights that are stored beside the one they are tied to."""

    def stored_name(name: str) -> str:  # the prefix may be left out in files
        return name if name in stored else name.removeprefix(f"{model.base_model_prefix}.")

    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    return {
        stored_name(name): shapes[name]
        for name, source in model.all_tied_weights_keys.items()
        if stored_name(name) in stored and stored_name(source) in stored
    }


def _has_no(file: str, path: str) -> bool:
    """OSError when that cannot be known."""
    if Path(path).is_dir():
        return not os.path.lexists(Path(path, file))
    try:
        hf_hub_download(path, file)
    except LocalEntryNotFoundError:
        # The Hub once said that there is none, or all that the model has was downloaded.
        if try_to_load_from_cache(path, file) is None and not _cached(path, WHOLE, INDEX):
            raise
        return True
    except EntryNotFoundError:
        return True
    return False


def _not_in_cache(path: str, files: tuple[str, ...], error: OSError) -> bool:
    """True when the Hub cache lacks the file that an error is about."""
    if Path(path).is_dir() or not looks_like_hub_id(path):
        return False
    if any(isinstance(one, LocalEntryNotFoundError) for one in (error, error.__cause__)):
        return True
    return not _cached(path, *files)


def _cached(path: str, *files: str) -> bool:
    return any(isinstance(try_to_load_from_cache(path, file), str) for file in files)


@contextmanager
def _reading(what: str, path: str, *files: str) -> Iterator[None]:
    """Turns any error into one sentence. Any one of `files` is enough."""
    with reading(f"cannot read {what} of {path}"):
        try:
            yield
        except OSError as error:
            absent = _not_in_cache(path, files, error)
            if absent and (missing := unreachable(f"{path} ({what})", "give its folder with model.path")):
                raise missing from error
            raise
        except Exception as error:  # a file's content decides of which kind
            if "trust_remote_code" not in str(error):
                raise
            raise UserError(
                f"{path} comes with code of its own, which is never run here: use a model whose architecture and tokenizer "
                "transformers has itself"
            ) from error


@contextmanager
def _in_this_thread_without_report() -> Iterator[None]:
    """Keeps transformers from its own threads, which have no tensors without content, and from printing misfits."""
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    before, level, bar = os.environ.get(name), messages.get_verbosity(), messages.is_progress_bar_enabled()
    os.environ[name] = "1"
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
        messages.set_verbosity(level)
        if bar:
            messages.enable_progress_bar()


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
