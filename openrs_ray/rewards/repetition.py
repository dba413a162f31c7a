"""Repetition reward: a completion that says the same again and again loses."""

from openrs_ray.rewards.records import RewardInput


def repetition_reward(item: RewardInput, *, words: int, penalty: float) -> float:
    """`penalty` x the share of the completion's n-grams (of `words` words, whatever their case) that stood there before.

    The n-gram penalty of arXiv 2502.03373 (algorithm 1) as one value for the whole completion. 3 words and -1 are what the
    code that Open-RS adapts has (open-r1); the paper counts 40 tokens and punishes each repeated one.
    """
    spoken = item.text.lower().split()
    total = len(spoken) - words + 1
    if total < 1:
        return 0.0
    distinct = len(set(zip(*(spoken[start:] for start in range(words)), strict=False)))
    return penalty * (1 - distinct / total)
