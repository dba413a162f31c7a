"""`python -m launch.performance.completions`: CPU time that a completion costs the driver, by component.

The loop, collector, packing and record are those of a run. Engines, reward pool and learner are stubs, which cost the driver
only their messages, pickled and opened as Ray does. CPU time is counted over all threads of the driver, without the stubs' own.
`--ray` puts the stubs into actors; the difference is Ray's own cost. `--memory-over STEPS` runs many quick steps instead and
shows how the driver's memory grows.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from actors.pools.messages import SampledItem
from launch.cli.command import command
from launch.cli.numbers import positive
from launch.cli.options import Parser
from launch.performance.cpu_clock import CpuClock
from launch.performance.report import Figure, add_json, asked, measured, report, write
from launch.performance.stubbed import JUDGE, LEARN, SAMPLE, Actors, RayStub, StubbedRun
from launch.performance.workload import load
from openrs_ray.common.console import show_table
from openrs_ray.config.schema import RunConfig
from openrs_ray.preparation.prepared import Prepared, prepare

PACK, RECORD, METRICS, REST = "packing", "record", "metrics", "bookkeeping"
COMPONENTS = (SAMPLE, JUDGE, PACK, LEARN, RECORD, METRICS, REST)
GOAL_MS = 0.2
_GROUP = 16


@contextmanager
def components(clock: CpuClock) -> Iterator[None]:
    """Counts CPU time of the driver by component while the block runs."""
    from actors.learner import group
    from actors.loop import writer
    from openrs_ray.run.completions import CompletionRecord
    from openrs_ray.run.metrics import MetricsLog

    parts = [
        (SampledItem, "of", JUDGE),
        (group, "training_sequences", PACK),
        (group, "split", PACK),
        (CompletionRecord, "write", RECORD),
        (writer, "step_metrics", METRICS),
        (writer, "task_metrics", METRICS),
        (MetricsLog, "write", METRICS),
    ]
    with ExitStack() as stack:
        for owner, name, component in parts:
            stack.enter_context(clock.patched(owner, name, component))
        yield


def sized(options: argparse.Namespace, completions: int, tokens: int, scratch: Path, steps: int) -> RunConfig:
    fields = {
        "run.folder": scratch,
        "run.name": f"of-{completions}-{time.time_ns()}",
        "run.steps": steps,
        "rollout.problems_per_step": completions // _GROUP,
        "rollout.completions_per_problem": _GROUP,
        "rollout.max_completion_tokens": tokens,
        "rollout.max_uniform_steps": 0,
        "learner.micro_batch_tokens": 64 + max(8192, tokens),
        "learner.logprob_chunk_tokens": 64,
    }
    return load(options, *(f"{name}={value}" for name, value in fields.items()))


def decoding(prepared: Prepared, tokens: int, rounds: int) -> Figure:
    """CPU time of decoding, as the reward pool's process does it, on random completions."""
    rng, count = np.random.default_rng(0), 32
    completions = rng.integers(0, prepared.shape.vocabulary, (count, tokens)).astype(np.int32)
    items = [SampledItem(ids, None, "length", (), "", {}, "") for ids in completions]
    took = []
    for _ in range(rounds + 1):
        began = time.process_time()
        prepared.decoder(items)
        took.append(1000 * (time.process_time() - began) / count)
    return Figure("decoding, in the reward pool's process", "ms/completion", tuple(took[1:]))


class Look(NamedTuple):
    """Memory of the driver after a step."""

    step: int
    own: float
    """MiB that the driver shares with no other process."""
    shared: float
    """MiB that the driver shares, with all pages of Ray's object store that it has touched."""
    objects: int
    """Objects that the garbage collector tracks."""


async def per_completion(
    config: RunConfig, prepared: Prepared, engines: int, rounds: int, actors: Actors | None = None
) -> list[dict[str, float]]:
    """CPU milliseconds per completion in each step after the first, by component."""
    run = StubbedRun(config, prepared, engines, actors=actors)
    completions = config.rollout.problems_per_step * config.rollout.completions_per_problem
    await run.start()
    found = []
    with components(run.clock):
        for _ in range(rounds + 1):
            run.clock.seconds.clear()
            began = time.process_time()
            await run.step()
            took = time.process_time() - began
            parts = dict(run.clock.seconds)
            parts[REST] = took - sum(parts.values())
            found.append({name: 1000 * parts.get(name, 0.0) / completions for name in COMPONENTS})
    await run.close()
    return found[1:]


async def growth(
    config: RunConfig, prepared: Prepared, steps: int, actors: Actors | None = None, looks: int = 20
) -> list[Look]:
    """The driver's memory, measured `looks` times over the steps."""
    run, found = StubbedRun(config, prepared, engines=2, actors=actors), []
    await run.start()
    for step in range(1, steps + 1):
        await run.step()
        if step % max(1, steps // looks) == 0:
            gc.collect()
            size = psutil.Process().memory_info()
            found.append((step, (size.rss - size.shared) / 2**20, size.shared / 2**20, len(gc.get_objects())))
    await run.close()
    return [Look(*look) for look in found]  # made only now, so that they are not counted among the objects


def slope(points: Sequence[tuple[int, float]]) -> float:
    """Growth per step over the second half, as the median slope of all pairs of points (Theil-Sen)."""
    late = points[len(points) // 2 :]
    return median((b - a) / (t - s) for i, (s, a) in enumerate(late) for t, b in late[i + 1 :])


def show(rows: dict[tuple[int, int], list[dict[str, float]]], tokens: int) -> None:
    table = Table(title=f"CPU of the driver, ms per completion of {tokens:,} tokens (median)")
    for heading in ("completions", "engines", *COMPONENTS, "in all"):
        table.add_column(heading, justify="right")
    for (completions, engines), steps in rows.items():
        cells = [f"{median(step[name] for step in steps):.3f}" for name in COMPONENTS]
        table.add_row(f"{completions:,}", str(engines), *cells, f"{median(sum(step.values()) for step in steps):.3f}")
    show_table(Console(highlight=False), table)


def numbers(text: str) -> list[int]:
    """An argparse type."""
    return [positive(part) for part in text.split(",")]


@contextmanager
def actors_of(options: argparse.Namespace) -> Iterator[Actors | None]:
    """Makes actors for the stubs if `--ray` is given; else None."""
    if not options.ray:
        yield None
        return
    import ray

    from actors.cluster.placement import connection

    with connection():
        yield ray.remote(RayStub).options(num_cpus=0, max_concurrency=100_000).remote


def measure_memory(options: argparse.Namespace, scratch: Path, actors: Actors | None) -> None:
    config = sized(options, 2 * _GROUP, 32, scratch, options.memory_over)
    looks = asyncio.run(growth(config, prepare(config), options.memory_over, actors))
    figures = [
        Figure("memory of the driver", "MiB", tuple(look.own for look in looks)),
        Figure("growth, later half", "MiB/1,000 steps", (1000 * slope([(look.step, look.own) for look in looks]),)),
        Figure(
            "objects more, later half", "1/1,000 steps", (1000 * slope([(look.step, look.objects) for look in looks]),)
        ),
        Figure("shared, with Ray's object store", "MiB", tuple(look.shared for look in looks)),
    ]
    report(f"Memory over {options.memory_over:,} steps", asked(options), figures, options.json)


@command
def main(arguments: list[str]) -> int:
    parser = Parser("performance.completions", __doc__)
    parser.add_argument("--completions", type=numbers, default="256,1024,4096,16384", help="in a step, by commas")
    parser.add_argument("--engines", type=numbers, default="1,8,64", help="by commas")
    parser.add_argument("--tokens", type=positive, default=1024, help="of a completion (default: 1024)")
    parser.add_argument("--rounds", type=positive, default=2, help="steps counted, after a first one (default: 2)")
    parser.add_argument("--ray", action="store_true", help="with the stubs in actors")
    parser.add_argument("--memory-over", metavar="STEPS", type=positive, help="measure memory over so many quick steps")
    add_json(parser)
    return measured(_measure, parser.parse_args(arguments))


def _measure(options: argparse.Namespace) -> None:
    options.workload, options.problems, options.set = "tiny", None, []
    with tempfile.TemporaryDirectory() as scratch, actors_of(options) as actors:
        if options.memory_over:
            measure_memory(options, Path(scratch), actors)
            return
        rows = {}
        for completions in options.completions:
            for engines in options.engines:
                config = sized(options, completions, options.tokens, Path(scratch), options.rounds + 1)
                rows[completions, engines] = asyncio.run(
                    per_completion(config, prepare(config), engines, options.rounds, actors)
                )
    show(rows, options.tokens)
    decoded = decoding(prepare(config), options.tokens, options.rounds)
    Console(highlight=False).print(f"{decoded.name}: {median(decoded.values):.3f} {decoded.unit}")
    figures = [
        decoded,
        *(
            Figure(
                f"in all, {completions} completions, {engines} engines",
                "ms/completion",
                tuple(sum(step.values()) for step in steps),
                f"< {GOAL_MS:g}, without Ray",
            )
            for (completions, engines), steps in rows.items()
        ),
        *(
            Figure(
                f"{name}, {completions} completions, {engines} engines", "ms/completion", tuple(s[name] for s in steps)
            )
            for (completions, engines), steps in rows.items()
            for name in COMPONENTS
        ),
    ]
    write("CPU of the driver per completion", asked(options), figures, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
