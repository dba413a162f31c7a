"""The way a run prompts its policy, as `prompt.json` beside the weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrs_ray.common.files import as_record, read_json
from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data, Example
from openrs_ray.config.schema import RunConfig
from openrs_ray.config.task import Task
from openrs_ray.data.prompts import messages, with_shown_tools
from openrs_ray.data.tools import Tools
from openrs_ray.data.turns import Asked, Message
from openrs_ray.export.base import shared_name

FILE = "prompt.json"
_NO_DATA = "none"
_SAMPLED_WITH = ("temperature", "max_prompt_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class TaskPrompt:
    """Example: TaskPrompt(system_prompt="Think step by step.", suffix=" Answer in one word.")"""

    system_prompt: str | None = None
    """Describes the tools, too, where the chat template shows none."""
    system_as_user: bool = False
    suffix: str = ""
    examples: tuple[dict[str, str], ...] = ()
    """Keys problem and response."""
    tools: tuple[dict[str, Any], ...] = ()
    """JSON schemas for the chat template."""
    environment: str = ""
    """Name of what answered the model's turns; empty where nothing did."""
    problem_has: str = ""
    """Text that the run itself put after each problem, in words; empty where it put none."""

    def messages(self, asked: Asked) -> list[Message]:
        """The conversation that the chat template takes."""
        data = Data(
            path=_NO_DATA,
            system_prompt=self.system_prompt,
            system_as_user=self.system_as_user,
            suffix=self.suffix,
            examples=tuple(Example(**example) for example in self.examples),
        )
        return messages(data, asked)


@dataclass(frozen=True, slots=True)
class Prompting:
    """Example: Prompting({"": TaskPrompt()}, end_ids=(0,), temperature=1.0, max_prompt_tokens=512, max_tokens=2048)"""

    tasks: dict[str, TaskPrompt] = field(default_factory=lambda: {"": TaskPrompt()})
    """By name; the only task of a run with one data section has the name ""."""
    end_ids: tuple[int, ...] = ()
    """Stop tokens."""
    temperature: float = 1.0
    """Of training; with stages, of the last one. Top-p is 1 and top-k off."""
    max_prompt_tokens: int = 512
    max_tokens: int = 2048
    """Longest completion in training."""
    dtype: str = "bfloat16"
    stages: tuple[str, ...] = ()
    """Of a run with `rollout.stages`, in words, where it is open which of them the policy has reached."""

    @classmethod
    def of_run(
        cls,
        config: RunConfig,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        tools: Mapping[str, Tools],
    ) -> "Prompting":
        """`tools`: of the environments, by task."""
        rollout = config.rollout
        return cls(
            {task.name: _of_task(task, tokenizer, tools.get(task.name, ())) for task in config.tasks},
            tuple(end_ids),
            rollout.each_stage[-1].temperature or rollout.temperature,
            rollout.max_prompt_tokens,
            rollout.max_completion_tokens,
            config.model.dtype,
            tuple(stage.as_text for stage in rollout.each_stage) if rollout.stages else (),
        )

    @classmethod
    def read(cls, folder: Path) -> "Prompting | None":
        """None without a file. UserError when it is damaged."""
        content = read_json(folder / FILE)
        return None if content is None else as_record(cls, content, folder / FILE)

    def at_step(self, line: Mapping[str, Any]) -> "Prompting":
        """With the sampling of a step, by its figures in `metrics.jsonl`."""
        if not self.stages or not all(f"setting/{name}" in line for name in _SAMPLED_WITH):
            return self
        temperature, prompt_tokens, tokens = (line[f"setting/{name}"] for name in _SAMPLED_WITH)
        return replace(self, stages=(), temperature=temperature, max_prompt_tokens=prompt_tokens, max_tokens=tokens)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @property
    def first(self) -> TaskPrompt:
        return next(iter(self.tasks.values()))

    @property
    def max_model_tokens(self) -> int:
        return self.max_prompt_tokens + self.max_tokens


def _of_task(task: Task, tokenizer: PreTrainedTokenizerBase, tools: Tools) -> TaskPrompt:
    data, shown = with_shown_tools(task.data, tokenizer, tools)
    return TaskPrompt(
        data.system_prompt,
        data.system_as_user,
        data.suffix,
        tuple(example.model_dump() for example in data.examples),
        tuple(dict(tool) for tool in shown),
        shared_name(task.environment.name) if task.environment.answers else "",
        _problem_has(task.answer),
    )


def _problem_has(answer: Answer) -> str:
    if answer.show_choices:
        return "the choices, as lines `A) ...`, `B) ...`"
    return f"the first {answer.shown_tests} of its tests" if answer.kind == "code" and answer.shown_tests else ""
