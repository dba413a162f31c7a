"""Prepares a run before any engine starts: model, tokenizer, problems."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from openrs_ray.cluster.memory import ModelShape
from openrs_ray.common.foreign import reading
from openrs_ray.config.data import Columns
from openrs_ray.config.schema import Engine, Model, RunConfig, Slots
from openrs_ray.data.answers import Gold
from openrs_ray.data.completions import last_turn_texts, rollout_texts, turn_texts
from openrs_ray.data.problems import hold_out, load_problems
from openrs_ray.data.prompts import load_tokenizer, response_prefix
from openrs_ray.data.rows import check_there
from openrs_ray.data.texts import same_text_key
from openrs_ray.environments.registry import check_environment
from openrs_ray.errors import UserError
from openrs_ray.models import bundled as builtin
from openrs_ray.models.attention import check_attention
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.engine_limits import check_engine
from openrs_ray.models.model_files import ModelFiles, model_files
from openrs_ray.models.pretrained import read_config
from openrs_ray.models.stop_tokens import StopToken, stop_tokens
from openrs_ray.models.weight_files import check_weights
from openrs_ray.records import Problem, Rollout
from openrs_ray.rewards.answers import kinds
from openrs_ray.rewards.libraries.names import kind_of
from openrs_ray.rewards.registry import check_reward_names
from openrs_ray.run.problems import RunProblems, text_digests


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
    """The start model's, for exported policies."""
    opening: str
    """The chat template's beginning of every answer ("<think>" or nothing)."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.stop_tokens)

    def texts(self, rollouts: Sequence[Rollout]) -> list[str]:
        """Whole texts for the record, `opening` included."""
        return [self.opening + text for text in rollout_texts(rollouts, self.tokenizer, self.eos_ids)]

    def judged_texts(self, rollouts: Sequence[Rollout]) -> list[str]:
        """Texts that rewards read: the last turn, so that no answer counts that a tool or an earlier try has written."""
        return last_turn_texts(rollouts, self.tokenizer, self.eos_ids, self.opening)

    def turn_texts(self, rollout: Rollout) -> tuple[str, ...]:
        """Texts of the policy's turns."""
        return turn_texts(rollout, self.tokenizer, self.eos_ids, self.opening)

    def summary(self) -> RunProblems:
        content = hashlib.sha256()
        for problem in (*self.problems, *self.held_out):
            content.update(repr((problem.index, problem.prompt_ids, problem.gold)).encode())
        texts = text_digests(problem.text for problem in self.problems)
        return RunProblems(content.hexdigest(), len(texts), texts)


def prepare(config: RunConfig) -> Prepared:
    """Load and check everything. UserError about the first thing missing or unfit."""
    for task in config.tasks:
        check_reward_names(task.rewards.weights)
        kinds.check_kind(task.answer, task.rewards)
        check_environment(task)
    _check_apart(config)
    for path in filter(None, (config.data.path, config.evaluation.path)):
        check_there(path)  # before a model is looked for on the Hub
    model_path = resolve_model(config.model.path)
    model, shape = check_model(config, model_path)
    check_attention(model, config.model.path, config.max_sequence_tokens)
    if getattr(model, "quantization_config", None) is not None:
        raise UserError(
            f"model {config.model.path} is quantised, and quantised weights cannot be trained: give the model itself"
        )
    tokenizer = load_tokenizer(config.model)
    limit = config.rollout.max_prompt_tokens
    parseable = kinds.parseable(config.answer, config.rewards)
    keeps_all = config.rewards.unparseable_gold == "reward"
    whole = config.rewards.extraction == "published"
    train = load_problems(
        config.data, tokenizer, limit, _given if keeps_all else parseable, whole, answer=config.answer
    )
    notes = [str(train.report)]
    problems, held_out = hold_out(train.problems, config.evaluation.hold_out, config.evaluation.hold_out_seed)
    if config.evaluation.path is not None:
        split = config.evaluation.split or config.data.split
        elsewhere: dict[str, Any] = {"path": config.evaluation.path, "split": split}
        if kind_of(config.evaluation.path):
            elsewhere |= {"parameters": _evaluated(config), "curriculum": ()}
        if config.evaluation.path in builtin.DATA and config.data.path not in builtin.DATA:
            elsewhere["columns"] = Columns()  # data.columns are those of the user's own file
        source = config.data.model_copy(update=elsewhere)
        loaded = load_problems(source, tokenizer, limit, parseable, whole, answer=config.answer)
        held_out = loaded.problems[: config.evaluation.problems]
        notes.append(str(loaded.report))
        if shared := len({same_text_key(p.text) for p in problems} & {same_text_key(p.text) for p in held_out}):
            notes.append(f"{shared} of the {len(held_out)} held-out problems are trained on, too")
    elif held_out:
        left_out = len(train.problems) - len(problems) - len(held_out)
        notes.append(
            f"{len(held_out)} problems held out, and {left_out} rows left out that are the same in other spellings"
        )
    if len(problems) < config.rollout.problems_per_step:
        held = f" besides the {len(held_out)} of evaluation.hold_out" if config.evaluation.hold_out else ""
        raise UserError(
            f"rollout.problems_per_step is {config.rollout.problems_per_step} but {config.data.path} has only "
            f"{len(problems)} usable problems{held}: lower it or give more data"
        )
    return Prepared(
        model_path=model_path,
        shape=shape,
        tokenizer=tokenizer,
        stop_tokens=stop_tokens(model_path, shape.vocabulary, tokenizer),
        problems=problems,
        held_out=held_out,
        notes=tuple(notes),
        files=model_files(model_path, model, tokenizer),
        opening=response_prefix(problems[0].prompt_ids, tokenizer),
    )


def _evaluated(config: RunConfig) -> dict[str, Any]:
    """Parameters of held-out problems of a library."""
    if config.evaluation.parameters is not None:
        return config.evaluation.parameters
    return config.data.parameters if config.evaluation.path == config.data.path else {}


def _check_apart(config: RunConfig) -> None:
    """UserError where held-out problems are training problems unasked."""
    data, evaluation = config.data, config.evaluation
    if evaluation.path is None or evaluation.on_training_data:
        return
    if kind_of(evaluation.path) and _evaluated(config) != data.parameters:
        return
    one, other = Path(data.path).expanduser(), Path(evaluation.path).expanduser()
    same = other.exists() and one.exists() and one.samefile(other)
    same_split = (evaluation.split or data.split) == data.split
    if (same and one.is_file()) or ((same or data.path == evaluation.path) and same_split):
        raise UserError(
            f"evaluation.path is data.path ({data.path}), so the accuracy would be one on training problems: set "
            "evaluation.hold_out to keep some of them out instead, or evaluation.on_training_data true if that is meant"
        )


def _given(golds: Sequence[Gold]) -> list[bool]:
    return [bool(gold) for gold in golds]


def check_model(config: RunConfig, model_path: str) -> tuple[PreTrainedConfig, ModelShape]:
    tokens, fields = config.max_sequence_tokens, "rollout.max_prompt_tokens + rollout.max_completion_tokens"
    return check_served(config.model, model_path, config.engine, config.placement, tokens, fields)


def check_served(
    model: Model, model_path: str, engine: Engine, place: Slots, tokens: int, fields: str
) -> tuple[PreTrainedConfig, ModelShape]:
    """The model's configuration and shape. UserError where it is not whole, or unfit for engines and `tokens` set by `fields`."""
    with reading(f"the configuration of model.path {model.path!r} cannot be used"):
        config = read_config(model_path)
        with reading(f"cannot read the configuration of {model_path}"):
            shape = ModelShape.of(config)
        check_engine(model, place, model_path, config)
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and tokens > limit:
            raise UserError(f"{fields} is {tokens} but {model.path} takes at most {limit} tokens")
        heads, size = getattr(config, "num_attention_heads", 1), engine.tensor_parallel
        if heads % size:
            raise UserError(f"engine.tensor_parallel ({size}) must divide the {heads} attention heads of {model.path}")
        check_weights(model_path, config)
        return config, shape
