"""Samples and checks what an evaluation still lacks of one model, on engines that hold the model's own weights.

What ends is checked at once and is on the disk within seconds, so that a kill costs what is in flight and little more.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import ray
from transformers import PreTrainedTokenizerBase

from actors.cluster.placement import Placement, cluster_device, reserve
from actors.rollout.loaded import LoadedWorker
from actors.rollout.pool import EnginePool
from actors.rollout.worker import Request
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.completions import completion_texts
from openrs_ray.errors import RunError
from openrs_ray.evaluation.benchmarks import Task
from openrs_ray.evaluation.check import Answered
from openrs_ray.evaluation.protocol import Protocol
from openrs_ray.evaluation.store import CompletionStore, Done
from openrs_ray.records import Completion
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.single.language import language_share
from openrs_ray.seeds import completion_seed

_WRITE_S = 5.0
"""What has ended is written at least so often."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A completion that is not there yet."""

    benchmark: str
    task: Task
    sample: int

    def seed(self, run_seed: int) -> int:
        """The same whatever else is evaluated with it."""
        return completion_seed(run_seed, f"evaluation/{self.benchmark}", 0, self.task.problem.index, self.sample)


@dataclass(frozen=True)
class Asked:
    """A model and how its prompts end and its completions begin."""

    model_path: str
    eos_ids: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase
    opening: str
    """What the chat template already wrote of every answer."""


def with_all_gpus(config: RunConfig) -> RunConfig:
    """With as many engines as the connected cluster's GPUs allow; unchanged on CPUs."""
    size = config.rollout.tensor_parallel
    gpus = int(ray.cluster_resources().get("GPU", 0.0)) // size * size
    if cluster_device(config) == "cpu" or gpus == 0:
        return config
    return config.model_copy(update={"placement": config.placement.model_copy(update={"num_rollout_gpus": gpus})})


def place_engines(config: RunConfig) -> Placement:
    """Reserve the engines' places alone. UserError when the cluster does not have them."""
    layout = plan_layout(config, cluster_device(config))
    return reserve(config, replace(layout, learner=(), colocated=False, reward_cpus=0))


async def sample(
    config: RunConfig,
    asked: Asked,
    protocol: Protocol,
    wanted: Sequence[Wanted],
    store: CompletionStore,
    pool: CheckPool[Answered],
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> None:
    """Sample all that is wanted, check it and write it.

    Args:
        progress: is told when sampling begins, and now and then how many completions have ended, with how many tokens.
        warn: is told of every engine that is lost.

    Raises:
        RunError: an engine failed, or the deadline passed. What has ended until then is written.
    """
    seeds = [want.seed(config.run.seed) for want in wanted]
    requests = [
        Request(
            i,
            want.sample,
            want.task.problem.prompt_ids,
            seed,
            protocol.temperature,
            protocol.max_tokens,
            protocol.top_p,
        )
        for i, (want, seed) in enumerate(zip(wanted, seeds, strict=True))
    ]
    finished: list[Done] = []
    ended = tokens = 0

    def flush() -> None:
        store.write(finished)
        finished.clear()
        progress(ended, tokens)

    async def check(completion: Completion) -> None:
        nonlocal ended, tokens
        finished.extend(await _checked([completion], wanted, seeds, asked, pool))
        ended, tokens = ended + 1, tokens + len(completion.token_ids)

    async def flush_often() -> None:
        while True:
            await asyncio.sleep(_WRITE_S)
            flush()

    placement = place_engines(config)
    workers = EnginePool(config, placement, asked.model_path, asked.eos_ids, LoadedWorker, warn)
    writer, checks = None, list[asyncio.Task[None]]()
    try:
        await workers.start()
        progress(0, 0)
        writer = asyncio.create_task(flush_often())
        async for completion in workers.completions(requests):
            checks.append(asyncio.create_task(check(completion)))
            if writer.done():
                writer.result()  # a full disk, say
        await asyncio.gather(*checks)
    finally:
        await asyncio.gather(*checks, return_exceptions=True)
        if writer is not None:
            writer.cancel()
        with suppress(RunError):  # the engines end with their places in any case
            await workers.stop()
        placement.release()
        flush()


async def _checked(
    batch: Sequence[Completion],
    wanted: Sequence[Wanted],
    seeds: Sequence[int],
    asked: Asked,
    pool: CheckPool[Answered],
) -> list[Done]:
    decoded = completion_texts([completion.token_ids for completion in batch], asked.tokenizer, asked.eos_ids)
    texts = [asked.opening + text for text in decoded]
    tasks = [wanted[completion.position].task for completion in batch]
    answers = [Answered(text, t.problem.gold, t.tolerance) for text, t in zip(texts, tasks, strict=True)]
    verdicts = await pool.judge_many(answers)
    return [
        Done(wanted[c.position].benchmark, task, c, verdict, text, language_share(text, "en"), seeds[c.position])
        for c, task, verdict, text in zip(batch, tasks, verdicts, texts, strict=True)
    ]
