"""vLLM's scheduler, with tokens leaving the engine's process many at a time, since no completion is read before it ends.

Handed over one by one, every token is encoded, decoded and processed, which takes 10 us of CPU time in the engine and in the
front end together. A request's first token leaves at once, since the times of its stages are noted when it arrives.
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
"""Most tokens that are held of one request; each takes some 0.6 kB."""


class _Holding(Scheduler):
    """Holds a request's tokens until it ends or a pause begins, after which tokens may be of another policy version."""

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
        """True also while a pause waits for held tokens: one more (empty) step hands them over before the pause begins."""
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
        """Output that leaves the engine now, with the request's held tokens; None if it is held as well."""
        first = output.prefill_stats is not None
        held = self._held[output.request_id]
        held.append(output)
        if first or output.finished or self._pausing or len(held) == _MOST_HELD:
            return joined(self._held.pop(output.request_id))
        return None

    def _let_go(self, batches: dict[int, EngineCoreOutputs]) -> None:
        """Hand over all held tokens while the engine still has the policy version that sampled them."""
        for name, held in self._held.items():
            client = self.requests[name].client_index
            batches.setdefault(client, EngineCoreOutputs(outputs=[])).outputs.append(joined(held))
        self._held.clear()


class HoldingScheduler(_Holding):
    """Scheduler for engines that wait for every step, as on a CPU."""


class HoldingAsyncScheduler(_Holding, AsyncScheduler):
    """Scheduler for engines that plan a step while another one runs, as on a GPU."""


def scheduler(vllm_config: VllmConfig, **more: Any) -> Scheduler:
    """A holding scheduler of the kind that vLLM would choose; the value of `scheduler_cls`."""
    kind = HoldingAsyncScheduler if vllm_config.scheduler_config.async_scheduling else HoldingScheduler
    return kind(vllm_config=vllm_config, **more)


def joined(outputs: Sequence[EngineCoreOutput]) -> EngineCoreOutput:
    """Consecutive outputs of one request, joined into one."""
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
