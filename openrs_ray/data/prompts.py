"""Turns problems into token ids: system prompt, worked examples, problem, chat template."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.foreign import reading
from openrs_ray.config.data import Data
from openrs_ray.config.schema import Model
from openrs_ray.data.rendered import check_rendered, takes_no_system_message
from openrs_ray.data.tools import Tools, shows_tools, with_tools
from openrs_ray.data.turns import Asked, Message
from openrs_ray.errors import UserError
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.pretrained import read_tokenizer
from openrs_ray.models.templating import templated


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Start model's tokenizer with a chat template (`model.chat_template` where that is set)."""
    tokenizer = read_tokenizer(resolve_model(model.path))
    if model.chat_template is not None:
        with reading(f"cannot read model.chat_template {model.chat_template}"):
            tokenizer.chat_template = model.chat_template.expanduser().read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {model.path!r} has no chat template: set model.chat_template to a file with one, "
            "or use an instruction-tuned model"
        )
    return tokenizer


def messages(data: Data, problem: Asked) -> list[Message]:
    """Conversation up to and including the problem."""
    given = [{"role": "user", "content": problem}] if isinstance(problem, str) else list(problem)
    system = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    while given[0]["role"] == "system":
        system.append(given.pop(0))
    turns = []
    for example in data.examples:
        turns.append({"role": "user", "content": example.problem + data.suffix})
        turns.append({"role": "assistant", "content": example.response})
    turns += [*given[:-1], {**given[-1], "content": given[-1]["content"] + data.suffix}]
    if not data.system_as_user:
        return [*system, *turns]
    first, *rest = turns
    return [{**first, "content": "\n\n".join(message["content"] for message in [*system, first])}, *rest]


def tokenize_prompts(
    data: Data, problems: Sequence[Asked], tokenizer: PreTrainedTokenizerBase, tools: Tools = ()
) -> list[tuple[int, ...]]:
    """Token ids of each conversation. UserError where the template refuses one or leaves out part of it.

    `tools` are shown as the template does it, or where it does not, in the system prompt.
    """
    data, tools = with_shown_tools(data, tokenizer, tools)
    conversations = [messages(data, problem) for problem in problems]
    try:
        prompts = templated(tokenizer, conversations, tools)
    except UserError as error:
        if takes_no_system_message(conversations, tokenizer):
            raise UserError(
                "the chat template takes no system message: set data.system_as_user true (in a curation the stage's "
                "system_as_user), which puts its text before the first user turn"
            ) from error
        raise
    check_rendered(data, conversations, prompts, tokenizer)
    return prompts


def with_shown_tools(data: Data, tokenizer: PreTrainedTokenizerBase, tools: Tools) -> tuple[Data, Tools]:
    """The section with tools in its system prompt where the chat template shows none, and the tools left for the template."""
    if not tools or shows_tools(tokenizer):
        return data, tools
    return data.model_copy(update={"system_prompt": with_tools(data.system_prompt, tools)}), ()
