"""Start-model files that an exported policy keeps unchanged: generation config, tokenizer, chat template.

Export is rehearsed before the first step: a library may refuse to write what it has read, such as an unused temperature.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from openrs_ray.common.foreign import why
from openrs_ray.errors import UserError
from openrs_ray.models.pretrained import check_shapes, empty_model, fixed_weights, read_config, read_tokenizer
from openrs_ray.models.templating import tokenized
from openrs_ray.models.weight_files import model_folder

TEMPLATE = "chat_template.jinja"
_GENERATION = "generation_config.json"
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json", TEMPLATE, "chat_template.json"),
)
_PROBE = "What is $\\frac{1}{2} + 3$?\n\n<think> Über 你好: 12,345.</think>\\boxed{7}<|im_end|>"


@dataclass(frozen=True)
class ModelFiles:
    """Example: ModelFiles({"generation_config.json": b"{}", "tokenizer.json": b"..."})"""

    files: Mapping[str, bytes]
    """Content by name, in memory: later changes of the start model do not matter."""

    def write(self, folder: Path) -> None:
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def model_files(path: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> ModelFiles:
    """Files that make an exported policy loadable. UserError if it could not be written or read."""
    found = dict(_own_files(path, tokenizer))
    template = tokenizer.chat_template
    if isinstance(template, str):
        found[TEMPLATE] = template.encode()
    taken = ModelFiles(found)
    if not _reads_the_same(taken, config, tokenizer, path):
        kept = {name: content for name, content in found.items() if name == _GENERATION}
        taken = ModelFiles(kept | _written_anew(tokenizer, path))
        if not _reads_the_same(taken, config, tokenizer, path):
            raise UserError(
                f"the tokenizer of {path} does not read the same once it is saved, so no policy could be exported"
            )
    check_export(config, path)
    return taken


def check_export(config: PreTrainedConfig, path: str) -> None:
    """UserError unless the weights that the learner writes make a whole model."""
    model = empty_model(config)
    written = {**dict(model.named_parameters()), **fixed_weights(model)}
    try:
        check_shapes(config, {name: tuple(weight.shape) for name, weight in written.items()}, "the exported policy")
    except UserError as error:
        raise UserError(
            f"a {type(model).__name__}, the architecture of {path}, cannot be exported, so it cannot be trained here: {error}"
        ) from error


def _own_files(path: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, bytes]]:
    folder = model_folder(path)
    if folder is not None:
        more = [file.relative_to(folder).as_posix() for file in folder.glob("additional_chat_templates/*.jinja")]
        for name in dict.fromkeys((_GENERATION, *_TOKENIZER, *tokenizer.vocab_files_names.values(), *more)):
            if (folder / name).is_file():
                yield name, (folder / name).read_bytes()


def _written_anew(tokenizer: PreTrainedTokenizerBase, path: str) -> dict[str, bytes]:
    with TemporaryDirectory() as temporary:
        try:
            tokenizer.save_pretrained(temporary)
        except Exception as error:  # of whichever kind of tokenizer
            raise _not_writable("the tokenizer", path, error) from error
        files = [file for file in Path(temporary).rglob("*") if file.is_file()]
        return {file.relative_to(temporary).as_posix(): file.read_bytes() for file in files}


def _reads_the_same(files: ModelFiles, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, path: str) -> bool:
    """True when the tokenizer reads the same from a folder that is written as the learner does it."""
    with TemporaryDirectory() as temporary:
        files.write(Path(temporary))
        try:
            config.save_pretrained(temporary)
        except Exception as error:  # transformers checks the values of each family in its own way
            raise _not_writable("config.json", path, error) from error
        read_config(temporary)
        try:
            other = read_tokenizer(temporary)
        except UserError:
            return False
    return _answers(other) == _answers(tokenizer)


def _answers(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    ends = tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id
    ids = tokenized(tokenizer, [_PROBE], add_special_tokens=True)
    return tokenizer.get_vocab(), tokenizer.chat_template, ends, ids


def _not_writable(what: str, path: str, error: Exception) -> UserError:
    return UserError(f"{what} of {path} can be read but not written, so no policy could be exported: {why(error)}")
