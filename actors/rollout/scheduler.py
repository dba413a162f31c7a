"""vLLM's scheduler, but tokens leave the engine's process many at a time: nobody reads a completion before it ends.

Handed over one by one, every token costs encoding, decoding and processing (10 us in all, of one CPU of the front end and one
of the engine). A request's first token leaves at once, since the times of its stages are noted when it arrives.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from vllm.config import VllmConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

_MOST_HELD = 128
"""Tokens of one request: some 0.6 kB each are kept for them."""


class _Holding(Scheduler):
    """Holds a request's tokens until it ends, or a pause begins: the next ones may be of another policy version."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._held: dict[str, list[EngineCoreOutput]] = defaultdict(list)

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        batches = super().update_from_output(scheduler_output, model_runner_output)
        for batch in batches.values():
            batch.outputs = [whole for output in batch.outputs if (whole := self._whole(output))]
        if self._pausing:
            self._let_go(batches)
        return {client: batch for client, batch in batches.items() if batch.outputs or batch.finished_requests}

    def has_requests(self) -> bool:
        """One more (empty) step for what is held when a pause begins: it counts as begun when there is nothing left to do."""
        return bool(super().has_requests() or (self._pausing and self._held))

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Request]:
        ended: list[Request] = super().finish_requests(request_ids, finished_status)
        for request in ended:
            self._held.pop(request.request_id, None)
        return ended

    @property
    def _pausing(self) -> bool:
        return bool(self.pause_state == PauseState.PAUSED_ALL)

    def _whole(self, output: EngineCoreOutput) -> EngineCoreOutput | None:
        """What leaves the engine now, together with what was held of the same request."""
        first = output.prefill_stats is not None
        held = self._held[output.request_id]
        held.append(output)
        if first or output.finished or self._pausing or len(held) == _MOST_HELD:
            return joined(self._held.pop(output.request_id))
        return None

    def _let_go(self, batches: dict[int, EngineCoreOutputs]) -> None:
        """Add all that is held to what leaves the engine, still under the version that it was sampled with."""
        for name, held in self._held.items():
            client = self.requests[name].client_index
            batches.setdefault(client, EngineCoreOutputs(outputs=[])).outputs.append(joined(held))
        self._held.clear()


class HoldingScheduler(_Holding):
    """For engines that wait for every step, as on a CPU."""


class HoldingAsyncScheduler(_Holding, AsyncScheduler):
    """For engines that plan a step while another one runs, as on a GPU."""


def scheduler(vllm_config: VllmConfig, **more: Any) -> Scheduler:
    """For `scheduler_cls`: of the kind that vLLM would have chosen."""
    kind = HoldingAsyncScheduler if vllm_config.scheduler_config.async_scheduling else HoldingScheduler
    return kind(vllm_config=vllm_config, **more)


def joined(outputs: Sequence[EngineCoreOutput]) -> EngineCoreOutput:
    """Consecutive outputs of one request as one."""
    if len(outputs) == 1:
        return outputs[0]
    last = outputs[-1]
    last.new_token_ids = [*chain.from_iterable(output.new_token_ids for output in outputs)]
    last.events = [*chain.from_iterable(output.events or () for output in outputs)] or None
    parts = [output.new_logprobs for output in outputs if output.new_logprobs is not None]
    if parts:
        ids, values, ranks, _ = zip(*parts, strict=True)
        last.new_logprobs = LogprobsLists(np.concatenate(ids), np.concatenate(values), np.concatenate(ranks))
    return last
