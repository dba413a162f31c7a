"""Every load of a model's files by transformers: configuration, tokenizer, generation config, weights.

Invariants: code that comes with a model is never run (left to itself transformers asks, and takes a "y" from a pipe for an
answer); weights that a file lacks are never made up; whatever is wrong with a file is one UserError.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
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

from openrs_ray.builtin import looks_like_hub_id
from openrs_ray.errors import UserError
from openrs_ray.foreign import reading
from openrs_ray.hub import unreachable

Shapes = Mapping[str, tuple[int, ...]]
"""Of weights, by name."""

_NO_CODE = {"trust_remote_code": False}


def read_config(path: str) -> PreTrainedConfig:
    """The configuration of a model in a folder or on the Hub."""
    with _reading("the configuration", path):
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, **_NO_CODE)
        return config


def read_config_file(path: str) -> dict[str, Any]:
    """What config.json itself says, without the defaults of its class."""
    with _reading("config.json", path):
        content: dict[str, Any] = PreTrainedConfig.get_config_dict(path)[0]
        return content


def read_generation_config(path: str) -> GenerationConfig | None:
    """None where the model has none."""
    with _reading("generation_config.json", path):
        try:
            return GenerationConfig.from_pretrained(path)
        except OSError as error:
            if "valid JSON" in str(error):
                raise
            return None


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model in a folder or on the Hub."""
    with _reading("the tokenizer", path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **_NO_CODE)
        return tokenizer


def read_model(path: str, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """The model with all its weights, on the CPU. UserError unless the files hold exactly the weights it has."""
    with _reading("the weights", path):
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
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if tied and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise UserError(
            f"config.json of {path} ties the output head to the embedding, but the weights hold two that differ, and engines "
            "would sample with the embedding: set tie_word_embeddings to false there, or take the head out of the weights"
        )
    return model


def read_gguf(folder: str, file: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model of a GGUF file."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, **_NO_CODE)
    return tokenizer, AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, **_NO_CODE)


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model without memory for weights. UserError when the configuration is no causal language model's."""
    with _reading("the configuration", config.name_or_path), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, **_NO_CODE)
        return model


def check_shapes(config: PreTrainedConfig, stored: Shapes, path: str) -> None:
    """UserError unless the stored weights are exactly those that the model has.

    transformers loads weights of these shapes that have no content, so that its own rules hold: which names are renamed,
    which weights are tied and which ones may be missing.
    """
    with _reading("the configuration", path), FakeTensorMode(), _in_this_thread(), _without_report():
        weights = {name: torch.empty(shape) for name, shape in stored.items()}
        model, report = type(empty_model(config)).from_pretrained(
            None, config=config, state_dict=weights, output_loading_info=True, ignore_mismatched_sizes=True
        )
    check_report(report, model, path)


def check_report(report: Mapping[str, Any], model: PreTrainedModel, path: str) -> None:
    """UserError where transformers' report on a load says that a weight was missing, superfluous or of another shape."""
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


@contextmanager
def _reading(what: str, path: str) -> Iterator[None]:
    """Turns whatever goes wrong into one sentence."""
    with reading(f"cannot read {what} of {path}"):
        try:
            yield
        except OSError as error:
            if looks_like_hub_id(path) and (missing := unreachable(path, "give its folder with model.path")):
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
def _in_this_thread() -> Iterator[None]:
    """transformers loads in threads of its own otherwise, where there are no tensors without content."""
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextmanager
def _without_report() -> Iterator[None]:
    """Without transformers' table of what does not fit, which `check_report` says in a sentence, and its progress bar."""
    level, bar = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if bar:
            messages.enable_progress_bar()


def _some(names: set[str]) -> str:
    """The first names, and how many there are."""
    first = sorted(names)[:2]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
