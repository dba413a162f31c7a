"""Stop tokens of a model, and the text of a completion's tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, write_recipe
from tiny import make_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from actors.evaluator import Reading
from launch.train import main
from openrs_ray.data.completions import completion_texts, rollout_texts
from openrs_ray.errors import UserError
from openrs_ray.models.pretrained import read_tokenizer
from openrs_ray.models.stop_tokens import StopToken, ends_turn, stop_tokens
from openrs_ray.preparation.prepared import Prepared, prepare
from openrs_ray.records import Completion, Rollout, VersionSpan

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|eot|>")


def tokenizer(template: str = CHATML, **settings: Any) -> PreTrainedTokenizerFast:
    """One token per byte, and the special tokens of a reasoning model of the ChatML family: a base model's end, in its files."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|endoftext|>", chat_template=template, **settings
    )
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made


def write(folder: Path, generation: Any = None, config: Any = None, text: Any = None) -> str:
    """A folder that holds nothing but what names end tokens."""
    settings = {"model_type": "qwen2", "vocab_size": 300} | ({} if config is None else {"eos_token_id": config})
    (folder / "config.json").write_text(json.dumps(settings | ({} if text is None else {"text_config": text})))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    return str(folder)


def ids(*tokens: str) -> list[int]:
    return tokenizer().convert_tokens_to_ids(list(tokens))


def test_every_file_that_names_an_end_is_heard(tmp_path: Path) -> None:
    end, close, turn = ids("<|endoftext|>", "<|im_end|>", "<|eot|>")
    found = stop_tokens(write(tmp_path, generation=[end], config=turn), 300, tokenizer())
    assert [(token.id, token.text, token.named_by) for token in found] == [
        (end, "<|endoftext|>", ("generation_config.json", "tokenizer")),
        (close, "<|im_end|>", ("chat template",)),
        (turn, "<|eot|>", ("config.json",)),
    ]
    assert str(found[1]) == f"{close} <|im_end|> (chat template)"


def test_a_base_models_files_end_at_the_turn_of_its_template_too(tmp_path: Path) -> None:
    """A base model's generation config and tokenizer end at the document, its template closes the turn: today it never stops."""
    end, close = ids("<|endoftext|>", "<|im_end|>")
    found = stop_tokens(write(tmp_path, generation=end, config=end), 300, tokenizer())
    assert [token.id for token in found] == [end, close]


def test_what_a_class_says_where_the_file_says_nothing_is_not_heard(tmp_path: Path) -> None:
    """Llama's configuration has 2 by default, which may be any letter."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 300}))
    assert 2 not in [token.id for token in stop_tokens(str(tmp_path), 300, tokenizer())]


@pytest.mark.parametrize(
    ("template", "token"),
    [
        (CHATML, "<|im_end|>"),
        (CHATML.replace("<|im_end|>", " <|eot|>"), "<|eot|>"),
        (CHATML.replace("<|im_end|>", "</answer><|im_end|>"), None),  # text, and not a special token
        (CHATML.replace("<|im_end|>", ""), None),
        ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", None),
        ("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}", None),
        (CHATML.replace("m['content']", "m['content'] | lower"), None),  # the answer is not in it
        ("{{ raise_exception('no assistant') }}", None),
        ("{% for m in messages %}{{ m['content'] | trim | lower }}<|eot|>{% endfor %}", None),
    ],
)
def test_the_end_of_a_turn_is_read_off_the_template(template: str, token: str | None) -> None:
    assert ends_turn(tokenizer(template)) == (None if token is None else ids(token)[0])


def test_the_toy_has_one_end(toy_folder: Path) -> None:
    (only,) = stop_tokens(str(toy_folder), 26, read_tokenizer(str(toy_folder)))
    assert (only.id, only.text) == (1, "<|end|>")
    assert only.named_by == ("generation_config.json", "config.json", "tokenizer", "chat template")


@pytest.mark.parametrize("odd", [300, -1, "2", 1.5, True, [5, 10**6]])
@pytest.mark.parametrize("file", ["generation", "config", "text"])
def test_an_end_that_is_no_token_of_the_model_is_refused(tmp_path: Path, odd: Any, file: str) -> None:
    value = {"eos_token_id": odd} if file == "text" else odd
    with pytest.raises(
        UserError, match=r"end-of-sequence token .+ is none of the model's 300 tokens: mend eos_token_id"
    ):
        stop_tokens(write(tmp_path, **{file: value}), 300, tokenizer())


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in the tokenizer of .+ is none of the model's 200 tokens"):
        stop_tokens(write(tmp_path), 200, tokenizer())


def test_a_model_without_any_end_is_refused(tmp_path: Path) -> None:
    made = tokenizer(CHATML.replace("<|im_end|>", ""))
    made.eos_token = None
    with pytest.raises(UserError, match="names an end-of-sequence token"):
        stop_tokens(write(tmp_path), 300, made)


def test_the_dry_run_shows_them(tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 0]}')
    recipe = write_recipe(tmp_path / "recipe.yaml", folder, tmp_path, "run", 2)
    assert prepare(make_config(tmp_path, model={"path": str(folder), "dtype": "float32"})).eos_ids == (0, 1)
    assert main([str(recipe), "--dry-run"]) == 0
    assert (
        "stop tokens: 0 <|pad|> (generation_config.json); "
        "1 <|end|> (generation_config.json, config.json, tokenizer, chat template)"
    ) in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ texts

ANSWER = ["<think>", *"2+2", "</think>", *"\\boxed{4}"]


def test_think_as_a_special_token_stays_and_what_ends_goes() -> None:
    made = tokenizer(pad_token="<|endoftext|>")
    end, close = ids("<|endoftext|>", "<|im_end|>")
    answer = ids(*ANSWER)
    texts = completion_texts(
        [answer, [*answer, close], [*answer, end, end, end], [end, *answer], [*answer, close, *answer], []],
        made,
        [close],
    )
    assert texts == ["<think>2+2</think>\\boxed{4}"] * 3 + ["<think>2+2</think>\\boxed{4}"] * 2 + [""]
    assert completion_texts([[*ids("<|im_start|>", "a"), close]], made, [close]) == ["<|im_start|>a"]
    plain = made.batch_decode([answer], skip_special_tokens=True)
    assert plain == ["2+2\\boxed{4}"], "as it was: no reward saw the tags"


def test_the_toys_texts_are_as_they_were(toy_folder: Path) -> None:
    made, rng = read_tokenizer(str(toy_folder)), np.random.default_rng(0)
    sampled = [rng.integers(6, 26, 30) for _ in range(50)]
    completions = [np.append(some, 1).astype(np.int32) for some in sampled]
    assert completion_texts(completions, made, [1]) == made.batch_decode(sampled, skip_special_tokens=True)


def completion(tokens: list[int]) -> Completion:
    logprobs = np.zeros(len(tokens), dtype=np.float32)
    spans = (VersionSpan(0, 0, len(tokens)),)
    return Completion(0, 0, np.array(tokens, dtype=np.int32), logprobs, "stop", spans, 0)


def test_training_and_evaluation_read_the_same_text() -> None:
    made = tokenizer()
    evaluated = Reading(made, opening="").text(completion(ids(*ANSWER, "<|im_end|>")), ids("<|im_end|>"))
    nothing: Any = None
    stops = (StopToken(ids("<|im_end|>")[0], "<|im_end|>", ()),)
    prepared = Prepared("model", nothing, made, stops, (), (), (), nothing, opening="")
    (trained,) = prepared.decoder([Rollout.of([completion(ids(*ANSWER, "<|im_end|>"))])])
    assert evaluated == trained.whole == trained.judged == "<think>2+2</think>\\boxed{4}"


def test_a_rollout_of_several_turns_is_read_whole_but_for_the_end_of_the_last() -> None:
    made, (end,) = tokenizer(), ids("<|im_end|>")
    turn, given = completion([*ids(*ANSWER), end]), ids("<|im_start|>", "a")
    texts = rollout_texts([Rollout.of([turn, given, turn]), Rollout.of([turn, given])], made, [end])
    answer = "<think>2+2</think>\\boxed{4}"
    assert texts == [f"{answer}<|im_end|><|im_start|>a{answer}", answer]


def test_there_is_one_way_from_ids_to_text() -> None:
    sources = [file for folder in ("openrs_ray", "actors", "launch") for file in (ROOT / folder).rglob("*.py")]
    words = ("batch_decode(", "skip_special_tokens", "detokenize=True", ".outputs[0].text", "said.text")
    found = {str(file.relative_to(ROOT)) for file in sources if any(word in file.read_text() for word in words)}
    assert found == {"openrs_ray/data/completions.py"}
