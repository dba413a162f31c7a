"""The record is written while the next step samples, and nothing is built on a step that is not on the disk."""

import asyncio
import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from simulated_run import KeptSaves, SimulatedRun
from tiny import make_config

from actors.loop.collector import Sampling
from actors.loop.writer import RunWriter
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Problem
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.checkpoints import Checkpoint, Kind
from openrs_ray.run.completion_files import record_files
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.ledger import Head, Ledger, read_ledger
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.progress import Progress

HELD_OUT = [Problem(7, "7+1", (1, 2), ("8",))]


class CheckedSaves(KeptSaves):
    """Checks, when a checkpoint is committed, that its step's record and metrics are on the disk."""

    def commit(self, step: int, kind: Kind, trainer_state: dict[str, Any]) -> Checkpoint:
        recorded = [file.step for file in record_files(self.folder.parent, "train")]
        metrics = [line["step"] for line in read_metrics(self.folder.parent)]
        assert recorded == metrics == list(range(1, step + 1)), f"checkpoint {step} is ahead of {recorded}, {metrics}"
        return super().commit(step, kind, trainer_state)


def quick_run(folder: Path, steps: int, **rollout: Any) -> SimulatedRun:
    """A run whose groups and steps take no time, on the real clock and with the real thread."""
    run = SimulatedRun(folder, Progress(), uniform_share=0.0, steps=steps, held_out=HELD_OUT, **rollout)
    run.seconds = lambda plan: 0.0  # type: ignore[method-assign]
    run.learner._times = SimpleNamespace(random=lambda: 0.0)
    run.store.open()
    return run


def written_when(monkeypatch: pytest.MonkeyPatch, before: Callable[[int, str], None]) -> None:
    """Calls `before` in the thread that writes, with the step and phase, before it writes."""
    write = CompletionRecord.write

    def late(
        self: CompletionRecord,
        step: int,
        attempt: int,
        groups: Any,
        texts: Any,
        advantages: Any,
        phase: Any,
        scored: Any,
    ) -> Path:
        before(step, phase)
        return write(self, step, attempt, groups, texts, advantages, phase, scored)

    monkeypatch.setattr(CompletionRecord, "write", late)


@pytest.mark.parametrize("staleness", [0, 1])
def test_the_next_step_samples_meanwhile_and_trains_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staleness: int
) -> None:
    run, free, order = quick_run(tmp_path / "run", 2, staleness=staleness), threading.Event(), list[str]()
    train, group = run.learner.train, run.group

    def held(step: int, phase: str) -> None:
        assert step != 1 or free.wait(20), "nothing was sampled meanwhile"
        order.append(f"wrote {step}")

    async def sampled(position: int, problem: Problem, plan: Sampling) -> Any:
        if plan.phase == "train" and "trained 1" in order:
            order.append("sampled for 2")
        return await group(position, problem, plan)

    async def trained(groups: Any, step: int, settings: Any) -> Any:
        order.append(f"trained {step}")
        return await train(groups, step, settings)

    async def let_go_when_ready() -> None:
        while len(run.sampled) < 2 * run.config.rollout.problems_per_step or "trained 1" not in order:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # for a step that would not wait
        order.append("let go")
        free.set()

    async def two_steps() -> None:
        helper = asyncio.create_task(let_go_when_ready())
        await run.steps(2)
        await helper
        await run.writer.close()

    run.learner.train = trained
    run.sampling.collect = lambda position, problem, _: sampled(position, problem, Sampling("train", 0, 4, 1.0))
    written_when(monkeypatch, held)
    asyncio.run(two_steps())
    told = [said for said in dict.fromkeys(order) if staleness == 0 or said != "sampled for 2"]
    meanwhile = ["sampled for 2"] if staleness == 0 else []
    assert told == ["trained 1", *meanwhile, "let go", "wrote 1", "trained 2", "wrote 2"]


def test_no_checkpoint_is_ahead_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = quick_run(tmp_path / "run", 4)
    run.store = run.loop.saving.store = CheckedSaves(run.store.folder)
    run.store.open()
    run.loop.saving.config = run.loop.saving.config.model_copy(update={"every_steps": 1})
    written_when(monkeypatch, lambda step, phase: threading.Event().wait(0.05))
    asyncio.run(run.loop.run())
    assert [step for step, _ in run.store.saves] == [1, 2, 3, 4]


@pytest.mark.parametrize("phase", ["train", "evaluation"])
def test_a_full_disk_ends_the_run_and_saves_nothing_that_was_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    run = quick_run(tmp_path / "run", 4)
    run.loop.saving.config = run.loop.saving.config.model_copy(update={"every_steps": 1})
    run.loop.evaluation.config.evaluation.__dict__["every_steps"] = 2

    def full(step: int, written: str) -> None:
        if step == 2 and written == phase:
            raise OSError(errno.ENOSPC, "No space left on device")

    written_when(monkeypatch, full)
    with pytest.raises(OSError, match="No space left on device"):
        asyncio.run(run.loop.run())
    assert [step for step, _ in run.store.saves] == ([1] if phase == "train" else [1, 2])
    assert [file.step for file in record_files(tmp_path / "run", "train")] == ([1] if phase == "train" else [1, 2])


def test_what_is_under_way_is_written_when_something_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = quick_run(tmp_path / "run", 4)

    async def fails(groups: Any, step: int) -> Any:
        raise RuntimeError("lost")

    async def one_step() -> None:
        await run.steps(1)
        await run.writer.close()

    written_when(monkeypatch, lambda step, phase: threading.Event().wait(0.05))
    asyncio.run(one_step())
    assert [file.step for file in record_files(tmp_path / "run", "train")] == [1]


def test_a_record_that_fails_while_the_run_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = quick_run(tmp_path / "run", 4)

    def full(step: int, written: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def one_step() -> None:
        await run.steps(1)
        await run.writer.close()

    written_when(monkeypatch, full)
    asyncio.run(one_step())
    assert len(run.said) == 1 and "record of the last step could not be written" in run.said[0]


def test_an_attempt_s_first_entry_is_written_beside_the_loop(tmp_path: Path) -> None:
    """At the first resume of an older version's run it has all files to read."""
    config = make_config(tmp_path, run={"folder": str(tmp_path), "name": "run"})
    config.run.path.mkdir()
    start_attempt(config.run.path, 0)
    threads = []

    class Seen(Ledger):
        def note(self, about: str, **facts: Any) -> Head | None:  # type: ignore[override]
            threads.append(threading.current_thread())
            return super().note(about, **facts)

    async def begin() -> None:
        unused: Any = None
        writer = RunWriter(config, 1, *[unused] * 4)
        writer.__dict__["ledger"] = Seen(config.run.path)
        writer.begin(None)
        await writer.written()

    asyncio.run(begin())
    assert len(threads) == 1 and threads[0] is not threading.main_thread()
    (entry,) = read_ledger(config.run.path).entries  # type: ignore[union-attr]
    assert entry.about == "attempt" and "attempts/001/config.json" in entry.files
    kept = json.loads((config.run.path / "attempts" / "001" / "config.json").read_text())
    assert RunConfig.model_validate(kept) == config
