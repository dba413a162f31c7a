"""Groups of one step: trained on, or replaced because they teach nothing.

A group whose rewards are all equal has advantage 0 throughout. DAPO's dynamic sampling (arXiv 2503.14476, section 3.2) draws
further problems until enough groups have spread. Here `rollout.replace_uniform_groups` bounds that.
"""

from dataclasses import dataclass, field

from openrs_ray.algorithm.advantages import spread
from openrs_ray.algorithm.step_metrics import check_judged
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.prompt_lengths import Unfit
from openrs_ray.data.rests import Rested
from openrs_ray.errors import RunError
from openrs_ray.records import Group, age_metrics


@dataclass(frozen=True, slots=True)
class Batch:
    """Every drawn position is in exactly one of the lists."""

    groups: list[Group]
    """By position."""
    replaced: list[Group]
    """Judged, but without spread: not trained on."""
    rested: list[Rested] = field(default_factory=list)
    """Positions that were drawn for it but passed over, their problems being at rest."""
    unfit: list[Unfit] = field(default_factory=list)
    """The same, their prompts not fitting the stage."""

    @property
    def drawn(self) -> list[Group]:
        return [*self.groups, *self.replaced]

    @property
    def positions(self) -> list[int]:
        """Used by the step: drawn, or passed over."""
        passed = [each.position for each in self.rested] + [each.position for each in self.unfit]
        return [*(group.position for group in self.drawn), *passed]

    def metrics(self) -> dict[str, float]:
        return {"replaced_groups": float(len(self.replaced)), "replaced_share": len(self.replaced) / len(self.drawn)}


def has_spread(group: Group) -> bool:
    """True if the judged rewards differ."""
    return bool(spread(group.rewards()[None])[0])


def check_batch(batch: Batch, step: int, config: RunConfig) -> None:
    """RunError when too little was judged, or a token is older than admission allows."""
    oldest, limit = age_metrics(batch.groups, step - 1)["age_max"], config.rollout.staleness
    if oldest > limit:
        raise RunError(
            f"step {step} was given tokens that are {oldest:.0f} versions old, more than rollout.staleness {limit}"
        )
    check_judged(batch.drawn, step, config.rewards.max_unjudged_share)
