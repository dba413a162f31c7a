"""A model to talk to: a run's policy, an exported folder, or any other model."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers.utils import logging

from openrs_ray.config.load import load_config
from openrs_ray.config.names import is_run, runs_folder
from openrs_ray.errors import UserError
from openrs_ray.evaluation.subject import find_subjects
from openrs_ray.export.choice import Asked, chosen, kept_policies
from openrs_ray.export.conversation import Conversation, Sampling
from openrs_ray.export.prompting import Prompting, TaskPrompt
from openrs_ray.export.source import prompting_of
from openrs_ray.models.pretrained import read_config, read_model, read_tokenizer
from openrs_ray.models.stop_tokens import stop_tokens

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Partner:
    """Example: Partner("open-rs3, step 50", "/runs/open-rs3/checkpoints/step-000050/policy", Prompting())"""

    name: str
    path: str
    """A folder or Hub id."""
    prompting: Prompting

    def task(self, name: str | None) -> TaskPrompt:
        """UserError where the model was trained on no such task."""
        tasks = self.prompting.tasks
        if name is None:
            return self.prompting.first
        if name not in tasks:
            named = ", ".join(filter(None, tasks)) or "none by name"
            raise UserError(f"{self.name} was trained on no task {name}: there is {named}")
        return tasks[name]

    def conversation(self, task: str | None, temperature: float | None, max_tokens: int | None) -> Conversation:
        """Loads the model, on a GPU where there is one. None: as in training."""
        prompt, known = self.task(task), self.prompting
        logging.disable_progress_bar()
        tokenizer = read_tokenizer(self.path)
        if not tokenizer.chat_template:
            raise UserError(f"the tokenizer of {self.path} has no chat template, so nobody can talk to this model")
        model = read_model(self.path, _DTYPES[known.dtype], "sdpa").eval()
        sampling = Sampling(
            known.end_ids,
            known.temperature if temperature is None else temperature,
            known.max_tokens if max_tokens is None else max_tokens,
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return Conversation(model.to(device), tokenizer, prompt, sampling)


def find_partner(given: str, step: Asked | None) -> Partner:
    """A run's newest policy or the one of a step, or a model. UserError without it."""
    run = next((path for path in (Path(given).expanduser(), runs_folder() / given) if is_run(path)), None)
    if run is not None:
        return _of_run(run.absolute(), step)
    if step is not None:
        raise UserError(f"--step is for a run, and {given} is none")
    model = find_subjects(given, None, None, runs_folder()).model
    return Partner(model.label, model.path, _of_model(model.path))


def _of_run(run: Path, step: Asked | None) -> Partner:
    kept = kept_policies(run)
    choice = chosen(run, kept, max(kept, default=0) if step is None else step)
    policy = kept[choice.step].policy
    return Partner(
        f"{run.name}, step {choice.step}", str(policy), prompting_of(run, policy, load_config(run, []), choice.step)
    )


def _of_model(path: str) -> Prompting:
    """As its folder says it; else the chat template alone."""
    known = Prompting.read(Path(path)) if Path(path).is_dir() else None
    if known is not None:
        return known
    tokenizer, vocabulary = read_tokenizer(path), read_config(path).get_text_config().vocab_size
    ends = tuple(token.id for token in stop_tokens(path, vocabulary, tokenizer))
    return replace(Prompting(), end_ids=ends)
