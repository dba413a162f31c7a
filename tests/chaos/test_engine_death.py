"""An engine that dies says why in the words of its own log, and one that would die again is not started again."""

import asyncio
import os
from pathlib import Path

import pytest
from empty_worker import DyingWorker, empty_workers, until
from stalling_engines import DummyWorker
from system import system_config
from tiny import write_model

from actors.cluster.placement import reserve
from actors.rollout.engine_log import OwnLog
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.common.last_error import last_error, same_error
from openrs_ray.errors import EngineDied, Lost, Recurring

AT = "ERROR 11-25 21:37:23 [core.py:1512]"
UNSUPPORTED = "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0"
ENGINE_DIED = f"""\
(MainProcess pid=26235) WARNING 11-25 21:37:16 [vllm.py:1712] TORCH_COMPILE_DISABLE is set, disabling torch.compile.
(EngineCore pid=26348) {AT} EngineCore encountered a fatal error.
(EngineCore pid=26348) {AT} Traceback (most recent call last):
(EngineCore pid=26348) {AT}   File "vllm/v1/engine/core.py", line 1496, in run_engine_core
(EngineCore pid=26348) {AT}     raise ValueError("not this one: ValueError: at all")
(EngineCore pid=26348) {AT}                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
(EngineCore pid=26348) {AT} {UNSUPPORTED}
(MainProcess pid=26235) {AT} AsyncLLM output_handler failed.
(MainProcess pid=26235) {AT} Traceback (most recent call last):
(MainProcess pid=26235) {AT} vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.
"""  # noqa: E501
TENSOR_PARALLEL = """\
(Worker_TP1 pid=7) ERROR 11-25 21:37:23 [multiproc_executor.py:9] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
(EngineCore pid=5) ERROR 11-25 21:37:23 [core.py:1] RuntimeError: Worker failed with error 'CUDA out of memory', please check the stack trace above for the root cause
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""  # noqa: E501
COLOURED = "\x1b[0;36m(EngineCore pid=3)\x1b[0;0m \x1b[31mERROR\x1b[0m 11-25 21:37:23 [core.py:1512] ValueError: bad"
PYDANTIC = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, Model architectures ['FooForCausalLM'] are not supported for now. [type=value_error]
"""
QUIET = """\
/site-packages/vllm/dispatcher.py:138: FutureWarning: `torch.distributed.reduce_op` is deprecated
(EngineCore pid=3) WARNING 11-25 21:37:22 [cpu_worker.py:114] libtcmalloc is not found: ValueError: no
(MainProcess pid=1) ERROR 11-25 21:37:23 [core_client.py:1] Engine core proc EngineCore died unexpectedly, shutting down client.
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (ENGINE_DIED, UNSUPPORTED),
        (TENSOR_PARALLEL, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        (COLOURED, "ValueError: bad"),
        (PYDANTIC, "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig: Value error, Model "
         "architectures ['FooForCausalLM'] are not supported for now. [type=value_error]"),
        ("Fatal Python error: Segmentation fault\n\nThread 0x00007f:", "Fatal Python error: Segmentation fault"),
        ("terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: an illegal memory access\n",
         "what():  CUDA error: an illegal memory access"),
        (QUIET, None),
        ("", None),
    ],
)  # fmt: skip
def test_the_line_that_says_why_is_found(log: str, expected: str | None) -> None:
    assert last_error(log) == expected


def test_a_process_without_log_files_knows_of_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    """pytest's capture is a file without a name; a pipe and a terminal have none either."""
    log = OwnLog()
    os.write(1, b"ValueError: shown, and kept nowhere\n")
    assert log.last_error() == (None, "")


def test_the_same_error_may_have_other_numbers() -> None:
    assert same_error("OSError: pid 7 at 0x7fa", "OSError: pid 12 at 0x1b")
    assert not same_error("OSError: pid 7", "OSError: no disk 7")


def test_an_engine_that_dies_of_the_same_error_twice_is_not_started_a_third_time(
    ray_session: None, tmp_path: Path
) -> None:
    losses: list[str] = []
    placement, workers = empty_workers(tmp_path, losses.append, DyingWorker)
    supervisor = workers.supervisor

    async def die_twice() -> None:
        await workers.start()
        for _ in range(2):
            await until(lambda: bool(supervisor.alive))
            assert await workers.each(supervisor.alive, "score", "score the probe", []) == {}
        for ask in (supervisor.ready, workers._someone):
            with pytest.raises(
                Recurring, match=r"the same error twice, before any completion .* OSError: no disk \d+ "
            ):
                await ask()
        await workers.stop()

    try:
        asyncio.run(die_twice())
    finally:
        placement.release()
    first, second = losses
    start = "rollout worker 0 is lost, and another is started in its place: rollout worker 0 lost its engine: OSError: no disk "
    assert first.startswith(start), "nobody goes on, and its own error is named"
    assert second.startswith("rollout worker 0 is lost: rollout worker 0 lost its engine: OSError")
    log = first.partition("(its log: ")[2].partition(" on ")[0]
    assert log.endswith(".out") and "OSError: no disk" in Path(log).read_text(), "the file that is named holds it"


def test_once_completions_have_come_an_engine_is_started_again(ray_session: None, tmp_path: Path) -> None:
    losses: list[str] = []
    placement, workers = empty_workers(tmp_path, losses.append, DyingWorker)
    workers.supervisor.has_sampled = True

    async def die_twice() -> None:
        await workers.start()
        for _ in range(2):
            await until(lambda: bool(workers.supervisor.alive))
            await workers.each(workers.supervisor.alive, "score", "score the probe", [])
        await workers.supervisor.ready()
        await workers.stop()

    try:
        asyncio.run(die_twice())
    finally:
        placement.release()
    assert len(losses) == 2


def test_the_others_go_on_where_there_are_others(ray_session: None, tmp_path: Path) -> None:
    losses: list[str] = []
    placement, workers = empty_workers(tmp_path, losses.append, DyingWorker, num_rollout_gpus=2)
    supervisor = workers.supervisor

    async def lose_both() -> None:
        await workers.start()
        first, second = supervisor.alive
        supervisor.lost(first, "gone")
        supervisor.lost(second, EngineDied(1, "OSError: no disk", ""))
        await until(lambda: len(supervisor.alive) == 2)
        again = next(replica for replica in supervisor.alive if replica.place == 1)
        supervisor.lost(again, EngineDied(1, "OSError: no disk", ""))
        assert await supervisor.ready(), "the other one lives and may do better"
        await workers.stop()

    try:
        asyncio.run(lose_both())
    finally:
        placement.release()
    assert losses[0] == "rollout worker 0 is lost, the others go on: gone"
    assert losses[1].startswith("rollout worker 1 is lost, and another is started in its place: ")
    assert losses[2].startswith("rollout worker 1 is lost, the others go on: ")


def test_an_engine_s_death_keeps_its_parts_on_the_way_through_ray(ray_session: None, tmp_path: Path) -> None:
    placement, workers = empty_workers(tmp_path, lambda text: None, DyingWorker)

    async def ask() -> None:
        await workers.start()
        with pytest.raises(Lost, match="rollout worker 0 lost its engine: OSError: no disk") as raised:
            await workers.supervisor.alive[0].ask(60, "score", "score the probe", [])
        assert isinstance(raised.value, EngineDied) and raised.value.error.startswith("OSError: no disk")
        await workers.stop()

    try:
        asyncio.run(ask())
    finally:
        placement.release()


@pytest.mark.cpu_engine
@pytest.mark.slow
def test_a_real_engine_that_cannot_compute_names_its_error_and_ends_the_run(ray_session: None, tmp_path: Path) -> None:
    """Heads of a size that vLLM lacks on a CPU, which `engine_limits` refuses before; the first token kills the engine."""
    folder = write_model(tmp_path / "model", head_dim=16, num_attention_heads=4)
    config = system_config(tmp_path, folder)
    placement = reserve(plan_layout(config, "cpu"), config.placement.wait_s)
    losses: list[str] = []
    workers = EnginePool(EngineSettings.of_run(config, str(folder), (2,)), placement, DummyWorker, losses.append)

    async def sample() -> None:
        await workers.start()
        try:
            async for _ in workers.completions([Request(0, 0, (5, 6), 1, 1.0, 8)]):
                pass
        finally:
            await workers.stop()

    try:
        with pytest.raises(Recurring, match=r"died of the same error twice.*RuntimeError: .*head_dim=16"):
            asyncio.run(sample())
    finally:
        placement.release()
    assert len(losses) == 2 and all("lost its engine: RuntimeError: " in loss for loss in losses)
    assert not any("stack trace" in loss or "others go on" in loss for loss in losses)
