"""Prepares a run before any engine starts: model, tokenizer, problems."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.quantization import refusal
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import Decoder, RolloutDecoder, response_prefix
from openrs_ray.data.prompts import load_tokenizer
from openrs_ray.environments.between import check_turns
from openrs_ray.environments.registry import check_environment, code_of
from openrs_ray.errors import UserError
from openrs_ray.export.policy_files import policy_files
from openrs_ray.export.prompting import Prompting
from openrs_ray.models.attention import check_attention
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.engine_limits import is_on_cpu
from openrs_ray.models.lora import linear_layers
from openrs_ray.models.model_files import ModelFiles, model_files
from openrs_ray.models.pretrained import empty_model
from openrs_ray.models.stop_tokens import StopToken, stop_tokens
from openrs_ray.preparation.ratio import check_ratio_acts
from openrs_ray.preparation.served import check_served
from openrs_ray.preparation.task_problems import check_paths, load_tasks
from openrs_ray.preparation.teacher import check_teacher
from openrs_ray.records import Problem
from openrs_ray.rewards.answers import kinds
from openrs_ray.rewards.own import OwnReward
from openrs_ray.rewards.own_functions import own_rewards
from openrs_ray.rewards.registry import check_reward_names
from openrs_ray.run.problems import RunProblems, text_digests
from openrs_ray.run.user_files import user_code_digests


@dataclass(frozen=True)
class Prepared:
    model_path: str
    """Folder or Hub id for transformers and vLLM."""
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    stop_tokens: tuple[StopToken, ...]
    problems: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    """For the run's own evaluation."""
    notes: tuple[str, ...]
    """Fate of the rows of each data set, and of held-out problems."""
    files: ModelFiles
    """Of every kept policy besides its weights: the start model's, and how to prompt it."""
    opening: str
    """The chat template's beginning of every answer ("<think>" or nothing)."""
    own_rewards: Mapping[str, Mapping[str, OwnReward]] = field(default_factory=dict)
    """The user's own, by task and name."""
    user_code: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the user's own files, which see the rows of the data."""
    by_length: bool = False
    """True where stages pass over problems by the length of their prompts."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.stop_tokens)

    @property
    def decoder(self) -> RolloutDecoder:
        """Decoder of rollouts for the reward pool."""
        return RolloutDecoder(Decoder.of(self.tokenizer), self.eos_ids, self.opening)

    def summary(self) -> RunProblems:
        content = hashlib.sha256()
        for problem in (*self.problems, *self.held_out):
            task = (problem.task,) if problem.task else ()
            content.update(repr((problem.index, problem.prompt_ids, problem.gold, *task)).encode())
            if self.user_code:
                content.update(json.dumps(dict(problem.row), sort_keys=True, default=str).encode())
        texts = text_digests(problem.text for problem in self.problems)
        tasks = self.sizes if any(self.sizes) else {}
        lengths = tuple(len(problem.prompt_ids) for problem in self.problems) if self.by_length else ()
        code = dict(self.user_code)
        return RunProblems(content.hexdigest(), len(texts), texts, tasks=tasks, user_code=code, prompt_tokens=lengths)

    @property
    def sizes(self) -> dict[str, int]:
        """Problems to train on, by task."""
        return dict(Counter(problem.task for problem in self.problems))


def prepare(config: RunConfig) -> Prepared:
    """Load and check everything. UserError about the first thing missing or unfit."""
    for task in config.tasks:
        check_reward_names(task.rewards.weights)
        kinds.check_kind(task.answer, task.rewards)
    tools = {task.name: check_environment(task, code_of(config, task)) for task in config.tasks}
    own = {
        task.name: own_rewards(
            task.rewards.weights, task.rewards.parameters, config.user_code, config.rewards.memory_gib
        )
        for task in config.tasks
    }
    _check_guard(config)
    check_ratio_acts(config)
    check_paths(config)  # before a model is looked for on the Hub
    model_path = resolve_model(config.model.path)
    model, shape = check_model(config, model_path)
    check_attention(model, config.model.path, config.max_sequence_tokens)
    if config.learner.lora.rank:
        linear_layers(empty_model(model), config.learner.lora)
    if getattr(model, "quantization_config", None) is not None:
        raise UserError(
            f"model {config.model.path} is quantized, and quantized weights cannot be trained: give the model itself"
        )
    tokenizer = load_tokenizer(config.model)
    if any(task.environment.answers for task in config.tasks):
        check_turns(tokenizer)
    loaded = load_tasks(config, tokenizer, tools)
    stops = stop_tokens(model_path, shape.vocabulary, tokenizer)
    shape = replace(shape, teacher=check_teacher(config, shape, tokenizer, stops))
    own_files = model_files(model_path, model, tokenizer).files
    prompting = Prompting.of_run(config, tokenizer, [token.id for token in stops], tools)
    return Prepared(
        model_path=model_path,
        shape=shape,
        tokenizer=tokenizer,
        stop_tokens=stops,
        problems=loaded.problems,
        held_out=loaded.held_out,
        notes=loaded.notes,
        files=ModelFiles({**own_files, **policy_files(config, prompting)}),
        opening=response_prefix(loaded.problems[0].prompt_ids, tokenizer),
        own_rewards=own,
        user_code=user_code_digests(config),
        by_length=config.rollout.by_prompt_length,
    )


def _check_guard(config: RunConfig) -> None:
    """UserError for a guard that may go back and has no setting to change.

    Checked at a start and not in the schema: a run of an earlier version may have such settings.
    """
    if config.guard.action == "roll_back" and not config.guard.knobs:
        raise UserError(
            "guard.action roll_back needs a setting to change: name one in guard.knobs, or set guard.action to warn"
        )


def check_model(config: RunConfig, model_path: str) -> tuple[PreTrainedConfig, ModelShape]:
    if is_on_cpu(config.placement) and (reason := refusal(config.rollout.quantization, None)):
        raise UserError(reason)
    tokens, fields = config.max_served_tokens, config.longest_fields
    return check_served(config.model, model_path, config.engine, config.placement, tokens, fields)
