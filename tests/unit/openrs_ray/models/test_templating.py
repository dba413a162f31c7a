"""Chat templates and tokenizers that never end, take all memory or break: one sentence within the deadline."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from places import ROOT
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from openrs_ray.common import killable as bounded
from openrs_ray.common.killable import Failed, in_child
from openrs_ray.config.data import Data
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.errors import UserError
from openrs_ray.models.templating import rendered, templated

LOOP = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"  # 10^10 rounds, 10^5 each allowed
)
DOUBLING = (
    "{% set n = namespace(x='x' * 999999) %}{% for a in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
)


@pytest.fixture
def tokenizer(toy_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(toy_folder)


def conversations(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"{n} + {n * n}"}] for n in range(count)]


@pytest.mark.parametrize("count", [1, 255, 256, 600])
def test_the_ids_are_those_of_transformers(tokenizer: PreTrainedTokenizerBase, count: int) -> None:
    asked = conversations(count)
    theirs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert templated(tokenizer, asked) == [tuple(ids) for ids in theirs]
    texts = tokenizer.apply_chat_template(asked, add_generation_prompt=False, tokenize=False)
    assert rendered(tokenizer, asked, add_generation_prompt=False) == texts


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
        ("{% for", "unexpected 'end of template'"),
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages.nothing.here }}", "has no attribute 'nothing'"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ range(1000000000) | list }}", "Range too big"),
        (LOOP, "did not end within 1 s"),
        (DOUBLING, "memory"),
    ],
)
def test_a_bad_template_is_one_sentence(
    tokenizer: PreTrainedTokenizerBase, template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "DEADLINE_S", 1.0 if template == LOOP else 30.0)
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 1 << 29)
    tokenizer.chat_template = template
    before = set(psutil.Process().children())
    began = time.monotonic()
    with pytest.raises(UserError, match=r"model\.chat_template") as error:
        tokenize_prompts(Data(path="x"), ["1+1"], tokenizer)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert time.monotonic() - began < 20
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(("pattern", "said"), [("1*[^1]", "did not end within 2 s"), ("(1|11)+(?!1)2", "retry-limit")])
def test_a_pattern_that_never_ends_is_one_sentence(
    pattern: str, said: str, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder)
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pre_tokenizer": split}))
    settings.write_text(settings.read_text().replace("Qwen2Tokenizer", "PreTrainedTokenizerFast"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))  # that of qwen2 has a pattern of its own
    slow = AutoTokenizer.from_pretrained(folder)
    assert tokenize_prompts(Data(path="x"), ["1" * 9], slow)
    monkeypatch.setattr(bounded, "DEADLINE_S", 2.0 if "2 s" in said else 30.0)
    before = set(psutil.Process().children())
    with pytest.raises(UserError, match=r"tokenizer of model\.path .*cannot tokenize the prompts") as error:
        tokenize_prompts(Data(path="x"), ["1" * 300_000], slow)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert set(psutil.Process().children()) <= before


def test_a_child_that_dies_is_a_failure_and_a_slow_sequence_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies() -> Iterator[int]:
        yield 1
        os.kill(os.getpid(), signal.SIGKILL)

    def slow() -> Iterator[int]:
        for n in range(4):
            time.sleep(0.3)
            yield n

    monkeypatch.setattr(bounded, "DEADLINE_S", 1.0)
    assert list(in_child(slow)) == [0, 1, 2, 3]  # the deadline is one of progress
    with pytest.raises(Failed, match="SIGKILL"):
        list(in_child(dies))


def test_nothing_else_runs_a_chat_template() -> None:
    """A template that is run anywhere else has neither deadline nor bound."""
    allowed = {
        "openrs_ray/models/templating.py",
        "openrs_ray/models/toy/teach.py",  # the toy's is our own
        "openrs_ray/models/tool_template.py",  # at first in `shows_tools`, in a child
        "openrs_ray/export/usage.py",  # in code for the reader of a README
        "openrs_ray/environments/between.py",  # at first in `check_turns`, in a child, on the same conversation
    }
    for folder in ("openrs_ray", "actors", "launch"):
        for file in (ROOT / folder).rglob("*.py"):
            name = file.relative_to(ROOT).as_posix()
            assert name in allowed or not re.search(r"\bapply_chat_template\(", file.read_text()), name
