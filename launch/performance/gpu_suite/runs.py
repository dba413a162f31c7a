"""Parts quickstart, one_gpu, one_gpu_asleep and as_published: real runs, with an engine and a learner on the GPU."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from launch.performance.gpu_suite.rows import Row, Size, Skip, noted, true
from launch.performance.models import model_path
from openrs_ray.common.files import read_json
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.preparation.prepared import prepare
from openrs_ray.run.metrics import read_metrics

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
QUICKSTART = {
    "full": ["run.steps=20", "placement.device=gpu", "placement.colocated=true", "engine.gpu_memory_fraction=0.4"],
    "tiny": ["run.steps=1", "evaluation.problems=8", "rollout.problems_per_step=8", "placement.threads=1"],
}
"""As launch/quickstart.sh places it on a GPU; the accuracy has risen after 20 steps."""
_ONE_GPU = {
    "full": ["model.path={random-0.5b}"],
    "tiny": [
        "model.path={tiny}", "model.dtype=float32", "placement.device=cpu", "placement.cpus_per_slot=0.5",
        "placement.threads=1", "rollout.problems_per_step=4", "rollout.completions_per_problem=4",
        "rollout.max_prompt_tokens=192", "rollout.max_completion_tokens=32", "engine.cpu_cache_gib=0.05",
        "learner.micro_batch_tokens=512",
    ],
}  # fmt: skip
"""A random model of the recipe's size, since the recipe's own may be out of reach; answers are paid by a coin."""
_OFFLINE = [
    "data.path=toy", "data.subset=null", "evaluation.path=null",
    "data.columns={problem: problem, answer: answer}", "push.probe_every=1", "rewards.processes=1",
]  # fmt: skip
ASLEEP = ["rollout.sleep_while_learning=true", "engine.gpu_memory_fraction=0.5"]


def quickstart(size: Size) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        changes = [f"--{change}" for change in (f"run.folder={folder}", *QUICKSTART[size])]
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "launch.train", str(RECIPES / "quickstart.yaml"), *changes], check=False
        )
        if done.returncode:
            raise RunError(f"the quickstart ended with exit code {done.returncode}: its own words are in the log")
        yield noted("whole run", time.monotonic() - began, "s")
        run = Path(folder) / "quickstart"
        yield from _steps(read_metrics(run), size)
        result = read_json(run / "result.json") or {}
    before, after = result["before"], result["after"]
    shown = f"{100 * before['mean']:.1f} -> {100 * after['mean']:.1f} %"
    yield (
        true("accuracy has risen", after["low"] > before["high"], shown) if size == "full" else noted("accuracy", shown)
    )


def one_gpu(size: Size) -> Iterator[Row]:
    yield from _three_steps(size)


def one_gpu_asleep(size: Size) -> Iterator[Row]:
    if size == "tiny":
        one_gpu_config(size, *ASLEEP)
        raise Skip("needs a GPU: an engine on a CPU has no memory to give; one_gpu runs the same code")
    yield from _three_steps(size, *ASLEEP)


def _three_steps(size: Size, *changes: str) -> Iterator[Row]:
    from launch.performance.step import train

    with tempfile.TemporaryDirectory() as folder:
        config = one_gpu_config(size, f"run.folder={folder}", f"run.steps={3 if size == 'full' else 1}", *changes)
        began = time.monotonic()
        seconds, _ = train(config, prepare(config))
        yield noted("start, to the first step, and end", time.monotonic() - began - sum(seconds), "s")
        yield from _steps(read_metrics(config.run.path), size)


def one_gpu_config(size: Size, *changes: str) -> RunConfig:
    """The recipe one-gpu.yaml with a model and problems that need no network."""
    name = "random-0.5b" if size == "full" else "tiny"
    fields = [change.replace("{" + name + "}", str(model_path(name))) for change in _ONE_GPU[size]]
    return load_config(RECIPES / "one-gpu.yaml", [f"--{field}" for field in (*_OFFLINE, *fields, *changes)])


def _steps(metrics: list[dict[str, Any]], size: Size) -> Iterator[Row]:
    yield noted("steps", len(metrics))
    for name in ("step_s", "collect_s", "train_s", "push_s"):
        yield noted(f"median {name}", median(line[name] for line in metrics), "s")
    probes = [line["probe_difference"] for line in metrics if line.get("probe_difference") is not None]
    yield noted("largest difference on the probe", max(probes, default="not probed"))
    # That the engine samples from what is trained; the run itself ends where it is far off.
    yield noted("largest divergence of sampler and learner", max(float(line["mismatch_kl"]) for line in metrics))
    yield true("every gradient is finite and none is zero", all(0 < line["grad_norm"] < 1e6 for line in metrics))


def as_published(size: Size) -> Iterator[Row]:
    """No learner: the engine's warm-up with raw log-probabilities is what is in question."""
    from launch.performance.workload import placed, requests

    config = one_gpu_config(size, "fidelity=as_published")
    prepared = prepare(config)

    async def run() -> tuple[float, float, int]:
        from actors.rollout.loaded import LoadedWorker
        from actors.rollout.pool import EnginePool
        from actors.rollout.settings import EngineSettings

        settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
        workers = EnginePool(settings, placement, LoadedWorker)
        began, tokens = time.monotonic(), 0
        try:
            await workers.start()
            ready = time.monotonic()
            async for completion in workers.completions(requests(config, prepared, 1)):
                tokens += len(completion.token_ids)
            return ready - began, time.monotonic() - ready, tokens
        finally:
            await workers.stop()

    with placed(config) as placement:
        start_s, sample_s, tokens = asyncio.run(run())
    yield noted("start", start_s, "s")
    yield true(f"samples the {config.completions_per_step} completions of a step", tokens > 0, f"{tokens:,} tokens")
    yield noted("speed", tokens / sample_s, "tokens/s")
