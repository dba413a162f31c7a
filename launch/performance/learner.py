"""`python -m launch.performance.learner`: tokens per second, MFU and memory of one learner rank, in one or several variants.

A step is --sequences of --tokens random tokens, a sixteenth of them prompt, forward, backward and AdamW. MFU counts
6 x parameters x tokens over the time and the GPU's peak FLOP/s, and neither attention nor recomputation. Variants are run
one after the other, each in a process of its own; the first is the baseline. Which of two settings is faster:
    --variant learner.gradient_checkpointing=true --variant learner.gradient_checkpointing=false
The paper's shape on GPUs of 44 GiB: --sequences 24 --tokens 4096 --memory-cap-gib 44. Dry run: `--workload tiny --tokens 128`.
"""

import asyncio
import sys
from argparse import Namespace
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from launch.cli.command import command
from launch.cli.numbers import positive
from launch.performance.report import Figure, asked, measured, ratios, write
from launch.performance.workload import load, make_parser, placed
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.common.console import show_table
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError

_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Measured:
    seconds: list[float]
    parameters: int
    peak_gib: float | None


def sequences(count: int, tokens: int, vocabulary: int) -> list[TrainingSequence]:
    """Random ones; each sampled token as likely as any other, as a model of random weights has it."""
    rng = np.random.default_rng(0)
    prompt, likely = max(1, tokens // 16), np.float32(-np.log(vocabulary))
    return [
        TrainingSequence(
            rng.integers(0, vocabulary, prompt).astype(np.int32),
            rng.integers(0, vocabulary, tokens - prompt).astype(np.int32),
            np.full(tokens - prompt, likely),
            1.0 if i % 2 else -1.0,
        )
        for i in range(count)
    ]


def variant_config(options: Namespace, variant: str) -> RunConfig:
    prompt = max(1, options.tokens // 16)
    sizes = [f"rollout.max_prompt_tokens={prompt}", f"rollout.max_completion_tokens={options.tokens - prompt}"]
    cap = [f"placement.gpu_memory_gib={options.memory_cap_gib}"] if options.memory_cap_gib else []
    changed = Namespace(**vars(options) | {"set": [*options.set, *variant.split()]})
    return load(changed, *sizes, *cap)


def measure_one(config: RunConfig, options: Namespace) -> Measured:
    from launch.performance.parts import start_rank, train
    from openrs_ray.models.bundled import resolve_model
    from openrs_ray.models.pretrained import read_config

    model = resolve_model(config.model.path)
    batch = sequences(options.sequences, options.tokens, read_config(model).vocab_size)

    async def run() -> Measured:
        rank = await start_rank(config, model, placement, options.memory_cap_gib)
        try:
            seconds = [await train(rank, config, batch) for _ in range(_WARM_UP + options.steps)]
            return Measured(seconds[_WARM_UP:], await rank.call("size"), await rank.call("peak_gib"))
        finally:
            rank.end()

    with placed(config) as placement:
        if options.memory_cap_gib and placement.layout.device == "cpu":
            raise UserError("--memory-cap-gib caps a GPU's memory and there is none: leave it out")
        return asyncio.run(run())


def figures(measured: dict[str, Measured], tokens: int, peak_flops: float) -> dict[str, list[Figure]]:
    """Per variant: tokens/s, that over the first variant's, MFU and, on a GPU, peak memory."""
    made, first = {}, next(iter(measured.values()))
    for name, one in measured.items():
        speed = [tokens / seconds for seconds in one.seconds]
        made[name] = [
            Figure(f"{name}: speed", "tokens/s", tuple(speed)),
            ratios(f"{name}: speed / baseline", speed, [tokens / seconds for seconds in first.seconds]),
            Figure(f"{name}: MFU", "%", tuple(100 * 6 * one.parameters * value / peak_flops for value in speed)),
        ]
        if one.peak_gib is not None:
            made[name].append(Figure(f"{name}: peak memory", "GiB", (one.peak_gib,)))
    return made


def table(title: str, made: dict[str, list[Figure]]) -> Table:
    """One row per variant, with the spread of its speed; the other columns are medians."""
    shown = Table(title=title)
    shown.add_column("variant")
    for heading in ("tokens/s", "smallest", "largest", "/ first row", "MFU %", "peak GiB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, of in made.items():
        speed, *others = of
        values = (median(speed.values), min(speed.values), max(speed.values), *(median(f.values) for f in others))
        shown.add_row(name, *(f"{value:,.4g}" for value in values))
    return shown


@command
def main(arguments: list[str]) -> int:
    parser = make_parser("learner", __doc__, "steps", 5)
    parser.add_argument("--sequences", type=positive, default=16, help="sequences per step (default: 16)")
    parser.add_argument("--tokens", type=positive, default=4096, help="tokens of each (default: 4096)")
    parser.add_argument("--variant", action="append", metavar="'FIELD=VALUE ...'", help="settings to compare")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU in bf16 (default: 989, an H100)")
    parser.add_argument("--memory-cap-gib", type=float, help="let the rank have only so much of its GPU")
    options = parser.parse_args(arguments)
    if options.tokens < 2:
        parser.error("--tokens must be at least 2: a prompt token and a completion token")
    return measured(_measure, options)


def _measure(options: Namespace) -> None:
    configs = {name: variant_config(options, name) for name in options.variant or [""]}
    console = Console(highlight=False)
    measured: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    for name, config in configs.items():
        try:
            measured[name or "as set"] = measure_one(config, options)
        except RunError as error:  # out of memory, say: the other variants are still worth knowing
            failed[name] = str(error)
            console.print(f"{name or 'as set'}: {error}", markup=False, soft_wrap=True)
    if not measured:
        raise RunError("no variant went through")
    made = figures(measured, options.sequences * options.tokens, options.peak_tflops * 1e12)
    title = f"Learner: {options.workload}, {options.sequences} sequences of {options.tokens} tokens per step"
    show_table(console, table(title, made))
    flat = [figure for of in made.values() for figure in of]
    write(title, asked(options) | {"failed": failed}, flat, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
