"""`python -m launch.without_gpu.trial`: imports all of the project; asks vLLM for its attention for open-rs3 on an A40.

Needs the GPU build and a libcuda.so.1, but no GPU.
"""

import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import launch.without_gpu.pretended  # isort: skip  (vllm looks for its GPU when it is imported)
import torch
from transformers import Qwen2Config
from vllm import AsyncEngineArgs
from vllm.config import set_current_vllm_config
from vllm.usage.usage_lib import UsageContext
from vllm.v1.attention.selector import get_attn_backend

import actors
import launch
import openrs_ray
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import RolloutWorker
from launch.cli.command import command
from launch.cli.options import Parser
from launch.performance.models import SHAPES
from openrs_ray.config.load import load_config
from openrs_ray.errors import RunError

RECIPE = Path("launch/recipes/open-rs3.yaml")
WANTED = "FLASH_ATTN"


@command
def main(arguments: list[str]) -> None:
    Parser("without_gpu.trial", __doc__).parse_args(arguments)
    modules = list(modules_of(openrs_ray, actors, launch))
    for module in modules:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        config = engine_config(Path(folder))
    with set_current_vllm_config(config):
        attention = get_attn_backend(config.model_config.get_head_size(), torch.bfloat16, "auto").get_name()
    sys.stderr.write(
        f"{len(modules)} modules import; {RECIPE.stem} on an A40: attention {attention}, "
        f"model runner V{2 if config.use_v2_model_runner else 1}, "
        f"{config.scheduler_config.max_num_batched_tokens} batched tokens, {config.scheduler_config.max_num_seqs} sequences\n"
    )
    if attention != WANTED or not config.use_v2_model_runner:
        raise RunError(f"vLLM was expected to choose {WANTED} and its model runner V2")


def modules_of(*packages: Any) -> Iterator[str]:
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield module.name


def engine_config(folder: Path) -> Any:
    """vLLM's configuration for the recipe's engine, of a model without weights."""
    Qwen2Config(
        **asdict(SHAPES["random-1.5b"]),
        architectures=["Qwen2ForCausalLM"],
        max_position_embeddings=131_072,
        dtype="bfloat16",
    ).save_pretrained(folder)
    settings = EngineSettings.of_run(load_config(RECIPE, []), str(folder), (1,))
    worker = RolloutWorker(settings, worker=0, device="gpu")
    return AsyncEngineArgs(**worker._engine_arguments()).create_engine_config(UsageContext.ENGINE_CONTEXT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
