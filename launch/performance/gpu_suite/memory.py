"""Part memory: what a learner rank of 1.78 B parameters takes, against the plan, and how fast it is."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import torch

from launch.performance.gpu_suite.rows import Row, Size, Verdict, aim, noted
from launch.performance.learner import Measured, measure_one, variant_config
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.models.pretrained import read_config

_H100_FLOPS = 989e12
_MFU, _PLAN = 40.0, 0.1
"""Aims: in percent of the peak; distance of the plan from the peak, relative."""


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    recompute: bool
    micro_batch_tokens: int
    cap_gib: float | None


VARIANTS = {
    "full": (
        Variant("recomputation, 44 GiB", True, 8192, 44.0),
        Variant("no recomputation, 44 GiB", False, 4096, 44.0),
        Variant("no recomputation, no cap", False, 16384, None),
    ),
    "tiny": (Variant("recomputation", True, 512, None),),
}


def memory(size: Size) -> Iterator[Row]:
    for variant in VARIANTS[size]:
        options, config = asked(size, variant)
        try:
            yield from _rows(variant, config, measure_one(config, options), options.sequences * options.tokens)
        except RunError as error:  # out of memory, say: the other variants are still worth knowing
            yield Row(variant.name, f"failed: {error}", "fits", "failed")


def asked(size: Size, variant: Variant) -> tuple[Namespace, RunConfig]:
    """As `launch.performance.learner` is asked, and the run that it makes of it."""
    full = size == "full"
    options = Namespace(
        workload="random-1.5b" if full else "tiny",
        problems=None,
        set=[],
        sequences=16 if full else 4,
        tokens=4096 if full else 64,
        steps=2 if full else 1,
        memory_cap_gib=variant.cap_gib,
    )
    recompute = str(variant.recompute).lower()
    changes = f"learner.gradient_checkpointing={recompute} learner.micro_batch_tokens={variant.micro_batch_tokens}"
    return options, variant_config(options, changes)


def _rows(variant: Variant, config: RunConfig, measured: Measured, tokens: int) -> Iterator[Row]:
    planned = planned_gib(config, variant.recompute)
    if measured.peak_gib is None:
        yield noted(f"{variant.name}: planned; a CPU has no peak to compare", planned, "GiB")
    else:
        off = measured.peak_gib / planned - 1
        verdict: Verdict = "ok" if abs(off) <= _PLAN else "missed"
        figure = f"{measured.peak_gib:.1f} of {planned:.1f} GiB ({off:+.0%})"
        yield Row(f"{variant.name}: peak of the plan", figure, f"within {_PLAN:.0%}", verdict)
    speed = tokens / median(measured.seconds)
    yield noted(f"{variant.name}: speed", speed, "tokens/s")
    if torch.cuda.is_available() and "H100" in torch.cuda.get_device_name(0):
        mfu = 100 * 6 * measured.parameters * speed / _H100_FLOPS
        yield aim(f"{variant.name}: MFU", mfu, _MFU, "%", least=True)


def planned_gib(config: RunConfig, recompute: bool) -> float:
    """The learner's highest phase without what torch does not allocate, or this rank has not: context and push buffer."""
    shape = ModelShape.of(read_config(config.model.path))
    phases = learner_phases(config, shape, recompute).values()
    return max(sum(parts.values()) - parts["CUDA"] - parts["push buffer"] for parts in phases) / GIB
