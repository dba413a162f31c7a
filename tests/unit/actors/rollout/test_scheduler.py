"""vLLM's scheduler as engines run it: a completion leaves in few pieces, all of it, and no piece crosses a pause."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.metrics.stats import PrefillStats
from vllm.v1.outputs import LogprobsLists
from vllm.v1.request import RequestStatus

from actors.rollout import scheduler as own


class Engine:
    """A scheduler whose next outputs are given: token n of a request is n, with log-probability -n."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.upcoming: dict[int, EngineCoreOutputs] = {}
        monkeypatch.setattr(Scheduler, "__init__", lambda _, **__: None)
        monkeypatch.setattr(Scheduler, "update_from_output", lambda *_: self.upcoming)
        monkeypatch.setattr(Scheduler, "has_requests", lambda _: False)
        monkeypatch.setattr(Scheduler, "finish_requests", lambda _, names, __: [self.requests[name] for name in names])
        self.requests = {name: SimpleNamespace(request_id=name, client_index=0) for name in "ab"}
        config: Any = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=False))
        self.scheduler: Any = own.scheduler(config)
        self.scheduler.requests = self.requests
        self.pause(PauseState.UNPAUSED)
        self.tokens = dict.fromkeys(self.requests, 0)

    def pause(self, state: PauseState) -> None:
        self.scheduler._pause_state = state

    def step(self, *names: str, end: str = "") -> list[EngineCoreOutput]:
        """Outputs that leave the engine after a step of these requests."""
        outputs = []
        for name in names:
            n = self.tokens[name] = self.tokens[name] + 1
            logprobs = LogprobsLists(np.full((1, 1), n), np.full((1, 1), -n, np.float32), np.ones(1, np.int32))
            first = PrefillStats() if n == 1 else None
            reason = FinishReason.STOP if name == end else None
            outputs.append(EngineCoreOutput(name, [n], logprobs, prefill_stats=first, finish_reason=reason))
        self.upcoming = {0: EngineCoreOutputs(outputs=outputs)}
        batches = self.scheduler.update_from_output(None, None)
        return batches[0].outputs if batches else []


def check(output: EngineCoreOutput, name: str, first: int, last: int) -> None:
    assert output.request_id == name and output.new_token_ids == [*range(first, last + 1)]
    assert output.new_logprobs is not None
    np.testing.assert_array_equal(output.new_logprobs.logprobs[:, 0], -np.arange(first, last + 1))
    assert len(output.new_logprobs.sampled_token_ranks) == last + 1 - first


def test_first_token_and_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    a, b = engine.step("a", "b")
    check(a, "a", 1, 1)
    check(b, "b", 1, 1)
    assert not any(engine.step("a", "b") for _ in range(5)), "nothing leaves, so nobody is woken"
    (ended,) = engine.step("a", "b", end="a")
    check(ended, "a", 2, 7)
    assert ended.finish_reason == FinishReason.STOP
    (ended,) = engine.step("b", end="b")
    check(ended, "b", 2, 8)


def test_a_long_completion_is_not_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    left = [output for _ in range(300) for output in engine.step("a")]
    assert [len(output.new_token_ids) for output in left] == [1, own._MOST_HELD, own._MOST_HELD]
    check(left[2], "a", 2 + own._MOST_HELD, 1 + 2 * own._MOST_HELD)


def test_a_pause_waits_for_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held tokens must leave before the weights change, or they would count as samples of the new ones."""
    engine = Engine(monkeypatch)
    for _ in range(4):
        engine.step("a", "b")
    assert not engine.scheduler.has_requests()
    engine.pause(PauseState.PAUSED_ALL)
    assert engine.scheduler.has_requests(), "one more step"
    a, b = engine.step("a")  # a step that was under way
    check(a, "a", 2, 5)
    check(b, "b", 2, 4)
    assert not engine.scheduler.has_requests()
    engine.pause(PauseState.UNPAUSED)
    assert not engine.step("a", "b")
    check(engine.step("b", end="b")[0], "b", 5, 6)


def test_what_is_dropped_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    for _ in range(3):
        engine.step("a", "b")
    engine.scheduler.finish_requests(["a"], RequestStatus.FINISHED_ABORTED)
    engine.pause(PauseState.PAUSED_ALL)
    (left,) = engine.step()
    check(left, "b", 2, 3)


def test_the_kind_is_vllms_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "__init__", lambda _, **__: None)
    monkeypatch.setattr(AsyncScheduler, "__init__", lambda _, **__: None)
    kinds: list[Any] = [
        own.scheduler(SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=ahead)))  # type: ignore[arg-type]
        for ahead in (False, True)
    ]
    assert [isinstance(kind, AsyncScheduler) for kind in kinds] == [False, True]
    order = type(kinds[1]).__mro__
    assert order.index(own._Holding) < order.index(AsyncScheduler) < order.index(Scheduler)
