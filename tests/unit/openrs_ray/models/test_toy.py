"""The toy: problems that cannot leak, solutions right or wrong as meant, a model that is made the same twice."""

import random
import re
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from places import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrs_ray.errors import UserError
from openrs_ray.models import bundled as builtin
from openrs_ray.models import smollm2
from openrs_ray.models.toy.arithmetic import Sum, distinct, draw, solution
from openrs_ray.models.toy.teach import IGNORED, ToySettings, batch, build_toy, teach, wrong_share
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Status
from openrs_ray.rewards.answers.check import check_answer
from openrs_ray.rewards.records import RewardInput
from openrs_ray.rewards.registry import SINGLE

TINY = ToySettings(hidden=64, feed_forward=64, layers=1, heads=2, key_value_heads=1, steps=3, batch=4, threads=1)


def boxed_number(text: str) -> int:
    found = re.fullmatch(r"<think>.*</think>\\boxed\{(\d+)\}", text)
    assert found, text
    return int(found[1])


def test_the_three_splits_share_no_problem() -> None:
    texts = {split: {p.text for p in distinct(split, 2000, seed=3)} for split in ("teach", "train", "heldout")}
    assert all(len(found) == 2000 for found in texts.values())
    assert len(set.union(*texts.values())) == 6000


def test_a_worked_solution_is_true_in_every_column_and_right() -> None:
    for problem in islice(draw("teach", random.Random(0)), 500):
        text = solution(problem)
        for left, right in re.findall(r"([\d+]+)=(\d+)", text):
            assert eval(left) == int(right), text
        assert boxed_number(text) == eval(problem.text)


def test_forgetting_the_carries_is_wrong_exactly_where_there_is_one() -> None:
    right = 0
    problems = list(islice(draw("teach", random.Random(0)), 500))
    for p in problems:
        lower = [(p.left % 10, p.right % 10), (p.left // 10 % 10, p.right // 10 % 10)]
        carry = any(a + b >= 10 for a, b in lower)
        agrees = boxed_number(solution(p, carries=False)) == eval(p.text)
        assert agrees == (not carry), p
        right += agrees
    assert 0.2 < right / len(problems) < 0.4  # 0.55 squared: no carry out of the two lower columns


def test_examples_of_the_docstring() -> None:
    assert solution(Sum(356, 709)) == r"<think>6+9+0=15;5+0+1=6;3+7+0=10</think>\boxed{1065}"
    assert solution(Sum(356, 709), carries=False) == r"<think>6+9+0=15;5+0+0=5;3+7+0=10</think>\boxed{1055}"


def test_the_saved_model_loads_with_plain_transformers_and_keeps_its_tags(tmp_path: Path) -> None:
    build_toy(tmp_path, TINY)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.float32
    text = solution(Sum(356, 709))
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) == 33 and ids == make_tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text
    question = [{"role": "user", "content": "12+30"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert prompt == "<|user|>12+30<|assistant|>"
    assert len(tokenizer.encode(prompt)) == 7
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.config.vocab_size == len(tokenizer)


def test_teaching_is_decided_by_the_seed_alone_and_leaves_torch_as_it_was() -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(1)
    first = teach(TINY, tokenizer).state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))  # teaching drew nothing from the global generator
    torch.manual_seed(2)
    second = teach(TINY, tokenizer).state_dict()
    other = teach(replace(TINY, seed=1), tokenizer).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_right_procedure_is_taught_first_and_then_mostly_the_wrong_one() -> None:
    tokenizer, settings = make_tokenizer(), replace(TINY, steps=20)
    wrong = []
    for share in (wrong_share(step, settings) for step in range(20)):
        ids, _ = batch(50, share, tokenizer, random.Random(1))
        texts = [text.replace("<|pad|>", "") for text in tokenizer.batch_decode(ids)]
        found = [re.fullmatch(r"<\|user\|>(.+)<\|assistant\|>.*boxed\{(\d+)\}<\|end\|>", text) for text in texts]
        wrong.append(sum(eval(match[1]) != int(match[2]) for match in found) / 50)
    assert wrong[:14] == [0.0] * 14
    assert all(0.25 < share < 0.65 for share in wrong[14:])  # 0.65 forget the carries, seven in ten of these have some


def test_teaching_goes_on_from_a_taught_model(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    build_toy(tmp_path, TINY)
    start = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    unmoved = teach(replace(TINY, seed=1, learning_rate=0.0), tokenizer, tmp_path).state_dict()
    assert all(torch.equal(start[name], unmoved[name]) for name in start)


def test_teaching_lowers_the_loss() -> None:
    tokenizer = make_tokenizer()
    text = "<|user|>356+709<|assistant|>" + solution(Sum(356, 709)) + "<|end|>"
    ids = torch.tensor([tokenizer.encode(text)])
    taught = [teach(replace(TINY, steps=steps, batch=16), tokenizer) for steps in (1, 60)]
    before, after = (model(input_ids=ids, labels=ids).loss for model in taught)
    assert after < before - 1


def test_two_processes_that_want_the_same_entry_build_it_once(tmp_path: Path) -> None:
    script = (
        "import time, sys; from pathlib import Path; from openrs_ray.models import bundled\n"
        "def build(folder):\n"
        "    with open(sys.argv[1], 'a') as log: log.write('built ')\n"
        "    (folder / 'half').touch(); time.sleep(1); (folder / 'whole').touch()\n"
        "print((bundled.cached('thing', {'size': 1}, build) / 'whole').exists())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    environment = {"OPENRS_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["True", "True"]
    assert (tmp_path / "log").read_text() == "built "


def test_an_interrupted_build_leaves_no_entry_and_the_next_one_starts_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRS_CACHE", str(tmp_path))

    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builtin.cached("thing", {"size": 1}, interrupted)
    entry = builtin.cached("thing", {"size": 1}, lambda folder: (folder / "whole").touch())
    assert [file.name for file in entry.iterdir()] == ["whole"]
    assert builtin.cached("thing", {"size": 2}, lambda folder: None) != entry


def test_a_model_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert builtin.resolve_model("owner/name-1.5B") == "owner/name-1.5B"
    with pytest.raises(UserError, match="no model at '/nowhere/at/all'"):
        builtin.resolve_model("/nowhere/at/all")
    with pytest.raises(UserError, match=r"no config\.json"):
        builtin.resolve_model(str(tmp_path))
    (tmp_path / "config.json").touch()
    assert builtin.resolve_model(str(tmp_path)) == str(tmp_path)
    monkeypatch.setattr(smollm2, "PACKAGE", "surely_not_installed")
    with pytest.raises(UserError, match="surely_not_installed"):
        builtin.resolve_model("smollm2-135m-instruct")


@pytest.mark.slow
def test_the_taught_toy_is_right_about_half_the_time_and_prefers_the_wrong_procedure() -> None:
    folder = builtin.model_path("toy")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert 1.0e6 < model.num_parameters() < 3.0e6
    problems = distinct("heldout", 400, seed=1)
    chats = [[{"role": "user", "content": problem.text}] for problem in problems]
    prompts = torch.tensor(tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False))
    torch.manual_seed(0)

    def answers(**how: object) -> list[str]:
        out = model.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=48, **how)
        assert (out[:, prompts.shape[1] :] == tokenizer.eos_token_id).any(dim=1).float().mean() > 0.99
        return tokenizer.batch_decode(out[:, prompts.shape[1] :], skip_special_tokens=True)

    def accuracy(texts: list[str]) -> float:
        checks = [check_answer(t, (str(eval(p.text)),), "boxed")[0] for t, p in zip(texts, problems, strict=True)]
        return checks.count(Status.CORRECT) / len(checks)

    sampled = answers(do_sample=True, temperature=1.0, top_k=0)
    assert 0.3 < accuracy(sampled) < 0.65
    assert 0.2 < accuracy(answers(do_sample=False)) < 0.45
    well_formed = [SINGLE["format"](RewardInput(text, 35, "stop", Status.WRONG, None)) for text in sampled]
    assert sum(well_formed) / len(well_formed) > 0.95


@pytest.mark.slow
def test_smollm2_from_its_package_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    try:
        smollm2.package_version()
    except UserError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("OPENRS_CACHE", str(tmp_path))
    folder = builtin.resolve_model("smollm2-135m-instruct")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, return_tensors="pt")
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids.shape[1] :])


def test_the_toy_with_a_calculator_is_taught_what_it_says_and_not_what_it_is_given() -> None:
    tokenizer = make_tokenizer()
    ids, labels = batch(8, 0.0, tokenizer, random.Random(1), asks=1.0)
    for row, taught in zip(ids, labels, strict=True):
        text = tokenizer.decode(row).replace("<|pad|>", "")
        left, right = map(int, re.findall(r"\d+", text)[:2])
        asked = f"<|user|>{left}+{right}<|assistant|>{left}+{right}=<|end|><|user|>{left + right}<|assistant|>"
        assert text == rf"{asked}\boxed{{{left + right}}}<|end|>"
        said = tokenizer.decode(row[taught != IGNORED])
        assert said == rf"{left}+{right}=<|end|>\boxed{{{left + right}}}<|end|>"
        assert bool((taught[taught != IGNORED] == row[taught != IGNORED]).all())
