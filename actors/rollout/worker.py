"""A rollout worker: one vLLM engine in one Ray actor. Token ids in, completions out."""

import asyncio
import gc
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from actors.cluster.processes import Processes, own_processes
from actors.rollout.engine_log import OwnLog
from actors.rollout.quantization import quantized
from actors.rollout.settings import EngineSettings
from actors.rollout.stages import record_stages
from actors.weights.transport import PushGroup
from openrs_ray.common.foreign import why
from openrs_ray.common.last_error import last_error
from openrs_ray.common.private_folder import private_folder
from openrs_ray.errors import EngineDied, Lost, Recurring, RunError
from openrs_ray.records import Completion, Message, VersionSpan
from openrs_ray.run.spans import traced
from openrs_ray.weights.buckets import Bucket

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput

T = TypeVar("T")

_BATCH_WINDOW_S = 0.02  # completions that end within this time of each other leave together

_LIVENESS_S = 0.5  # between two looks at the engine: vLLM leaves some calls waiting for a dead one


@dataclass(frozen=True, slots=True)
class Request(Message):
    """Example: Request(position=40, sample=3, prompt_ids=(1, 9, 4), seed=77, temperature=1.0, max_tokens=128)"""

    position: int
    sample: int
    prompt_ids: tuple[int, ...]
    seed: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    """Below 1 in evaluations only: training on a truncated distribution would bias the ratio."""


class RolloutWorker:
    """Life cycle: start(), join_push() per learner, then pushes (begin_push, receive, end_push), overlapping sample().

    Nothing is sampled between begin_push and end_push, nor between sleep() and the push after wake(). No use after a failed push.
    """

    worker_extension = "actors.weights.receiver.WorkerExtension"
    holds_weights = False
    """True if the engine starts with a model's own weights."""

    def __init__(self, settings: EngineSettings, worker: int, device: str) -> None:
        self._settings = settings
        self._worker = worker
        self._device = device
        self._engine: Any = None
        self._log = OwnLog()
        self._requests = 0
        self._pushes = 0
        self._pushing = False  # between begin_push and end_push
        self._in_hand: set[asyncio.Task[None]] = set()
        self._admitting = asyncio.Lock()  # the pause of a push must not end with that of an admission

    async def processes(self) -> Processes:
        return own_processes()

    async def answers(self) -> None:
        """Return when the engine has answered; Lost when it is dead."""
        await self._alive(self._engine.is_paused())

    async def start(self) -> None:
        """RunError with vLLM's reason; Recurring if it refuses the settings."""
        os.environ.setdefault("VLLM_RPC_BASE_PATH", str(private_folder()))  # for its sockets, which it leaves behind
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from actors.rollout.front_end import only_ends, silent_statistics

        try:
            arguments = AsyncEngineArgs(**self._engine_arguments())
            self._engine = AsyncLLM.from_engine_args(arguments, stat_loggers=[silent_statistics()])
            only_ends(self._engine)
            gc.freeze()  # otherwise a collection goes through all imported objects, for 0.3 s, in the middle of a step
        except (RuntimeError, ValueError, OSError) as error:
            kind = Recurring if isinstance(error, ValueError) else RunError
            own, where = self._log.last_error()
            reason = own or last_error(f"{type(error).__name__}: {error}") or why(error)
            raise kind(f"rollout worker {self._worker} could not start its vLLM engine: {reason}{where}") from error

    def _capability(self) -> int | None:
        """The GPU's compute capability, 89 for 8.9; None on a CPU."""
        from vllm.platforms import current_platform

        found = None if self._device == "cpu" else current_platform.get_device_capability()
        return None if found is None else int(found.to_int())

    def _engine_arguments(self) -> dict[str, Any]:
        settings, engine = self._settings, self._settings.engine
        arguments: dict[str, Any] = {
            "model": settings.model_path,
            "trust_remote_code": False,
            "skip_tokenizer_init": True,
            "load_format": "dummy",
            "dtype": settings.dtype,
            "max_model_len": settings.max_sequence_tokens,
            "max_num_seqs": engine.max_sequences,
            "max_num_batched_tokens": engine.max_batched_tokens,
            "tensor_parallel_size": engine.tensor_parallel,
            "seed": settings.seed,
            "logprobs_mode": "processed_logprobs" if settings.tempered else "raw_logprobs",
            "generation_config": "vllm",
            "enable_prefix_caching": True,
            "enforce_eager": engine.enforce_eager or self._device == "cpu",
            "weight_transfer_config": {"backend": "openrs"},
            "worker_extension_cls": self.worker_extension,
            "scheduler_cls": "actors.rollout.scheduler.scheduler",
            "disable_log_stats": False,  # or requests have no times: see `silent_statistics`
            "enable_log_requests": False,
        }
        if engine.tensor_parallel > 1:
            arguments["distributed_executor_backend"] = "mp"  # inside a placement group vLLM would start Ray workers
        if self._device == "cpu":
            arguments["kv_cache_memory_bytes"] = int(engine.cpu_cache_gib * 2**30)
            # A prompt prefilled in parts takes its seeded generator back by an offset that CPU generators do not have.
            arguments["enable_chunked_prefill"] = False
            arguments["max_num_batched_tokens"] = max(settings.max_sequence_tokens, engine.max_batched_tokens)
        else:
            arguments["gpu_memory_utilization"] = engine.gpu_memory_fraction
            arguments["enable_sleep_mode"] = settings.sleeps
        if settings.quantization != "none":
            arguments |= quantized(settings.quantization, self._capability())
        return arguments

    async def sample(self, requests: Sequence[Request]) -> AsyncIterator[list[tuple[int, Completion]]]:
        """Completions in small batches as they end, each with its request's number."""
        done: asyncio.Queue[tuple[int, Completion] | BaseException] = asyncio.Queue()
        async with self._admitting:
            queues = await self._alive(self._admit_all(requests))
            tasks = [
                asyncio.create_task(self._collect(number, request, queue, done))
                for number, (request, queue) in enumerate(zip(requests, queues, strict=True))
            ]
            self._in_hand.update(tasks)
        every = asyncio.gather(*tasks, return_exceptions=True)
        try:
            left = len(tasks)
            while left:
                batch = [await self._alive(done.get())]
                await asyncio.wait({every}, timeout=_BATCH_WINDOW_S)
                while not done.empty():
                    batch.append(done.get_nowait())
                left -= len(batch)
                for item in batch:
                    if isinstance(item, BaseException):
                        raise item
                yield [item for item in batch if not isinstance(item, BaseException)]
        finally:
            for task in tasks:
                task.cancel()
            self._in_hand.difference_update(tasks)

    @traced("admit")
    async def _admit_all(self, requests: Sequence[Request]) -> list[Any]:
        """Hand all requests to the engine; an idle one clears its caches first and begins when it has them all."""
        # Which requests share a batch or a cached prefix, and with it the rounding, then depends neither on the past nor on the
        # moment: a run of staleness 0 repeats bit for bit on a CPU, resumed or not.
        if self._pushing or any(not task.done() for task in self._in_hand):
            return [await self._admit(request) for request in requests]
        try:
            await self._pause(clear_cache=True)
            return [await self._admit(request) for request in requests]
        finally:  # an error or a cancellation in between must not leave the engine paused
            await self._engine.resume_generation()

    async def _pause(self, clear_cache: bool) -> None:
        # Not `pause_generation`, which sleeps for 20 ms so that ended requests are delivered first.
        await self._engine.engine_core.pause_scheduler_async(mode="keep", clear_cache=clear_cache)

    async def _admit(self, request: Request) -> Any:
        from vllm.inputs.engine import tokens_input  # already rendered, which spares a change of threads

        from actors.rollout.front_end import keep_arrays

        self._requests += 1
        # The salt keeps a prompt from matching prefix-cache entries of an older policy.
        prompt = tokens_input(list(request.prompt_ids), cache_salt=str(self._pushes))
        name = f"{request.position}-{request.sample}-{self._requests}"
        queue = await self._engine.add_request(name, prompt, self._sampling(request))
        keep_arrays(self._engine, queue.request_id)
        return queue

    def _sampling(self, request: Request) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=request.seed,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,
            stop_token_ids=list(self._settings.end_ids),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _collect(self, number: int, request: Request, queue: Any, done: "asyncio.Queue[Any]") -> None:
        try:
            output: RequestOutput = await queue.get()
            record_stages(request.position, request.sample, output)
            await done.put((number, self._completion(request, output)))
        except RunError as error:
            await done.put(error)
        except Exception as error:  # handed to sample(), which raises it in the caller
            if self._engine is None or self._engine.errored:
                await done.put(self._died())
            else:  # another engine would do no better
                where = self._log.last_error()[1]
                await done.put(RunError(f"rollout worker {self._worker} failed to sample: {error}{where}"))

    def _completion(self, request: Request, output: "RequestOutput") -> Completion:
        result = output.outputs[0]
        if result.finish_reason not in ("stop", "length"):
            raise RunError(
                f"rollout worker {self._worker} ended completion {request.sample} of position {request.position} "
                f"with finish reason {result.finish_reason!r}"
            )
        spans = tuple(VersionSpan(int(span.version), span.start, span.end) for span in result.weight_versions or ())
        covered = sum(span.end - span.start for span in spans)
        if covered != len(result.token_ids):
            raise RunError(
                f"rollout worker {self._worker} sampled {covered} of {len(result.token_ids)} tokens with a policy version that "
                f"is known; its spans are {spans}"
            )
        return Completion(
            position=request.position,
            sample=request.sample,
            token_ids=np.asarray(result.token_ids, dtype=np.int32),
            logprobs=np.concatenate(result.logprobs).astype(np.float32, copy=False),
            finish_reason=result.finish_reason,
            versions=spans,
            worker=self._worker,
        )

    @traced("score")
    async def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[np.ndarray]:
        """Log-probabilities (temperature 1) under the engine's weights, float32 [completion tokens] per sequence.

        `sequences`: (prompt ids, completion ids) pairs.
        """
        async with self._admitting:  # an idle engine's admission would pause it and clear its caches meanwhile
            scores = asyncio.gather(*(self._score(prompt, completion) for prompt, completion in sequences))
            return list(await self._alive(scores))

    async def _score(self, prompt: Sequence[int], completion: Sequence[int]) -> np.ndarray:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._requests += 1
        ids = [*map(int, prompt), *map(int, completion)]
        sampling = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        async for output in self._engine.generate({"prompt_token_ids": ids}, sampling, f"probe-{self._requests}"):
            found = output.prompt_logprobs
        pairs = zip(ids[len(prompt) :], found[len(prompt) :], strict=True)
        return np.array([entry[token].logprob for token, entry in pairs], dtype=np.float32)

    async def join_push(self, group: PushGroup) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        request = WeightTransferInitRequest(init_info=asdict(group))
        await self._alive(self._engine.init_weight_transfer_engine(request))

    async def leave_push(self) -> None:
        await self._alive(self._engine.shutdown_weight_transfer_engine())

    @traced("begin_push")
    async def begin_push(self) -> None:
        """Pause sampling. Requests in flight lose their cache, unless `rollout.keep_cache`."""
        async with self._admitting:
            self._pushing = True
        self._pushes += 1
        clear = not self._settings.keep_cache
        await self._alive(self._pause(clear))
        await self._alive(self._engine.start_weight_update())

    @traced("receive")
    async def receive(self, buckets: Sequence[Bucket], parcel: Any) -> None:
        """Receive buckets on every worker of the engine."""
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        info = {"buckets": [bucket.plain() for bucket in buckets], "parcel": parcel}
        update = self._engine.update_weights(WeightTransferUpdateRequest(update_info=info))
        await asyncio.wait_for(self._alive(update), self._settings.answer_s)

    @traced("end_push", "version")
    async def end_push(self, version: int) -> list[dict[str, Any]]:
        """Put the weights in place and resume sampling. Returns every worker's receipt."""
        await self._alive(self._engine.finish_weight_update(str(version)))
        receipts: list[dict[str, Any]] = await self._alive(self._engine.collective_rpc("push_receipt"))
        await self._alive(self._engine.resume_generation())
        self._pushing = False
        return receipts

    async def give_up(self) -> None:
        """Drop everything that is being sampled."""
        await self._alive(self._engine.pause_generation(mode="abort"))
        await self._alive(self._engine.resume_generation())
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=_LIVENESS_S)  # until the engine counts as idle

    @traced("sleep")
    async def sleep(self) -> None:
        """Give up the GPU memory of weights and caches."""
        await self._alive(self._engine.sleep(level=2, mode="keep"))

    @traced("wake")
    async def wake(self) -> None:
        """Take the memory back, empty until a push."""
        await self._alive(self._engine.wake_up())

    async def _alive(self, call: Awaitable[T]) -> T:
        """The call's result, or Lost as soon as the engine's process is dead."""
        from vllm.v1.engine.exceptions import EngineDeadError

        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=_LIVENESS_S)
                if not task.done() and self._engine.errored:
                    raise self._died()
            return task.result()
        except EngineDeadError as error:
            raise self._died() from error
        finally:
            task.cancel()

    def _died(self) -> Lost:
        error, where = self._log.last_error()  # vLLM's own error gives no reason
        if error is None:
            return Lost(f"rollout worker {self._worker} lost its engine: its process died without an error{where}")
        return EngineDied(self._worker, error, where)

    async def stop(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None
        shutil.rmtree(private_folder(), ignore_errors=True)
