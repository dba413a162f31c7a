"""Small real systems (Ray, vLLM, DeepSpeed, reward processes) for the tests that need whole actors."""

from pathlib import Path
from typing import Any

import numpy as np

from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Completion, Group, Problem, Status, Verdict


def tiny_sections(folder: Path, model: Path, name: str, steps: int) -> dict[str, dict[str, Any]]:
    """A run on a CPU as small as they come: 4 problems x 4 completions, one engine, one learner rank."""
    return {
        "run": {"name": name, "folder": str(folder), "steps": steps},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": "toy"},
        "rollout": {
            "problems_per_step": 4,
            "completions_per_problem": 4,
            "max_prompt_tokens": 16,
            "max_completion_tokens": 24,
            "max_uniform_steps": 0,  # its model was taught nothing
        },
        "engine": {"cpu_cache_gib": 0.05},
        "rewards": {"processes": 1, "weights": {"accuracy": 2.0, "format": 1.0}},
        "learner": {"zero_stage": 1, "learning_rate": 1e-3, "micro_batch_tokens": 512, "gradient_checkpointing": False},
        "push": {"probe_tolerance": 1e-3},
        "placement": {"device": "cpu", "num_learner_gpus": 1, "cpus_per_slot": 0.5, "threads": 1},
    }


def system_config(folder: Path, model: Path, /, **changes: dict[str, Any]) -> RunConfig:
    """The tiny run with every push probed and small buckets; `changes` by section."""
    sections = tiny_sections(folder, model, "run", 3)
    sections["push"] |= {"probe_every": 1, "deadline_s": 60, "bucket_mib": 1}
    for section, values in changes.items():
        sections.setdefault(section, {}).update(values)
    return RunConfig.model_validate(sections)


def judged_group(position: int, problem: Problem, completions: list[Completion], seed: int) -> Group:
    """A group with made-up rewards that differ, so that a training step changes the weights."""
    rewards = np.random.default_rng(seed + position).normal(size=len(completions))
    verdicts = [Verdict(Status.CORRECT, {"accuracy": float(r)}, float(r)) for r in rewards]
    return Group(position, problem, tuple(sorted(completions, key=lambda c: c.sample)), tuple(verdicts))
