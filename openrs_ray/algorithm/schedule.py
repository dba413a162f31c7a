"""Learning rate of each step."""

import math

from openrs_ray.config.learner import Learner
from openrs_ray.config.schema import RunConfig


def learning_rate(step: int, steps: int, learner: Learner) -> float:
    """A linear warm-up that reaches the peak at its end, then the schedule; `step` from 1 to `steps`."""
    # The small term keeps 0.07 * 100 = 7.000000000000001 from becoming 8 steps.
    warmup = math.ceil(learner.warmup_share * steps - 1e-9)
    if step <= warmup:
        return learner.learning_rate * step / warmup
    progress = (step - warmup) / (steps - warmup)
    if learner.schedule == "constant":
        share = 1.0
    elif learner.schedule == "linear":
        share = 1.0 - (1.0 - learner.final_share) * progress
    else:
        share = learner.final_share + (1.0 - learner.final_share) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return learner.learning_rate * share


def rewound(step: int, saved: RunConfig, now: RunConfig) -> str | None:
    """Sentence on the jump of the rate when a run goes on after `step` with another number of steps, if there is one."""
    before, after = saved.run.steps, now.run.steps
    if before == after or not 0 < step < after or now.learner.schedule == "constant":
        return None
    old, new = learning_rate(min(step, before), before, saved.learner), learning_rate(step + 1, after, now.learner)
    instead = f"{before} steps would end here"
    if step < before:
        instead = f"would have been {learning_rate(step + 1, before, saved.learner):.3g} with {before}"
    return (
        f"run.steps was {before} and is {after}, which spreads the {now.learner.schedule} schedule over {after} steps: the "
        f"learning rate goes from {old:.3g} in step {step} to {new:.3g} in step {step + 1} ({instead})"
    )
