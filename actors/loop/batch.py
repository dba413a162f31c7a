"""What one step trains on, and which groups were replaced because they teach nothing.

A group whose rewards are all equal has advantage 0 throughout. DAPO's dynamic sampling (arXiv 2503.14476, section 3.2) draws
further problems until the step has as many groups with spread as it wants. Here that has a bound
(`rollout.replace_uniform_groups`): once it is reached, the step is filled up with groups without spread.

Every drawn position is in exactly one of `Batch.groups` and `Batch.replaced`.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from openrs_ray.algorithm.advantages import spread
from openrs_ray.records import Group, Problem

Drawn = tuple[int, Problem]
"""A position and the problem that is drawn there."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one step."""

    groups: list[Group]
    """Trained on, by position."""
    replaced: list[Group]
    """Sampled and judged, but without spread: not trained on."""

    @property
    def drawn(self) -> list[Group]:
        return [*self.groups, *self.replaced]

    def metrics(self) -> dict[str, float]:
        return {
            "replaced_groups": float(len(self.replaced)),
            "replaced_share": len(self.replaced) / len(self.drawn),
        }


async def collect_batch(
    candidates: Sequence[Drawn], wanted: int, sample: Callable[[Sequence[Drawn]], Awaitable[list[Group]]]
) -> Batch:
    """Sample the first `wanted` candidates, then others in the place of those without spread, as far as there are any.

    In rounds, each of as many candidates as groups are missing, so that none with spread is left over.
    """
    drawn: list[Group] = []
    while missing := min(wanted - sum(map(has_spread, drawn)), len(candidates) - len(drawn)):
        drawn += await sample(candidates[len(drawn) :][:missing])
    replaced = [group for group in drawn if not has_spread(group)][: len(drawn) - wanted]
    gone = {group.position for group in replaced}
    return Batch([group for group in drawn if group.position not in gone], replaced)


def has_spread(group: Group) -> bool:
    """Whether the judged rewards of the group differ."""
    return bool(spread(group.rewards()[None])[0])
