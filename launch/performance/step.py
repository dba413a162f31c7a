"""`python -m launch.performance.step`: whole steps of this system against TRL's, and against its own parts alone.

On one GPU, one after the other: the real loop with engine and learner on it; raw vLLM and a learner rank by themselves,
on the same requests; TRL 1.16.0 (`--no-trl` leaves it out) in the settings of trl_run.py, of which the best one counts.
All do the same work; each answer is checked, then paid by a coin, so that every group has something to learn (random
weights are never right). The first two steps of each are not counted. On a CPU, TRL generates with plain transformers:
`--workload toy` is the quickstart's batch, `--workload tiny --steps 2` a dry run.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from launch.cli.command import command
from launch.performance.report import Figure, asked, measured, ratios, report
from launch.performance.trl_run import SETTINGS
from launch.performance.workload import drawn, load, make_parser, placed, requests
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.prompts import messages
from openrs_ray.errors import RunError, UserError
from openrs_ray.preparation.prepared import Prepared, prepare
from openrs_ray.run.metrics import read_metrics

_WARM_UP = 2
_PARTS = ("collect_s", "train_s", "push_s")
_TARGETS = {"random-1.5b": ">= 1.8", "smollm2": ">= 3", "toy": ">= 1.25"}
_TRL = "1.16.0"
_TRL_DEADLINE_S = 3600.0


def check_trl() -> None:
    """UserError when TRL is not there as it should be compared with: in its version, with its kernels where there is a GPU."""
    needed = ["trl", "accelerate", *(["liger_kernel"] if torch.cuda.is_available() else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if not missing and metadata.version("trl") != _TRL:
        missing = [f"trl {_TRL}, not {metadata.version('trl')}"]
    if missing:
        raise UserError(
            f"the comparison with TRL needs {', '.join(missing)}: run `bash launch/setup.sh trl`, or leave it out with --no-trl"
        )


def train(config: RunConfig, prepared: Prepared) -> tuple[list[float], bool]:
    """Seconds of every step of the real loop, paid by a coin, and whether it ran on a GPU; the rest is in the run's folder."""
    from actors.loop.limits import Limits
    from actors.loop.system import System
    from launch.performance.parts import CoinPool
    from openrs_ray.run.budget import Budget
    from openrs_ray.run.display import RunDisplay
    from openrs_ray.run.resume import begin_run

    async def run() -> list[float]:
        seconds, budget = [], Budget(config)
        system = System(config, prepared, placement, display, budget, Limits(budget), reward_class=CoinPool)
        try:
            loop = await system.start()
            for _ in range(config.run.steps):  # not run(), which would end with a checkpoint of all the state
                started = time.perf_counter()
                await loop.step()
                seconds.append(time.perf_counter() - started)
        finally:
            await system.close()
        return seconds

    config.run.path.mkdir(parents=True)
    begin_run(config, prepared.summary())
    console = Console(stderr=True, highlight=False)
    with placed(config) as placement, RunDisplay(config.run.name, config.run.steps, console) as display:
        return asyncio.run(run()), placement.layout.device == "gpu"


def system(config: RunConfig, prepared: Prepared) -> tuple[list[float], list[dict[str, Any]], bool]:
    """Seconds of every counted step of the real loop, what the run wrote of them, and whether it ran on a GPU."""
    seconds, on_gpu = train(config, prepared)
    return seconds[_WARM_UP:], read_metrics(config.run.path)[_WARM_UP:], on_gpu


def alone(config: RunConfig, prepared: Prepared) -> tuple[list[float], list[float]]:
    """Seconds per counted step of raw vLLM, and of a learner rank on what it sampled."""
    from launch.performance.parts import start_rank, start_raw
    from launch.performance.parts import train as train_rank

    async def run() -> tuple[list[float], list[float]]:
        engine = await start_raw(config, prepared, placement)
        sampled = [
            await engine.call("sample", requests(config, prepared, step + 1)) for step in range(config.run.steps)
        ]
        await engine.call("stop")
        engine.end()
        rank = await start_rank(config, prepared.model_path, placement)
        trained = [await train_rank(rank, config, sequences) for _, sequences in sampled]
        rank.end()
        return [seconds for seconds, _ in sampled][_WARM_UP:], trained[_WARM_UP:]

    with placed(config) as placement:
        return asyncio.run(run())


def trl_job(config: RunConfig, prepared: Prepared, on_gpu: bool) -> dict[str, Any]:
    """Job of `trl_run`; one step more than ours, since it measures from the end of one step to the end of the next."""
    rollout, steps = config.rollout, config.run.steps + 1
    return {
        "model": prepared.model_path,
        "gpu": on_gpu,
        "threads": config.threads,
        "steps": steps,
        "rows": [
            {"prompt": messages(config.task(problem.task).data, problem.text), "gold": list(problem.gold)}
            for step in range(steps)
            for _, problem in drawn(config, prepared, step + 1)
        ],
        "opening": prepared.opening,
        "reward_weights": config.rewards.weights,
        "extraction": config.rewards.extraction,
        "learning_rate": config.learner.learning_rate,
        "max_sequence_tokens": config.max_sequence_tokens,
        "gpu_memory_fraction": config.engine.gpu_memory_fraction,
        **rollout.model_dump(
            include={"problems_per_step", "completions_per_problem", "max_completion_tokens", "temperature"}
        ),
    }


def trl(
    job: dict[str, Any], settings: Sequence[str], folder: Path
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """Seconds and sampled tokens of TRL's counted steps in these settings, and which failed (out of memory, say), and how."""
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    from actors.cluster.placement import GPU_SAMPLER

    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = os.environ | GPU_SAMPLER | {"CUDA_VISIBLE_DEVICES": first}
    if not job.get("gpu", True):
        environment |= {"OMP_NUM_THREADS": str(job["threads"])}  # as many as this system's engine and learner have
    measured, failed = {}, {}
    for setting in settings:
        result, log = folder / f"{setting}.json", folder / f"{setting}.log"
        run = [sys.executable, "-m", "launch.performance.trl_run", str(folder / "job.json"), setting, str(result)]
        try:
            with log.open("wb") as output:
                subprocess.run(run, stdout=output, stderr=output, env=environment, timeout=_TRL_DEADLINE_S, check=True)
        except subprocess.SubprocessError as error:
            lines = log.read_text(errors="replace").split("\n")
            failed[setting] = f"{type(error).__name__}: {next(filter(None, reversed(lines)), '')}"
        else:
            found = json.loads(result.read_text(encoding="utf-8"))
            measured[setting] = {name: values[_WARM_UP:] for name, values in found.items()}
    if not measured:
        raise RunError(f"TRL went through in none of its settings: {failed}")
    return measured, failed


def against_parts(ours: Sequence[float], generation: Sequence[float], learning: Sequence[float]) -> list[Figure]:
    both = [a + b for a, b in zip(generation, learning, strict=True)]
    return [
        Figure("raw vLLM alone", "s/step", tuple(generation)),
        Figure("learner alone", "s/step", tuple(learning)),
        ratios("this system / both alone", ours, both, "<= 1.1"),
    ]


def per_1000(seconds: Sequence[float], tokens: Sequence[float]) -> list[float]:
    return [1000 * s / n for s, n in zip(seconds, tokens, strict=True)]


@command
def main(arguments: list[str]) -> int:
    parser = make_parser("step", __doc__, "steps", 10)
    parser.add_argument("--no-trl", action="store_true", help="leave TRL out")
    parser.add_argument("--trl-setting", action="append", choices=list(SETTINGS), help="only this one (default: all)")
    parser.add_argument("--no-alone", action="store_true", help="leave out raw vLLM and a learner rank by themselves")
    return measured(_measure, parser.parse_args(arguments))


def _measure(options: Namespace) -> None:
    if not options.no_trl:
        check_trl()
    with tempfile.TemporaryDirectory() as scratch:
        config = load(options, f"run.folder={scratch}", f"run.steps={_WARM_UP + options.steps}")
        prepared = prepare(config)
        ours, written, on_gpu = system(config, prepared)
        apart = None if options.no_alone else alone(config, prepared)
        settings = options.trl_setting or list(SETTINGS)
        job = trl_job(config, prepared, on_gpu)
        measured, failed = ({}, {}) if options.no_trl else trl(job, settings, Path(scratch))
    ours_1000 = per_1000(ours, [line["sampled_tokens"] for line in written])
    figures = [
        Figure("this system", "s/step", tuple(ours)),
        *(Figure(f"of it, {name}", "s/step", tuple(line[name] for line in written)) for name in _PARTS),
        *(against_parts(ours, *apart) if apart else ()),
        Figure("this system", "s/1,000 tokens", tuple(ours_1000)),
    ]
    for setting, found in measured.items():
        figures.append(Figure(f"TRL, {setting}", "s/step", tuple(found["seconds"])))
        figures.append(Figure(f"TRL, {setting}", "s/1,000 tokens", tuple(per_1000(**found))))
    if measured:
        best = min(measured.values(), key=lambda found: median(per_1000(**found)))
        target = _TARGETS.get(options.workload, "")
        figures += [
            ratios("steps/s, this system / best TRL", best["seconds"], ours, target),
            ratios("tokens/s, this system / best TRL", per_1000(**best), ours_1000, target),
        ]
    about = asked(options) | {"trl_settings": SETTINGS, "trl_failed": failed}
    report(f"Whole steps: {options.workload}", about, figures, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
