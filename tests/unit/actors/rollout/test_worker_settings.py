"""What every vLLM engine is started with, wherever it is started: environment, and tokens per pass."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tiny import make_config

from actors import curator
from actors.cluster.placement import Placement, engine_variables
from actors.rollout.loaded import LoadedWorker
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import RolloutWorker
from launch.performance import step
from launch.performance.parts import RawEngine
from openrs_ray.cluster.layout import Device, engines_layout, plan_layout
from openrs_ray.config.placement import EngineSlots
from openrs_ray.config.rollout import Engine
from openrs_ray.curation.recipe import Solved, load_recipe
from openrs_ray.errors import UserError
from openrs_ray.evaluation.config import EvaluationConfig

NO_NVCC = ("VLLM_USE_FLASHINFER_SAMPLER", "0")
EXACT_FLOAT32 = ("TRITON_F32_DEFAULT", "ieee")


def test_gpu_engines_build_nothing_with_nvcc_and_keep_float32_exact(tmp_path: Path) -> None:
    place = {"device": "gpu", "num_learner_gpus": 1, "colocated": True}
    config = make_config(tmp_path, placement=place, engine={"gpu_memory_fraction": 0.4})
    shared = Placement(plan_layout(config, "gpu"), None, None, {}).rollout_options(0)
    alone = engines_layout(EngineSlots(), Engine(), "gpu", gpus=1)
    held: dict[int, Any] = {0: None}
    evaluation = Placement(alone, None, None, held).rollout_options(0)
    for started in (shared, evaluation):
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
    sizes = {"max_prompt_tokens": 10, "max_completion_tokens": longest - 10}
    passes = {"max_batched_tokens": 512, "max_sequences": 8}
    config = make_config(tmp_path, rollout=sizes, engine=passes, learner={"micro_batch_tokens": 1000})
    settings = EngineSettings.of_run(config, "toy", (2,))
    started = {}
    for kind in (RolloutWorker, LoadedWorker):
        started[kind.__name__] = kind(settings, 0, device)._engine_arguments()
    monkeypatch.setattr("vllm.LLM", lambda **arguments: started.update(raw=arguments))
    RawEngine(settings, 0, device).start()
    recipe = load_recipe("open-s1-data", ["--engine.max_batched_tokens", "512"])
    stage = Solved(model=str(tmp_path), max_prompt_tokens=10, max_tokens=longest - 10)
    own = curator._settings(recipe, stage, "toy", (2,))
    started["curation"] = LoadedWorker(own, 0, device)._engine_arguments()
    assert {name: arguments["max_num_batched_tokens"] for name, arguments in started.items()} == dict.fromkeys(
        started, tokens
    )


def test_a_pass_has_room_for_every_completion(tmp_path: Path) -> None:
    message = r"engine.max_batched_tokens \(64\) must not be below engine.max_sequences"
    with pytest.raises(ValidationError, match=message):
        make_config(tmp_path, engine={"max_batched_tokens": 64})
    with pytest.raises(UserError, match=message):
        load_recipe("open-s1-data", ["--engine.max_batched_tokens", "64"])
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig.model_validate({"engine": {"max_batched_tokens": 64}})
