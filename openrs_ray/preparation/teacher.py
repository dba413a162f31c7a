"""Checks of the model that a run learns from (`loss.teacher`), before any engine starts."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.foreign import reading
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.models.attention import check_attention
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.pretrained import read_config, read_tokenizer
from openrs_ray.models.stop_tokens import StopToken, stop_tokens
from openrs_ray.models.weight_files import check_weights
from openrs_ray.preparation.served import check_served

_FIELD = "loss.teacher.path"


def check_teacher(
    config: RunConfig, shape: ModelShape, tokenizer: PreTrainedTokenizerBase, ends: tuple[StopToken, ...]
) -> ModelShape | None:
    """The teacher's shape, None without one. UserError unless it can score what the policy samples, token by token.

    `shape`, `tokenizer` and `ends` are the policy's.
    """
    its = teacher_shape(config)
    if its is None:
        return None
    path = str(config.loss.teacher.path)
    place = resolve_model(path, _FIELD)
    if its.vocabulary < shape.vocabulary:
        raise UserError(
            f"{_FIELD} {path} gives {its.vocabulary} logits and {config.model.path} {shape.vocabulary}: a teacher needs at least "
            "as many (padding may differ), choose another one"
        )
    check_same_tokens(tokenizer, read_tokenizer(place), f"{_FIELD} {path}")
    own_ends = {end.id: end.text for end in ends}
    if not teacher_ends(place, its) & own_ends.keys():
        raise UserError(
            f"{_FIELD} {path} ends its answers with none of the tokens that {config.model.path} ends with "
            f"({', '.join(own_ends.values())}), so it would teach never to end: choose a teacher with the same chat template"
        )
    if config.has_evaluations:  # its own score is measured by engines
        check_served(
            config.model.model_copy(update={"path": path}),
            place,
            config.engine,
            config.placement,
            config.max_evaluation_sequence,
            "rollout.max_prompt_tokens + evaluation.max_completion_tokens (or rollout's)",
            _FIELD,
        )
    return its


def teacher_ends(place: str, its: ModelShape) -> set[int]:
    """Stop tokens of the teacher in the folder `place`."""
    return {end.id for end in stop_tokens(place, its.vocabulary, read_tokenizer(place))}


def teacher_shape(config: RunConfig) -> ModelShape | None:
    """None without a teacher. UserError where the learner cannot compute it."""
    path, tokens = config.loss.teacher.path, config.max_sequence_tokens
    if path is None:
        return None
    place = resolve_model(path, _FIELD)
    with reading(f"the configuration of {_FIELD} {path!r} cannot be used"):
        model = read_config(place)
        shape = ModelShape.of(model)
    check_attention(model, path, tokens)
    limit = getattr(model, "max_position_embeddings", None)
    if limit is not None and tokens > limit:
        raise UserError(
            f"rollout.max_prompt_tokens + rollout.max_completion_tokens is {tokens} but {_FIELD} {path} takes at most {limit} "
            "tokens"
        )
    if getattr(model, "quantization_config", None) is not None:
        raise UserError(f"{_FIELD} {path} is quantized, which the learner does not compute: give the model itself")
    check_weights(place, model)
    return shape


def check_same_tokens(own: PreTrainedTokenizerBase, its: PreTrainedTokenizerBase, name: str) -> None:
    """UserError unless every token of the policy, special ones included, has the same id in the teacher's vocabulary.

    The ids of prompts and completions are handed over, and no text: merges need not agree, nor chat templates, nor tokens that
    only the teacher has.
    """
    different = next(_different(own.get_vocab(), its.get_vocab()), None)
    if different is not None:
        token, ours, theirs = different
        there = "is not in it" if theirs is None else f"has the id {theirs} there"
        raise UserError(
            f"{name} reads other tokens than the policy: {token!r}, id {ours}, {there}; choose a teacher with the policy's "
            "tokenizer"
        )


def _different(own: dict[str, int], its: dict[str, int]) -> Iterator[tuple[str, int, int | None]]:
    return (
        (token, own[token], its.get(token))
        for token in sorted(own, key=own.__getitem__)
        if its.get(token) != own[token]
    )
