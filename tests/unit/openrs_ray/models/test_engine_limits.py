"""Models that vLLM would refuse are refused before anything starts, by vLLM's own lists."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import said
from tiny import make_config, write_model
from transformers import AutoConfig, Qwen2Config

from openrs_ray.errors import UserError
from openrs_ray.models.engine_limits import CPU_HEAD_SIZES, check_engine, head_size, listed

ASK_VLLM = """
import json
from vllm.model_executor.models.registry import _TEXT_GENERATION_MODELS, ModelRegistry
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
known = ModelRegistry.get_supported_archs()
print(json.dumps([CPUAttentionBackend.get_supported_head_sizes(), [name for name in _TEXT_GENERATION_MODELS if name in known]]))
"""


def check(folder: Path, **placement: object) -> None:
    config = make_config(folder, placement=placement)
    check_engine(config.model, config.placement, str(folder), AutoConfig.from_pretrained(folder))


def test_the_limits_are_those_of_the_installed_vllm() -> None:
    run = subprocess.run([sys.executable, "-c", ASK_VLLM], capture_output=True, text=True, timeout=120, check=True)
    sizes, architectures = json.loads(run.stdout.strip().splitlines()[-1])
    assert list(CPU_HEAD_SIZES) == sizes
    assert len(architectures) > 100 and all(map(listed, architectures))
    assert not listed("FooForCausalLM") and not listed()


@pytest.mark.parametrize("changes", [{"num_attention_heads": 4}, {"head_dim": 16}])
def test_a_head_size_that_cpu_engines_do_not_have_is_one_sentence(tmp_path: Path, changes: dict[str, int]) -> None:
    folder = write_model(tmp_path / "model", **changes)
    with pytest.raises(UserError, match=r"have size 16, which vLLM does not have on a CPU \(it has 32, 64, 80"):
        check(folder)
    check(folder, device="gpu")  # other engines, other sizes
    check(folder, device="auto", gpu_memory_gib=24.0)


def test_models_that_vllm_has_are_not_refused(tmp_path: Path) -> None:
    check(write_model(tmp_path / "model"))
    assert head_size(Qwen2Config(hidden_size=64, num_attention_heads=2)) == 32


@pytest.mark.cpu_engine
def test_an_architecture_that_vllm_does_not_have_is_refused_in_its_words(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", architectures=["FooForCausalLM"])
    with pytest.raises(
        UserError, match=r"vLLM has no engine .*Model architectures \['FooForCausalLM'\] are not supported for now$"
    ):
        check(folder)


def test_the_command_says_it_before_ray_starts(
    capsys: pytest.CaptureFixture[str],
    recipe: Path,
    tmp_path: Path,
) -> None:
    folder = write_model(tmp_path / "model", num_attention_heads=4)
    assert "have size 16" in said(capsys, recipe, "--model.path", str(folder))
    assert "have size 16" in said(capsys, recipe, "--model.path", str(folder), "--dry-run")
