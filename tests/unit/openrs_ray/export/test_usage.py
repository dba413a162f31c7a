"""The README of a policy: its code and its messages ask exactly what training asked."""

import contextlib
import io
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from chat_templates import GEMMA, QWEN25, SMOLLM2, tokenizer_with
from tiny import make_config

from openrs_ray.config.schema import RunConfig
from openrs_ray.data.prompts import load_tokenizer, tokenize_prompts
from openrs_ray.export.policy_files import policy_files, policy_readme
from openrs_ray.export.prompting import FILE, Prompting
from openrs_ray.export.usage import PROBLEM, fenced, prompting_section, transformers_code, vllm_lines
from openrs_ray.run.step_settings import Changes, StepSettings

TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "It's a sum.", "parameters": {"type": "object", "properties": {}}},
}
ASKS = {
    "system_prompt": 'Think, it\'s "hard".\nUse ``` for code and \\boxed{}.',
    "suffix": "\n\nAnswer in 'one' word. é",
    "examples": [{"problem": "1+1", "response": "<think>easy</think> 2"}],
}


def config_with(folder: Path, **data: object) -> RunConfig:
    return make_config(folder, data={"path": "toy", **data})


@pytest.mark.parametrize(
    "template", [QWEN25, SMOLLM2, GEMMA], ids=["shows tools", "shows none", "without a system role"]
)
@pytest.mark.parametrize("tools", [(), (TOOL,)], ids=["plain", "with tools"])
def test_the_messages_give_the_prompts_of_training(tmp_path: Path, template: str, tools: tuple[dict, ...]) -> None:
    tokenizer = tokenizer_with(template, "<|im_end|>")
    config = config_with(tmp_path, **ASKS, system_as_user=template == GEMMA)
    trained = tokenize_prompts(config.tasks[0].data, ["What is 2+3?", PROBLEM], tokenizer, tools)
    told = Prompting.of_run(config, tokenizer, [1, 2], {"": tools})
    (tmp_path / FILE).write_text(told.as_json())
    read = Prompting.read(tmp_path)
    assert read == told, "what a program reads is what was written"
    for text, ids in zip(["What is 2+3?", PROBLEM], trained, strict=True):
        asked = read.first.messages(text)
        given = list(read.first.tools) or None
        assert tokenizer.apply_chat_template(asked, tools=given, add_generation_prompt=True)["input_ids"] == list(ids)
    body = request_of(vllm_lines(read, "it's mine", "."))
    shown = tokenizer.apply_chat_template(body["messages"], tools=body.get("tools"), add_generation_prompt=True)
    assert shown["input_ids"] == list(trained[1])
    blocks = re.findall(r"^```+json\n(.*?)\n```+$", prompting_section(read), re.MULTILINE | re.DOTALL)
    assert json.loads(blocks[-1]) == read.first.messages(PROBLEM)


STAGES = [
    {"max_completion_tokens": 24, "temperature": 0.6, "max_prompt_tokens": 12, "until": {"step": 3}},
    {"max_completion_tokens": 40, "temperature": 1.0},
]


def test_of_a_run_in_stages_a_step_says_how_its_policy_was_sampled(tmp_path: Path) -> None:
    rollout = {"stages": STAGES, "max_completion_tokens": 40}
    config = make_config(tmp_path, rollout=rollout)
    told = Prompting.of_run(config, tokenizer_with(QWEN25, "<|im_end|>"), [1], {})
    (tmp_path / FILE).write_text(told.as_json())
    text = prompting_section(told)
    assert Prompting.read(tmp_path) == told and "may not have reached the last" in text
    assert "up to 24 tokens at temperature 0.6" in text and "up to 40 tokens at temperature 1" in text
    line = StepSettings.of(config, Changes(stage=0)).metrics()
    early = told.at_step(line)
    assert (early.temperature, early.max_tokens, early.max_prompt_tokens) == (0.6, 24, 12)
    assert "temperature 0.6, top-p 1" in prompting_section(early) and "at most 24." in prompting_section(early)
    assert told.at_step({"step": 3}) == told, "as of an older version, which did not note it"
    plain = Prompting.of_run(make_config(tmp_path), tokenizer_with(QWEN25, "<|im_end|>"), [1], {})
    assert plain.at_step(line) == plain, "without stages a resume may have changed the figure that is in force"


def request_of(lines: str) -> dict:
    """The request of the third line, as a shell hands it to curl."""
    install, serve, ask = lines.split("\n")
    assert install.startswith("pip install vllm==") and serve.startswith("vllm serve ")
    words = shlex.split(ask)
    return json.loads(words[words.index("-d") + 1])


def test_the_code_of_the_readme_runs_as_it_stands(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(toy_folder, rollout={"max_completion_tokens": 5}, data={"path": "toy", **ASKS})
    prompting = Prompting.of_run(config, load_tokenizer(config.model), [0], {})
    monkeypatch.chdir(toy_folder)
    said, space = io.StringIO(), {}
    with contextlib.redirect_stdout(said):
        exec(compile(transformers_code(prompting, "."), "README", "exec"), space)
    prompt = tokenize_prompts(config.tasks[0].data, [PROBLEM], load_tokenizer(config.model))[0]
    assert space["inputs"]["input_ids"][0].tolist() == list(prompt)
    assert 1 <= space["output"].shape[1] - len(prompt) <= 5
    assert os.path.samefile(space["folder"], toy_folder)


def test_a_readme_says_all_that_the_files_do_not(tmp_path: Path, toy_folder: Path) -> None:
    config = make_config(
        toy_folder,
        model={"path": str(toy_folder), "dtype": "bfloat16"},
        rollout={"temperature": 0.7, "max_completion_tokens": 77, "max_prompt_tokens": 33},
        data={"path": "toy", "system_prompt": "Be brief.", "suffix": " Now!"},
        learner={"micro_batch_tokens": 128},
    )
    prompting = Prompting.of_run(config, load_tokenizer(config.model), [0, 3], {})
    text = policy_readme(config, prompting)
    for part in (
        f"from {toy_folder.name}.",
        "full fine-tuning",
        "temperature 0.7, top-p 1",
        "prompts of at most 33 tokens, completions of at most 77",
        "Stop tokens: 0, 3",
        "bfloat16",
        "System prompt:\n\n```text\nBe brief.\n```",
        "appended to every problem:\n\n```text\n Now!\n```",
        "vllm serve . --served-model-name test --dtype bfloat16 --max-model-len 110",
        "python -m launch.export test --step best",
    ):
        assert part in text, part
    assert str(toy_folder) not in text, "no path of this machine"
    assert {*policy_files(config, prompting)} == {"README.md", "prompt.json"}
    bare = policy_readme(make_config(toy_folder), Prompting())
    assert "System prompt: none." in bare and "appended to every problem: none." in bare


def test_several_tasks_are_told_apart(tmp_path: Path, toy_folder: Path) -> None:
    tasks = [
        {"path": "toy", "name": "sums", "system_prompt": "Add."},
        {"path": "toy", "name": "letters", "answer": {"kind": "choice", "choices": "options", "show_choices": True}},
    ]
    config = make_config(toy_folder, data=tasks)
    prompting = Prompting.of_run(config, load_tokenizer(config.model), [0], {"sums": (TOOL,)})
    text = prompting_section(prompting)
    sums, letters = text.partition("### Task sums")[2].split("### Task letters")
    assert "Add." in sums and "<tools>" in sums and "Add." not in letters
    assert "had after it the choices, as lines `A) ...`" in letters


def test_no_text_ends_its_block() -> None:
    assert fenced("a\n````\nb").splitlines()[0] == "`````text"
    assert fenced("plain") == "```text\nplain\n```"
