"""The config section `loss.teacher`."""

from __future__ import annotations

from openrs_ray.config.section import Count, Section, SomeShare


class Teacher(Section):
    """A frozen model that the policy learns from on its own completions (docs/distillation.md)."""

    path: str | None = None
    """The teacher: a folder (such as an exported policy of an earlier run), a Hub id or a built-in (`toy-teacher`)."""
    weight: SomeShare = 1.0
    """Share of the teacher in the loss; the rest is that of grpo. At 1 rewards are measured, but nothing is learned from them."""
    top_k: Count = 16
    """The reverse KL divergence is taken over so many of the policy's likeliest tokens and all others as one; 0 estimates it from
    the sampled token alone."""
    offload: bool = False
    """Keep the teacher in the host's memory and copy it to the GPU once per update; results stay the same."""
