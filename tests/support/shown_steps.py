"""Figures of a step, for what shows them."""

from openrs_ray.run.display import StepFigures


def step_figures(step: int, seconds: float = 2.0, reward: float = 1.25) -> StepFigures:
    return StepFigures(
        step,
        reward=reward,
        accuracy=0.5,
        truncated_share=0.125,
        mean_length=1234.4,
        groups_with_spread=3,
        groups=12,
        clipped_share=0.0625,
        kl=None,
        tokens=10_000,
        seconds=seconds,
    )
