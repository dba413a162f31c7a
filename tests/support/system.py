"""Small real systems (Ray, vLLM, DeepSpeed, reward processes) for the tests that need whole actors."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from openrs_ray.config import rollout as sections
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict
from openrs_ray.run.step_settings import StepSettings


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
    rollouts = tuple(Rollout.of([completion]) for completion in sorted(completions, key=lambda c: c.sample))
    return Group(position, problem, rollouts, tuple(verdicts))


def make_run(
    runs: Path, model: Path, name: str = "open-rs3", steps: tuple[int, ...] = (50, 100), seed: int = 42, asks: str = "1"
) -> Path:
    """A run's folder as training leaves it, with the same policy at every step."""
    config = RunConfig.model_validate(
        {
            "run": {"name": name, "folder": str(runs), "steps": 100, "seed": seed},
            "model": {"path": str(model), "dtype": "float32"},
            "data": {"path": "toy", "system_prompt": asks},
            "rollout": {"problems_per_step": 4, "completions_per_problem": 4, "max_completion_tokens": 24},
            "placement": {"device": "cpu", "num_learner_gpus": 1},
        }
    )
    folder = runs / name
    (folder / "checkpoints").mkdir(parents=True)
    entries = []
    for step in steps:
        policy = folder / "checkpoints" / f"step-{step:06d}" / "policy"
        shutil.copytree(model, policy)
        entries.append({"folder": policy.parent.name, "step": step, "kind": "kept", "complete": False, "files": []})
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "checkpoints" / "manifest.json").write_text(json.dumps({"checkpoints": entries}))
    return folder


SETTINGS = StepSettings(0, 512, 8, 1.0, 1.0, 0.0, 0.0, 0)
"""Of a step of `rollout_section`."""


def rollout_section(
    problems: int, staleness: int, deadline_s: float = 1e6, replaced: int = 0, in_flight: int | None = None
) -> sections.Rollout:
    """What the look-ahead goes by; `replaced`: times `problems`."""
    return sections.Rollout(
        problems_per_step=problems,
        completions_per_problem=2,
        max_completion_tokens=8,
        staleness=staleness,
        deadline_s=deadline_s,
        replace_uniform_groups=replaced,
        in_flight=in_flight,
    )
