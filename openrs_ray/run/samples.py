"""Two completions of an evaluation to read in passing, each folded into one line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openrs_ray.records import Group, Rollout, Status, Verdict

_PROBLEM, _COMPLETION = 80, 200
"""Characters shown."""


@dataclass(frozen=True, slots=True)
class Sample:
    group: Group
    number: int

    @property
    def verdict(self) -> Verdict:
        return self.group.verdicts[self.number]

    @property
    def rollout(self) -> Rollout:
        return self.group.rollouts[self.number]

    @property
    def text(self) -> str:
        return self.group.texts[self.number]


def sample_lines(groups: Sequence[Group]) -> list[str]:
    """The first right and the first wrong completion; without golds the best and the worst. Fewer where there are none.

    Example: 'right: "47+38" -> "7+8=15, carry 1 ... \\\\boxed{85}" (gold 85; 33 tokens)'
    """
    samples = [Sample(group, number) for group in groups if group.texts for number in range(len(group.rollouts))]
    right = _first(samples, lambda verdict: verdict.status is Status.CORRECT)
    wrong = _first(samples, lambda verdict: verdict.status in (Status.WRONG, Status.NO_ANSWER))
    chosen = {"right": right, "wrong": wrong} if right or wrong else _extremes(samples)
    return [f"{name}: {_line(sample)}" for name, sample in chosen.items() if sample]


def _first(samples: Sequence[Sample], fits: Callable[[Verdict], bool]) -> Sample | None:
    return next((sample for sample in samples if fits(sample.verdict)), None)


def _extremes(samples: Sequence[Sample]) -> dict[str, Sample | None]:
    unchecked = [sample for sample in samples if sample.verdict.status is Status.UNCHECKED]
    rewarded = [(sample.verdict.reward, sample) for sample in unchecked if sample.verdict.reward is not None]
    if not rewarded:
        return {}
    best, worst = (pick(rewarded, key=lambda each: each[0]) for pick in (max, min))
    return {f"reward {reward:.3g}": sample for reward, sample in (best, worst)}


def _line(sample: Sample) -> str:
    gold = f"gold {_folded(sample.group.problem.gold[0], _PROBLEM)}; " if sample.group.problem.gold else ""
    problem, text = _folded(sample.group.problem.text, _PROBLEM), _folded(sample.text, _COMPLETION)
    return f'"{problem}" -> "{text}" ({gold}{sample.rollout.sampled_tokens:,} tokens)'


def _folded(text: str, most: int) -> str:
    """On one line, without control characters, its middle left out where it is long: answers are at the end."""
    line = " ".join("".join(_visible(text)).split())
    half = (most - 5) // 2
    return line if len(line) <= most else f"{line[:half].rstrip()} ... {line[-half:].lstrip()}"


def _visible(text: str) -> Iterator[str]:
    return (letter if letter.isprintable() else " " for letter in text)
