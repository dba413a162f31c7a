"""Seeds of single completions, derived and never stored: the same position and sample always draw the same way."""

import hashlib


def completion_seed(run_seed: int, phase: str, step: int, position: int, sample: int) -> int:
    """A number in [0, 2^62), unrelated for any two different inputs.

    Args:
        phase: "train" or "evaluation".
        step: 0 in training, where the position says when a problem is drawn; in an evaluation the policy version.
    """
    key = f"{run_seed}/{phase}/{step}/{position}/{sample}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 2
