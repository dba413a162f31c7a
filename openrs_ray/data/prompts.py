"""From a problem to the token ids the engine samples from: system prompt, worked examples, problem, chat template.

The tokenizer that `load_tokenizer` returns always has a chat template; everything else relies on that.
"""

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from openrs_ray.builtin import looks_like_hub_id, resolve_model
from openrs_ray.config import Data, Model
from openrs_ray.data.templating import templated
from openrs_ray.errors import UserError
from openrs_ray.foreign import reading
from openrs_ray.hub import unreachable
from openrs_ray.rewards.extraction import THINK_OPEN


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """The start model's tokenizer, with the template of `model.chat_template` where that is set.

    Raises UserError when the tokenizer cannot be read or there is no chat template.
    """
    with reading(f"cannot load a tokenizer from model.path {model.path!r}"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(resolve_model(model.path))
        except (OSError, ValueError) as error:
            if looks_like_hub_id(model.path) and (
                missing := unreachable(model.path, "give its folder with model.path")
            ):
                raise missing from error
            raise
    if model.chat_template is not None:
        with reading(f"cannot read model.chat_template {model.chat_template}"):
            tokenizer.chat_template = model.chat_template.expanduser().read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {model.path!r} has no chat template: set model.chat_template to a file with one, "
            "or use an instruction-tuned model"
        )
    return tokenizer


def messages(data: Data, problem: str) -> list[dict[str, str]]:
    """The conversation up to and including the problem, as chat messages."""
    turns = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    for example in data.examples:
        turns.append({"role": "user", "content": example.problem + data.suffix})
        turns.append({"role": "assistant", "content": example.response})
    return [*turns, {"role": "user", "content": problem + data.suffix}]


def tokenize_prompts(data: Data, problems: list[str], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    """Token ids of each problem's templated conversation, ending where the model's answer begins."""
    return templated(tokenizer, [messages(data, problem) for problem in problems])


def response_prefix(ids: tuple[int, ...], tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template already wrote of the answer: "<think>" where it opens the reasoning itself, otherwise nothing.

    A completion sampled from such a prompt holds only the closing tag; the format reward needs both.
    """
    return THINK_OPEN if tokenizer.decode(ids[-8:]).rstrip().endswith(THINK_OPEN) else ""
