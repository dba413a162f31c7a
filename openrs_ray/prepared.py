"""Everything a run needs that can be known, or be wrong, before any engine starts: model, tokenizer, problems."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from openrs_ray.builtin import resolve_model
from openrs_ray.config import RunConfig
from openrs_ray.data.problems import Gold, hold_out, load_problems
from openrs_ray.data.prompts import load_tokenizer, response_prefix
from openrs_ray.data.texts import same_text_key
from openrs_ray.errors import UserError
from openrs_ray.foreign import reading
from openrs_ray.memory import ModelShape
from openrs_ray.rewards.golds import parseable_golds
from openrs_ray.rewards.table import check_reward_names
from openrs_ray.run_problems import RunProblems, text_digests
from openrs_ray.samples import Problem


@dataclass(frozen=True)
class Prepared:
    model_path: str
    """Folder or Hub id that transformers and vLLM both load."""
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    """Tokens that end a completion."""
    problems: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    """Problems of the run's own evaluation; empty without one."""
    notes: tuple[str, ...]
    """What became of the rows of each data set, and how training and held-out problems are kept apart."""
    opening: str
    """What the chat template already wrote of every answer ("<think>" or nothing)."""

    def summary(self) -> RunProblems:
        """The problems by digests: a resumed run must mean the same ones, and its record have these."""
        content = hashlib.sha256()
        for problem in (*self.problems, *self.held_out):
            content.update(repr((problem.index, problem.prompt_ids, problem.gold)).encode())
        texts = text_digests(problem.text for problem in self.problems)
        return RunProblems(content.hexdigest(), len(texts), texts)


def prepare(config: RunConfig) -> Prepared:
    """Load and check it all.

    Raises:
        UserError: something is missing or does not fit; one sentence.
    """
    check_reward_names(config.rewards)
    _check_apart(config)
    model_path = resolve_model(config.model.path)
    eos_ids, shape = check_model(config, model_path)
    tokenizer = load_tokenizer(config.model)
    limit = config.rollout.max_prompt_tokens
    parseable = partial(parseable_golds, rewards=config.rewards)
    keeps_all = config.rewards.unparseable_gold == "reward"
    whole = config.rewards.extraction == "published"
    train = load_problems(config.data, tokenizer, limit, _given if keeps_all else parseable, whole)
    notes = [str(train.report)]
    problems, held_out = hold_out(train.problems, config.evaluation.hold_out, config.evaluation.hold_out_seed)
    if config.evaluation.path is not None:
        elsewhere = {"path": config.evaluation.path, "split": config.evaluation.split or config.data.split}
        source = config.data.model_copy(update=elsewhere)
        loaded = load_problems(source, tokenizer, limit, parseable, whole)
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
        eos_ids=eos_ids or (tokenizer.eos_token_id,),
        problems=problems,
        held_out=held_out,
        notes=tuple(notes),
        opening=response_prefix(problems[0].prompt_ids, tokenizer),
    )


def _check_apart(config: RunConfig) -> None:
    """UserError where the held-out problems are those of the training, and that was not asked for."""
    data, evaluation = config.data, config.evaluation
    if evaluation.path is None or evaluation.on_training_data:
        return
    one, other = Path(data.path).expanduser(), Path(evaluation.path).expanduser()
    same_file = other.is_file() and one.is_file() and one.samefile(other)
    if same_file or (data.path == evaluation.path and (evaluation.split or data.split) == data.split):
        raise UserError(
            f"evaluation.path is data.path ({data.path}), so the accuracy would be one on training problems: set "
            "evaluation.hold_out to keep some of them out instead, or evaluation.on_training_data true if that is meant"
        )


def _given(golds: Sequence[Gold]) -> list[bool]:
    """Which golds there are, whether or not they can be read."""
    return [bool(gold) for gold in golds]


def check_model(config: RunConfig, model_path: str) -> tuple[tuple[int, ...], ModelShape]:
    """The model's end-of-sequence ids and its shape, once its configuration is known to fit the run."""
    with reading(f"the configuration of model.path {config.model.path!r} cannot be used"):
        return _check_model(config, model_path)


def _check_model(config: RunConfig, model_path: str) -> tuple[tuple[int, ...], ModelShape]:
    with reading(f"cannot read model.path {config.model.path!r}"):
        model = AutoConfig.from_pretrained(model_path)
        shape = ModelShape.of(model)
    kinds = set(getattr(model, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(
            f"{config.model.path} has {', '.join(sorted(kinds))} layers, but only full attention can be trained"
        )
    limit = getattr(model, "max_position_embeddings", None)
    if limit is not None and config.max_sequence_tokens > limit:
        raise UserError(
            f"rollout.max_prompt_tokens + rollout.max_completion_tokens is {config.max_sequence_tokens} but "
            f"{config.model.path} takes at most {limit} tokens"
        )
    heads, size = getattr(model, "num_attention_heads", 1), config.rollout.tensor_parallel
    if heads % size:
        raise UserError(
            f"rollout.tensor_parallel ({size}) must divide the {heads} attention heads of {config.model.path}"
        )
    try:
        ids = GenerationConfig.from_pretrained(model_path).eos_token_id
    except OSError:  # a model without generation config: its main configuration says it
        ids = getattr(model, "eos_token_id", None)
    found = tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)
    if not all(isinstance(one, int) for one in found):
        raise UserError(f"eos_token_id of model.path {config.model.path!r} must be a token's number or a list of them")
    return found, shape
