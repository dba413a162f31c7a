"""The config section `guard`: what counts as a run that goes wrong, and how far the run may go by itself to mend it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from openrs_ray.config.section import Count, Positive, Section, Share, SomeAmount, SomeShare

Knob = Literal["length", "learning_rate", "kl"]
Action = Literal["off", "warn", "roll_back"]
_Factor = Annotated[float, Field(gt=1, le=1_000_000)]


class Rule(Section):
    """A rule is broken while the mean of its figure over a window of steps is beyond a limit."""

    window: Positive = 5
    """Steps that the figure is averaged over."""
    patience: Positive = 5
    """Steps in a row that the rule may be broken before the run goes back; the first of them is a warning."""
    action: Action = "roll_back"
    """The furthest that this rule goes: off, warn, or roll_back."""


class TruncatedShare(Rule):
    limit: SomeShare = 0.25
    """Largest rise of the share of completions cut at the length limit, above the run's (or the stage's) first steps;
    a larger one is allowed where the noise from step to step explains it."""


class Length(Rule):
    limit: SomeShare = 0.8
    """Largest mean length as a share of the length limit, unless it began close to that."""


class Language(Rule):
    limit: SomeShare = 0.8
    """Smallest mean of the reward `language`, which may have the weight 0, as a share of the run's first steps'."""


class Kl(Rule):
    limit: SomeAmount = 1.0
    """Largest mean k3 KL to the reference in nats per token; only where loss.kl_beta is above 0."""


class Mismatch(Rule):
    limit: _Factor = 20.0
    """Largest mean k3 divergence between sampler and learner, as a multiple of the run's first steps'."""


class EntropyRise(Rule):
    limit: _Factor = 3.0
    """Largest mean entropy, as a multiple of the run's first steps'."""


class EntropyFall(Rule):
    limit: SomeShare = 0.02
    """Smallest mean entropy, as a share of the run's first steps', while fewer than half of the completions are right."""


class GradNorm(Rule):
    limit: _Factor = 10.0
    """Largest mean norm of the gradient, as a multiple of the run's first steps'."""


class NoSpread(Rule):
    limit: SomeShare = 0.3
    """Largest rise, above the run's first steps, of the share of groups whose rewards are equal though not all are right;
    a larger one is allowed where the noise from step to step explains it."""


class Accuracy(Rule):
    limit: SomeShare = 0.15
    """Largest fall of the accuracy of training completions below the best window of the run so far; a larger one is allowed where
    the noise from step to step explains it."""


class HeldOutFall(Rule):
    window: Literal[1] = 1
    """Each evaluation is looked at by itself."""
    patience: Positive = 1
    """Evaluations in a row that the rule may be broken before the run goes back."""
    limit: Share = 0.0
    """Broken where the 95 % interval ends more than this below the beginning of the best earlier evaluation's."""


class Guard(Section):
    """Rules that a run is watched by, and what it may change by itself (docs/guard.md)."""

    action: Action = "off"
    """The furthest that the guard goes: off, warn, or roll_back to the last good checkpoint with one setting changed."""
    baseline_steps: Positive = 10
    """First steps of the run whose figures count as healthy."""
    knobs: tuple[Knob, ...] = ("length", "learning_rate")
    """Settings that a rollback may change: the length limit (to that of the next of rollout.stages), the learning rate (halved),
    the weight of the KL penalty (a reference model is then loaded from the start)."""
    kl_beta: SomeAmount = 0.02
    """Weight of the KL penalty where a rollback brings it in; further ones double it."""
    max_rollbacks: Count = 3
    """Rollbacks over the whole run; where one more is due, the run stops."""
    truncated_share: TruncatedShare = TruncatedShare()
    length: Length = Length()
    language: Language = Language()
    kl: Kl = Kl()
    mismatch: Mismatch = Mismatch()
    entropy_rise: EntropyRise = EntropyRise()
    entropy_fall: EntropyFall = EntropyFall()
    grad_norm: GradNorm = GradNorm()
    no_spread: NoSpread = NoSpread()
    accuracy: Accuracy = Accuracy()
    held_out: HeldOutFall = HeldOutFall()

    @property
    def raises_kl(self) -> bool:
        """True where a rollback may bring in a KL penalty: the reference must be there from the start."""
        return self.action == "roll_back" and "kl" in self.knobs

    def rule(self, name: str) -> Rule:
        found: Rule = getattr(self, name)
        return found

    def action_of(self, name: str) -> Action:
        """The lesser of the guard's and the rule's."""
        order: tuple[Action, ...] = ("off", "warn", "roll_back")
        return min(self.action, self.rule(name).action, key=order.index)
