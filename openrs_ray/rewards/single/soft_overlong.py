"""Soft overlong punishment: completions near the maximal length lose a little, then more."""

from dataclasses import dataclass, replace

from openrs_ray.rewards.records import Positive, RewardInput


@dataclass(frozen=True)
class Parameters:
    max_length: Positive = 20480
    """Tokens from which on the punishment is whole; usually rollout.max_completion_tokens."""
    buffer: Positive = 4096
    """Tokens before max_length over which the punishment grows."""

    def within(self, max_completion_tokens: int) -> "Parameters":
        """Parameters where completions are no longer than this."""
        return replace(self, max_length=min(self.max_length, max_completion_tokens))

    def check_stage(self, max_completion_tokens: int) -> None:
        """ValueError where every completion of one of rollout.stages would be punished."""
        longest = min(self.max_length, max_completion_tokens)
        if self.buffer > longest:
            raise ValueError(
                f"rewards.soft_overlong.buffer ({self.buffer}) must not be above rewards.soft_overlong.max_length, nor above "
                f"max_completion_tokens of any of rollout.stages ({longest}): every completion would be punished"
            )

    def check(self, max_completion_tokens: int) -> None:
        """ValueError where no completion is long enough for any punishment."""
        begins = self.max_length - self.buffer
        if begins >= max_completion_tokens:
            raise ValueError(
                f"rewards.soft_overlong begins at {begins} tokens, but no completion is longer than "
                f"rollout.max_completion_tokens ({max_completion_tokens}): lower rewards.soft_overlong.max_length"
            )


def reward(item: RewardInput, parameters: Parameters) -> float:
    """0 up to max_length - buffer tokens, then linearly down to -1: DAPO (arXiv 2503.14476), eq. 13."""
    begins = parameters.max_length - parameters.buffer
    return -min(1.0, max(0, item.token_count - begins) / parameters.buffer)
