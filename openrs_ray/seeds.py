"""Seeds of single completions: the same position, sample and turn always draw the same way."""

import hashlib


def completion_seed(run_seed: int, phase: str, step: int, position: int, sample: int) -> int:
    """A number in [0, 2^62), unrelated for any two different inputs.

    Args:
        phase: "train" or "evaluation".
        step: 0 in training, where the position says when a problem is drawn; in an evaluation the policy version.
    """
    return _number(f"{run_seed}/{phase}/{step}/{position}/{sample}")


def turn_seed(seed: int, turn: int) -> int:
    """The seed of a rollout's turn; the first one has `seed` itself."""
    return _number(f"{seed}/{turn}") if turn else seed


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 2
