"""Disk space of a run. DeepSpeed 0.19.8 saves each trained parameter's float32 weight and two moments beside the weights."""

from typing import TYPE_CHECKING

from openrs_ray.cluster.probes import ProbeError, disk_bytes
from openrs_ray.common.formatting import gib
from openrs_ray.config.schema import RunConfig

if TYPE_CHECKING:
    from openrs_ray.cluster.model_shape import ModelShape

_STATE = {"adamw": 12.0, "adamw_8bit": 4 + 2 + 8 / 256, "adamw_offload": 12.0}
"""Bytes per trained parameter: float32 weight and two moments, in 8 bits with a float32 scale per block of 256."""
_TO_GO_BACK = 3
"""The most checkpoints that `openrs_ray.guard.watch.Watch.needed` keeps complete."""
_BYTES_PER_TOKEN = 10  # Per recorded token: id, log-probability and text, compressed (measured: 4 to 9)


def checkpoint_sizes(config: RunConfig, parameters: int, adapters: int = 0) -> tuple[int, int]:
    """Bytes of a checkpoint's policy and of its state to resume from; `adapters`: trained parameters with LoRA, else 0."""
    size = 4 if config.model.dtype == "float32" else 2
    state = (_STATE[config.learner.optimizer] + size) * (adapters or parameters)
    return size * (parameters + adapters), round(state)


def checkpoint_parts(config: RunConfig, parameters: int, adapters: int = 0) -> dict[str, float]:
    """Peak bytes by kind, while the last kept checkpoint is written."""
    weights, state = checkpoint_sizes(config, parameters, adapters)
    saving = config.checkpoint
    before = -(-config.run.steps // saving.every_steps) - 1
    complete = min(before, saving.keep_last)
    to_go_back = min(before - complete, _TO_GO_BACK) if config.guard.action == "roll_back" else 0
    older = before - complete if saving.keep_policies else 0
    return {
        f"{complete} kept checkpoint(s)": float(complete * (state + weights)),
        f"{to_go_back} to go back to": float(to_go_back * (state if saving.keep_policies else state + weights)),
        "the newest to resume from": float(state),
        "one being written": float(state + weights),
        f"{older} older policies": float(older * weights),
    }


def disk_parts(config: RunConfig, shape: "ModelShape", held_out: int) -> dict[str, float]:
    """`checkpoint_parts`, and the record of completions at full length."""
    rollout, steps = config.rollout, config.run.steps
    sampled = steps * rollout.most_drawn_per_step * rollout.completions_per_problem * rollout.max_completion_tokens
    sampled += evaluations(config) * held_out * config.evaluation.samples * config.max_evaluated_tokens
    completions = float(sampled * _BYTES_PER_TOKEN)
    return checkpoint_parts(config, shape.parameters, shape.adapters(config.learner.lora)) | {
        "completions": completions
    }


def evaluations(config: RunConfig) -> int:
    """Number in a whole run: before the first step, after the last, and between."""
    every = config.evaluation.every_steps
    return 2 + ((config.run.steps - 1) // every if every else 0)


def disk_text(config: RunConfig, shape: "ModelShape", held_out: int) -> list[str]:
    parts = {name: size for name, size in disk_parts(config, shape, held_out).items() if size}
    needed = sum(parts.values())
    line = (
        f"disk: up to {gib(needed)} GiB in {config.run.path} ({' + '.join(f'{n} {gib(s)}' for n, s in parts.items())})"
    )
    try:
        free = disk_bytes(config.run.path)
    except ProbeError as error:
        return [f"{line}; {error}"]
    if free >= needed:
        return [f"{line}; {gib(free)} are free here"]
    mend = "lower checkpoint.keep_last, set checkpoint.keep_policies false, or set run.folder to a larger disk"
    return [f"{line}; WARNING: only {gib(free)} are free here: {mend}"]
