"""The environments python_tool and multi_turn_check, and the one of docs/environments.md."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from chat_templates import QWEN25, SMOLLM2, tokenizer_with
from places import ROOT
from played_turns import Played

from openrs_ray.config.data import Data
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import last_turn_texts
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.environments.between import Between
from openrs_ray.environments.registry import check_environment, code_of, repliers
from openrs_ray.environments.reply import Answer, Asked
from openrs_ray.environments.turns import Bounds, TurnByTurn
from openrs_ray.errors import UserError
from openrs_ray.records import Problem, Rollout

QWEN = tokenizer_with(QWEN25, "<|im_end|>")


def config_with(folder: Path, environment: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"name": "x", "folder": str(folder), "steps": 1},
            "model": {"path": "toy"},
            "data": {"path": "toy"},
            "rollout": {"problems_per_step": 4, "completions_per_problem": 4, "max_completion_tokens": 40},
            "environment": environment,
        }
    )


def replies(config: RunConfig, *lines: str, gold: str = "4") -> tuple[Rollout, list[Asked], list[Answer]]:
    """A rollout whose turns are `lines`, answered in this process."""
    replier, asked, answers = repliers(config, QWEN)[""], list[Asked](), list[Answer]()

    async def ask(turn: Asked) -> Answer:
        asked.append(turn)
        answers.append(replier(turn))
        return answers[-1]

    assert QWEN.eos_token_id is not None
    environment = TurnByTurn(Between(QWEN, frozenset({QWEN.eos_token_id})), ask, Bounds(8, None))
    problem = Problem(0, "2+2?", (1, 2), (gold,), row={"a": 1})
    rollout = asyncio.run(environment.rollout(problem, Played(*lines, tokenizer=QWEN, end="<|im_end|>")))
    return rollout, asked, answers


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_the_environment_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "environments.md").read_text()
    (tmp_path / "my_env.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    config = config_with(tmp_path, f"{tmp_path / 'my_env.py'}:Calculator")
    (tool,) = check_environment(config.tasks[0], code_of(config, config.tasks[0]))
    assert tool["function"]["name"] == "add"
    lines = (call("add", terms=[2, 2]) + call("add", terms=[1]), call("ad"), call("add") + "<tool_call>{", r"\boxed{4}")
    rollout, _, answers = replies(config, *lines)
    given = [[message["content"] for message in answer.messages] for answer in answers]
    assert given[0] == ["4", "1"]
    assert given[1] == ["error: there is no tool 'ad'; known are add"]
    assert given[2][0] == "error: add needs the arguments terms" and "not valid JSON" in given[2][1]
    assert given[3] == [] and rollout.turns == 4 and not rollout.truncated
    text = QWEN.decode(rollout.token_ids)
    assert (
        "<|im_start|>user\n<tool_response>\n4\n</tool_response>\n<tool_response>\n1\n</tool_response><|im_end|>" in text
    )


def test_what_a_tool_prints_is_no_answer(tmp_path: Path) -> None:
    """The judge reads the last turn alone."""
    config = config_with(tmp_path, "python_tool")
    program = "print(r'The answer is \\boxed{4}')"
    rollout, _, answers = replies(config, r"\boxed{4} or not. " + call("python", code=program), "I do not know.")
    assert answers[0].messages == ({"role": "tool", "content": r"The answer is \boxed{4}"},)
    assert last_turn_texts([rollout], QWEN, [QWEN.eos_token_id or 0], "<think>") == ["I do not know."]
    one_turn = Rollout.of([asyncio.run(Played("5", tokenizer=QWEN, end="<|im_end|>").sample([]))])
    assert last_turn_texts([one_turn], QWEN, [QWEN.eos_token_id or 0], "<think>") == ["<think>5"]


def test_programs_of_the_model_run_in_the_sandbox_and_their_faults_are_told(tmp_path: Path) -> None:
    config = config_with(tmp_path, {"name": "python_tool", "parameters": {"seconds": 1, "max_characters": 100}})
    assert [tool["function"]["name"] for tool in check_environment(config.tasks[0], None)] == ["python"]
    programs = [
        "print(6 * 7)",
        "while True: pass",
        "x = 1",
        "print(1 / 0)",
        "print('y' * 10_000)",
        "x = bytearray(10**10)",
        "open('/etc/passwd').read()",
    ]
    _, _, answers = replies(config, *(call("python", code=program) for program in programs), "done")
    results = [answer.messages[0]["content"] for answer in answers[:-1]]
    assert results[0] == "42"
    assert results[1] == "error: timed out after 1 s"
    assert results[2] == "(the program printed nothing)"
    assert "ZeroDivisionError: division by zero" in results[3]
    assert results[4].startswith("y" * 50 + "\n... (9900 characters left out)\n")
    assert "MemoryError" in results[5] and len(results[6]) < 500 and "root:" not in results[6]
    assert answers[-1].messages == () and all(answer.failed is None for answer in answers)


def test_many_programs_of_one_turn_share_its_time(tmp_path: Path) -> None:
    config = config_with(tmp_path, {"name": "python_tool", "parameters": {"seconds": 0.5}, "deadline_s": 8})
    turn = call("python", code="import time; time.sleep(60)") + call("python", code="print(1)")
    _, _, answers = replies(config, turn, "done")
    first, second = (message["content"] for message in answers[0].messages)
    assert "timed out" in first and second.startswith(
        "error: not run, because the programs before it took all the time"
    )
    short = config_with(tmp_path, {"name": "python_tool", "deadline_s": 8})
    with pytest.raises(UserError, match=r"needs an environment\.deadline_s of at least 15"):
        check_environment(short.tasks[0], None)


def test_a_wrong_answer_gets_a_feedback_and_another_try(tmp_path: Path) -> None:
    config = config_with(tmp_path, {"name": "multi_turn_check", "parameters": {"tries": 3, "feedback": "No."}})
    assert check_environment(config.tasks[0], None) == ()
    rollout, _, answers = replies(config, r"\boxed{5}", "Four.", r"\boxed{4}", "never")
    given = [[message["content"] for message in answer.messages] for answer in answers]
    assert given == [["No."], ["There is no answer in the asked form. Give your answer again."], []]
    assert rollout.turns == 3 and answers[0].messages[0]["role"] == "user"
    assert replies(config, r"\boxed{4}", "never")[0].turns == 1
    assert replies(config, r"\boxed{1}", r"\boxed{2}", r"\boxed{3}", "never")[0].turns == 3
    with pytest.raises(UserError, match="tries must be a number from 1"):
        wrong = config_with(tmp_path, {"name": "multi_turn_check", "parameters": {"tries": 0}})
        check_environment(wrong.tasks[0], None)


@pytest.mark.parametrize(
    ("template", "shown"), [(QWEN25, "# Tools\n<tools>"), (SMOLLM2, "You may call these functions")]
)
def test_tools_stand_in_the_prompt(template: str, shown: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(template, "<|im_end|>")
    tools = check_environment(config_with(tmp_path, "python_tool").tasks[0], None)
    (ids,) = tokenize_prompts(Data(path="x"), ["2+2?"], tokenizer, tools)
    text = tokenizer.decode(ids)
    assert shown in text and text.count('"name": "python"') == 1 and text.count("2+2?") == 1
    (plain,) = tokenize_prompts(Data(path="x"), ["2+2?"], tokenizer)
    assert len(plain) < len(ids) and "python" not in tokenizer.decode(plain)
