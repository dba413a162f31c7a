"""A run's config with a guard, and made-up lines of metrics."""

from pathlib import Path
from typing import Any

from openrs_ray.config.schema import RunConfig

HEALTHY = {
    "truncated_share": 0.0,
    "mean_length": 30.0,
    "accuracy": 0.45,
    "groups_with_spread": 4.0,
    "entropy": 0.4,
    "grad_norm": 0.5,
    "mismatch_kl": 1e-6,
    "setting/stage": 0,
    "setting/max_completion_tokens": 48,
}


def guarded(action: str, /, folder: Path = Path("/nowhere"), steps: int = 100, **guard: Any) -> RunConfig:
    """Four problems a step."""
    return RunConfig.model_validate(
        {
            "run": {"name": "run", "folder": str(folder), "steps": steps},
            "model": {"path": "toy", "dtype": "float32"},
            "data": {"path": "toy"},
            "rollout": {
                "problems_per_step": 4,
                "completions_per_problem": 4,
                "max_prompt_tokens": 16,
                "max_completion_tokens": 48,
            },
            "placement": {"device": "cpu", "num_learner_gpus": 1},
            "guard": {"action": action, **guard},
        }
    )


def line(step: int, /, **figures: Any) -> dict[str, Any]:
    """A healthy step but for `figures`."""
    return {"step": step, **HEALTHY, **figures}
