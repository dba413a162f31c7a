"""Checks a model's attention: only full causal attention without a bias can be trained here."""

from transformers import PreTrainedConfig

from openrs_ray.errors import UserError

_ALIBI = ("bloom", "mpt")


def check_attention(config: PreTrainedConfig, path: str, longest: int | None = None) -> None:
    """UserError unless every layer attends to all earlier tokens of sequences up to `longest`."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UserError(f"model {path} has {', '.join(sorted(kinds))} layers, but only full attention can be trained")
    if getattr(config, "alibi", False) or config.model_type in _ALIBI:
        raise UserError(
            f"{path} adds a bias to its attention (ALiBi), which cannot be trained: use a Qwen2 or Llama model"
        )
    window = getattr(config, "sliding_window", None)  # of all layers where there are no layer_types
    if longest is not None and window and not getattr(config, "layer_types", None) and window < longest:
        raise UserError(
            f"{path} has attention over a sliding window of {window} tokens, and only full attention can be trained: keep "
            f"rollout.max_prompt_tokens + rollout.max_completion_tokens, now {longest}, within it"
        )
