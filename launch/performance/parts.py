"""Parts of the system by themselves, in Ray actors: an engine with the model's own weights, raw vLLM, a measured
learner rank, and a reward pool that pays by a coin."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import torch

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.learner.rank import LearnerRank
from actors.pools.reward import RewardPool
from actors.rollout.loaded import LoadedWorker
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from launch.performance.trl_run import coin
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.packing import split
from openrs_ray.config.schema import RunConfig
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Verdict
from openrs_ray.rewards.records import JudgeItem

_NOT_RAW = (
    "weight_transfer_config",
    "worker_extension_cls",
    "scheduler_cls",
    "enable_log_requests",
    "disable_log_stats",
)


class RawEngine:
    """`vllm.LLM` with a rollout worker's engine settings and sampling parameters, and nothing else of it."""

    def __init__(self, *arguments: Any) -> None:
        self._worker = LoadedWorker(*arguments)

    def start(self) -> None:
        from vllm import LLM

        arguments = self._worker._engine_arguments()
        self._llm = LLM(**{name: value for name, value in arguments.items() if name not in _NOT_RAW})

    def sample(self, requests: Sequence[Request]) -> tuple[float, list[TrainingSequence]]:
        """Seconds, and what was sampled, with made-up advantages."""
        prompts = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
        sampling = [self._worker._sampling(request) for request in requests]
        self._llm.reset_prefix_cache()  # as a rollout worker does before every step
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
        results = [output.outputs[0] for output in outputs]
        return seconds, [
            TrainingSequence(
                np.asarray(request.prompt_ids, dtype=np.int32),
                np.asarray(result.token_ids, dtype=np.int32),
                np.asarray(result.logprobs.logprobs, dtype=np.float32),
                1.0 if request.sample % 2 else -1.0,
            )
            for request, result in zip(requests, results, strict=True)
        ]

    def stop(self) -> None:
        """End the engine's own process."""
        self._llm.llm_engine.engine_core.shutdown()


class CoinPool(RewardPool):
    """Judges for real, then pays by a coin instead: random weights are never right, and equal rewards teach nothing."""

    async def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        verdicts = await super().judge(items)
        return [replace(verdict, reward=coin(item.text)) for verdict, item in zip(verdicts, items, strict=True)]


class MeasuredRank(LearnerRank):
    """A learner rank, the only one, that says how much memory it took."""

    def limit(self, gib: float) -> None:
        """Let this process have only so much of its GPU."""
        total = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total, self.device)

    def size(self) -> int:
        """Parameters of the model."""
        return sum(np.prod(spec.shape, dtype=int) for spec in self.parameter_specs())

    def peak_gib(self) -> float | None:
        """The most that torch has held of the GPU; None on a CPU."""
        return torch.cuda.max_memory_reserved(self.device) / 2**30 if self.device.type == "cuda" else None


class Alone:
    """One of these actors, every call of which has a deadline."""

    def __init__(self, kind: type, options: dict[str, Any], deadline_s: float, *arguments: Any) -> None:
        self._deadline_s = deadline_s
        self._who = kind.__name__
        self._actor = ray.remote(kind).options(**options).remote(*arguments)

    async def call(self, method: str, *arguments: Any) -> Any:
        reference = getattr(self._actor, method).remote(*arguments)
        return await within(self._deadline_s, self._who, method, reference)

    def end(self) -> None:
        ray.kill(self._actor)


async def start_raw(config: RunConfig, prepared: Prepared, placement: Placement) -> Alone:
    """On the learner's place, so that a rollout worker may run beside it, in an engine's environment."""
    options = placement.learner_options(0) | {"runtime_env": placement.rollout_options(0)["runtime_env"]}
    settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
    engine = Alone(RawEngine, options, config.learner.deadline_s, settings, 0, placement.layout.device)
    await engine.call("start")
    return engine


async def start_rank(
    config: RunConfig, model_path: str, placement: Placement, memory_cap_gib: float | None = None
) -> Alone:
    device = "cpu" if placement.layout.device == "cpu" else "cuda:0"
    deadline_s = config.learner.deadline_s
    rank = Alone(MeasuredRank, placement.learner_options(0), deadline_s, config, model_path, 0, 1, device)
    if memory_cap_gib is not None:
        await rank.call("limit", memory_cap_gib)
    await rank.call("start", *await rank.call("address"))
    return rank


async def train(rank: Alone, config: RunConfig, sequences: Sequence[TrainingSequence]) -> float:
    """Seconds of an optimizer step on these sequences, from handing them over to having its metrics."""
    batches = split(sequences, 1, micro_batch_tokens=config.learner.micro_batch_tokens)[0]
    tokens = sum(len(sequence.completion_ids) for sequence in sequences)
    started = time.perf_counter()
    await rank.call("train_step", batches, tokens, 1)
    return time.perf_counter() - started
