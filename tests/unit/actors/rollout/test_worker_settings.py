"""What every vLLM engine is started with, wherever it is started: environment, and tokens per pass."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.data
from pydantic import ValidationError
from tiny import make_config

from actors import curator
from actors.cluster.placement import Placement, engine_variables
from actors.evaluator import LoadedWorker
from actors.rollout.worker import RolloutWorker
from launch.performance import step
from launch.performance.parts import RawEngine
from openrs_ray.cluster.layout import Device, plan_layout
from openrs_ray.curation.pipeline import Question
from openrs_ray.curation.recipe import Engines, Solved

NO_NVCC = ("VLLM_USE_FLASHINFER_SAMPLER", "0")
EXACT_FLOAT32 = ("TRITON_F32_DEFAULT", "ieee")
STAGE = Solved(model="toy", samples=1, max_prompt_tokens=100, max_tokens=100)


def asked_of_ray_data(monkeypatch: pytest.MonkeyPatch, device: Device, engines: Engines) -> dict[str, Any]:
    """How a curation starts its engines."""
    asked: dict[str, Any] = {}

    def map_batches(kind: type, **options: Any) -> Any:
        asked.update(options)
        return SimpleNamespace(iter_batches=lambda **_: [])

    monkeypatch.setattr(curator, "_place", lambda engines: (device, 1))
    monkeypatch.setattr(ray.data, "from_arrow", lambda tables: SimpleNamespace(map_batches=map_batches))
    list(curator.ask(engines, 0, STAGE, [Question(0, (1, 2), (3,))]))
    return asked


def test_gpu_engines_build_nothing_with_nvcc_and_keep_float32_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {"device": "gpu", "num_learner_gpus": 1, "colocated": True}
    config = make_config(tmp_path, placement=place, rollout={"gpu_memory_fraction": 0.4})
    shared = Placement(plan_layout(config, "gpu"), 1, None, None, {}).rollout_options(0)
    curation = asked_of_ray_data(monkeypatch, "gpu", Engines())
    for started in (shared, curation):
        assert {NO_NVCC, EXACT_FLOAT32} <= started["runtime_env"]["env_vars"].items()
    assert not {NO_NVCC[0], EXACT_FLOAT32[0]} & engine_variables("cpu").keys()


def test_trl_has_the_same_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, str]] = []

    def run(command: list[str], env: dict[str, str], **options: Any) -> None:
        found.append(env)
        Path(command[-1]).write_text('{"seconds": [1, 2, 3], "tokens": [1, 2, 3]}')

    monkeypatch.setattr(subprocess, "run", run)
    step.trl({}, ["one"], tmp_path)
    assert found and all(NO_NVCC in env.items() for env in found)


@pytest.mark.parametrize(("device", "longest", "tokens"), [("gpu", 40, 512), ("cpu", 40, 512), ("cpu", 1000, 1000)])
def test_tokens_per_pass_are_the_same_for_every_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device, longest: int, tokens: int
) -> None:
    """A CPU engine cannot take a prompt in parts: its pass holds one longest sequence."""
    sizes = {
        "max_batched_tokens": 512,
        "max_sequences": 8,
        "max_prompt_tokens": 10,
        "max_completion_tokens": longest - 10,
    }
    config = make_config(tmp_path, rollout=sizes, learner={"micro_batch_tokens": 1000})
    started = {}
    for kind in (RolloutWorker, LoadedWorker):
        started[kind.__name__] = kind(config, "toy", 0, device, (2,))._engine_arguments()
    monkeypatch.setattr("vllm.LLM", lambda **arguments: started.update(raw=arguments))
    RawEngine(config, "toy", 0, device, (2,)).start()
    stage = STAGE.model_copy(update={"max_prompt_tokens": 10, "max_tokens": longest - 10})
    started["curation"] = curator._arguments(Engines(max_batched_tokens=512), 0, stage, device)
    assert {name: arguments["max_num_batched_tokens"] for name, arguments in started.items()} == dict.fromkeys(
        started, tokens
    )


def test_a_pass_has_room_for_every_completion(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"rollout.max_batched_tokens \(64\) must not be below rollout.max_sequences"
    ):
        make_config(tmp_path, rollout={"max_batched_tokens": 64})
    with pytest.raises(
        ValidationError, match=r"engines.max_batched_tokens \(64\) must not be below engines.max_sequences"
    ):
        Engines(max_batched_tokens=64)
