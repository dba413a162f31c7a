"""The rule by which held-out accuracy has stalled, after which the reference is reset, as in ProRL (arXiv 2505.24864)."""

from collections.abc import Mapping


def stalled(accuracies: Mapping[int, float], since: int, evaluations: int) -> bool:
    """True if none of the last `evaluations` accuracies is above all before them.

    Args:
        accuracies: held-out accuracy by step.
        since: step of the last reset (0: of the start model); accuracies before it are left out.
        evaluations: at least 1.
    """
    known = [accuracies[step] for step in sorted(accuracies) if step >= since]
    before, last = known[:-evaluations], known[-evaluations:]
    return bool(before) and max(last) <= max(before)
