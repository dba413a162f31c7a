"""Chat templates that refuse or leave out some of what is to be asked: an error that names the field to set."""

from typing import Any

import pytest
from transformers import Qwen2Tokenizer

from openrs_ray.config.data import Data, Example
from openrs_ray.config.placement import EngineSlots
from openrs_ray.config.rollout import Engine
from openrs_ray.curation.inputs import _check_model
from openrs_ray.curation.recipe import Solved
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.data.turns import Asked
from openrs_ray.errors import UserError
from openrs_ray.models.toy.tokenizer import CHAT_TEMPLATE, make_tokenizer

# The lines by which public templates do it, around the toy's tokens.
DEEPSEEK_R1 = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}<|user|>{{ m.content }}"
    "{% else %}{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}"
    "{% endif %}<|assistant|>{{ content }}<|end|>{% endif %}{% endfor %}<|assistant|><think>"
)
QWEN3 = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1].lstrip() }}<|end|>{% else %}{{ m.content }}{% endif %}{% endfor %}<|assistant|>"
)
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}"
    "<|assistant|>"
)
WITHOUT_SYSTEM = "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"


def ask(template: str, problems: list[Asked], **data: Any) -> list[str]:
    tokenizer: Qwen2Tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return [tokenizer.decode(ids) for ids in tokenize_prompts(Data(path="x", **data), problems, tokenizer)]


def refusal(template: str, problems: list[Asked], **data: Any) -> str:
    with pytest.raises(UserError) as error:
        ask(template, problems, **data)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("template", [DEEPSEEK_R1, QWEN3])
def test_reasoning_of_examples_that_the_template_drops_is_an_error(template: str) -> None:
    plain = Example(problem="1+2", response=r"\boxed{3}")
    reasoned = Example(problem="3+4", response="<think>\n3+4=7\n</think>\n\\boxed{7}")
    said = refusal(template, ["1+1"], examples=(plain, reasoned))
    assert "response of example 2 in data.examples" in said and "model.chat_template" in said
    assert ask(template, ["1+1"], examples=(plain,))[0].count(r"\boxed{3}") == 1
    assert ask(CHAT_TEMPLATE, ["1+1"], examples=(plain, reasoned))[0].count("3+4=7") == 1
    trimmed = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
    assert ask(trimmed, ["1+1"], examples=(Example(problem="1+2 ", response=" 3\n"),))


def test_a_template_without_system_role_names_the_field_that_helps() -> None:
    said = refusal(GEMMA, ["1+1"], system_prompt="12;")
    assert "takes no system message: set data.system_as_user true" in said
    assert ask(GEMMA, ["1+1"], system_prompt="12;", system_as_user=True) == ["<|user|>12;\n\n1+1<|assistant|>"]
    example = {"examples": (Example(problem="1+2", response="3"),)}
    assert ask(GEMMA, ["1+1"], system_prompt="12;", system_as_user=True, **example) == [
        "<|user|>12;\n\n1+2<|assistant|>3<|user|>1+1<|assistant|>"
    ]
    own: Asked = ({"role": "system", "content": "12;"}, {"role": "user", "content": "1+1"})
    assert "data.system_as_user" in refusal(GEMMA, ["2+2", own])
    assert ask(GEMMA, ["2+2", own], system_as_user=True)[1] == "<|user|>12;\n\n1+1<|assistant|>"
    assert ask(CHAT_TEMPLATE, [own]) == ["<|system|>12;<|user|>1+1<|assistant|>"]


def test_a_system_message_that_goes_missing_without_a_word_is_an_error() -> None:
    assert "leaves out the system message: set data.system_as_user true" in refusal(
        WITHOUT_SYSTEM, ["1+1"], system_prompt="12;"
    )
    assert ask(WITHOUT_SYSTEM, ["1+1"], system_prompt="12;", system_as_user=True) == ["<|user|>12;\n\n1+1<|assistant|>"]


def test_another_refusal_is_not_blamed_on_the_system_message() -> None:
    said = refusal("{{ raise_exception('no') }}", ["1+1"], system_prompt="12;")
    assert said.endswith("does not take this conversation: no")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("<|user|>0<|assistant|>", "the same tokens for the problems '1+1' and '2+23'"),
        ("{{ messages[0].nothing }}", "gives no tokens for the problem '1+1'"),
        ("<|user|>{{ messages[-1].content[:3] }}<|assistant|>", "does not show all of the user turn '2+23'"),
    ],
)
def test_a_template_that_ignores_the_problem_is_refused(template: str, said: str) -> None:
    assert said in refusal(template, ["1+1", "2+23", "1+1"])


def test_one_problem_that_is_not_shown_is_refused_too() -> None:
    assert "does not show all of the user turn '1+1'" in refusal("<|user|>0<|assistant|>", ["1+1"])


def test_a_curation_says_it_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = GEMMA
    monkeypatch.setattr("openrs_ray.curation.inputs.load_tokenizer", lambda model: tokenizer)
    stage = {"model": "toy", "max_prompt_tokens": 16, "max_tokens": 16, "system_prompt": "12;"}
    with pytest.raises(UserError, match="the stage's system_as_user"):
        _check_model(Solved.model_validate(stage), Engine(), EngineSlots())
    _check_model(Solved.model_validate({**stage, "system_as_user": True}), Engine(), EngineSlots())
