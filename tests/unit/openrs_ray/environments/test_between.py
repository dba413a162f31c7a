"""Tokens between two turns, held against the chat template's own rendering of the whole conversation."""

from typing import Any

import pytest
from chat_templates import DEEPSEEK_R1, GEMMA, GLM, LLAMA31, QWEN3, QWEN25, SMOLLM2, tokenizer_with

from openrs_ray.environments.between import Between, check_turns
from openrs_ray.errors import UserError
from openrs_ray.models.templating import templated
from openrs_ray.models.tool_template import template_format
from openrs_ray.models.toy.tokenizer import make_tokenizer

KNOWN: dict[str, tuple[str, str, str | None]] = {
    "Qwen2.5": (QWEN25, "<|im_end|>", "hermes"),
    "Qwen3": (QWEN3, "<|im_end|>", "hermes"),
    "Llama 3.1": (LLAMA31, "<|eot_id|>", "llama"),
    "DeepSeek-R1-Distill": (DEEPSEEK_R1, "<|end_of_sentence|>", None),
    "SmolLM2": (SMOLLM2, "<|im_end|>", None),
    "Gemma": (GEMMA, "<end_of_turn>", None),
    "GLM": (GLM, "<|observation|>", "glm"),
}
SAID = ["Let me see.", "4 then"]


def between(name: str, *more: str) -> tuple[Any, Between]:
    template, end, _ = KNOWN[name]
    tokenizer = tokenizer_with(template, end)
    ends = frozenset(tokenizer.convert_tokens_to_ids([end, *more]))
    return tokenizer, Between(tokenizer, ends)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("role", ["tool", "user"])
def test_all_tokens_of_two_replies_are_what_the_template_makes_of_the_conversation(name: str, role: str) -> None:
    tokenizer, given = between(name, "<|user|>")
    assert template_format(tokenizer) == KNOWN[name][2]
    # GLM's model ends its turn with the role that comes next.
    end = "<|user|>" if name == "GLM" and role == "user" else KNOWN[name][1]
    conversation: list[dict[str, str]] = [{"role": "user", "content": "2+2?"}]
    ids = list(templated(tokenizer, [conversation])[0])
    for said, replies in zip(SAID, (["4 is it"], ["5", "the \u00e9nd"]), strict=True):
        turn = [*tokenizer.encode(said, add_special_tokens=False), *tokenizer.convert_tokens_to_ids([end])]
        messages = [{"role": role, "content": reply} for reply in replies]
        new = given.ids(turn, messages, room=1000)
        assert new is not None
        ids += [*turn, *new]
        conversation.append({"role": "assistant", "content": said})
        conversation += messages if given.tool_role else [{"role": "user", "content": "\n".join(replies)}]
    expected = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    text = tokenizer.decode(ids)
    if name == "DeepSeek-R1-Distill":  # it leaves the opened reasoning out of earlier turns; what was sampled stays
        text = text.replace("<|Assistant|><think>\nLet", "<|Assistant|>Let").replace("<think>\n4", "4")
    assert text == expected
    if name != "DeepSeek-R1-Distill":
        assert ids == tokenizer.encode(expected, add_special_tokens=False), "and in the tokenizer's own spelling"


def test_what_was_sampled_stays_token_by_token_though_the_tokenizer_would_spell_it_otherwise() -> None:
    tokenizer, given = between("Qwen3")
    reasoned = "<think>\nthe answer\n</think>\n\n42"
    letters = [token for letter in reasoned for token in tokenizer.encode(letter, add_special_tokens=False)]
    turn = [*letters, tokenizer.eos_token_id]
    assert tokenizer.encode(reasoned, add_special_tokens=False) != letters, "another spelling of the same text"
    new = given.ids(turn, [{"role": "user", "content": "no"}], room=100)
    assert new is not None
    assert tokenizer.decode(new) == "\n<|im_start|>user\nno<|im_end|>\n<|im_start|>assistant\n"


def test_another_end_of_the_turn_stays_in_the_place_of_the_templates() -> None:
    tokenizer, given = between("Llama 3.1", "<|eom_id|>")
    turn = [*tokenizer.encode("call"), *tokenizer.convert_tokens_to_ids(["<|eom_id|>"])]
    new = given.ids(turn, [{"role": "tool", "content": "4"}], room=100)
    assert new is not None
    assert tokenizer.decode(new).startswith('<|start_header_id|>ipython<|end_header_id|>\n\n"4"<|eot_id|>')


def test_the_toy_gets_results_from_the_user() -> None:
    tokenizer = make_tokenizer()
    given = Between(tokenizer, frozenset({tokenizer.eos_token_id}))
    turn = [*tokenizer.encode("12+30="), tokenizer.eos_token_id]
    new = given.ids(turn, [{"role": "tool", "content": "42"}], room=100)
    assert new is not None and tokenizer.decode(new) == "<|user|>42<|assistant|>"


def test_no_tokens_for_what_does_not_fit() -> None:
    tokenizer, given = between("Qwen2.5")
    turn, message = [tokenizer.eos_token_id], [{"role": "tool", "content": "4"}]
    needed = len(given.ids(turn, message, room=1000) or ())
    assert given.ids(turn, message, room=needed) is None, "a token must be left to sample"
    assert given.ids(turn, message, room=needed + 1) is not None
    assert given.ids(turn, [{"role": "tool", "content": "4" * 10**7}], room=1000) is None


def test_a_template_of_one_turn_is_refused_in_a_sentence() -> None:
    tokenizer = tokenizer_with("{{ messages[0].content }}", "<|im_end|>")
    with pytest.raises(UserError, match="takes no message after the model's turn: it leaves out"):
        check_turns(tokenizer)
    tokenizer.chat_template = "{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}"
    with pytest.raises(UserError, match="takes no message after the model's turn: one only"):
        check_turns(tokenizer)
    check_turns(tokenizer_with(GEMMA, "<end_of_turn>"))
