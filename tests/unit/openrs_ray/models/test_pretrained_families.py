"""docs/your-model-and-data.md names the model families that the learner computes rightly, and those that it refuses."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file
from tiny import naive_logprobs, naive_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from openrs_ray.algorithm.policy import load_policy
from openrs_ray.errors import UserError
from openrs_ray.models import model_files
from openrs_ray.models.attention import check_attention
from openrs_ray.models.model_files import check_export
from openrs_ray.models.pretrained import read_config
from openrs_ray.models.weight_files import check_weights

PAGE = (ROOT / "docs" / "your-model-and-data.md").read_text(encoding="utf-8")
WITHOUT_WINDOW = ("mistral", "phi3", "starcoder2")

SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "head_dim": 32, "vocab_size": 64, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OWN_NAMES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "granite": {"logits_scaling": 8.0},
    **{family: {"sliding_window": None} for family in WITHOUT_WINDOW},
    **{
        family: {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
        for family in ("gpt_oss", "qwen3_next", "qwen3_moe")
    },
    "glm4_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


def families(row: str) -> list[str]:
    """The families in the row of the page's table that begins with this text."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row}")]
    return re.findall(r"`(\w+)`", line)


RIGHT = families("whole runs") + families("the same checks") + families("the learner computes")
REFUSED = families("refused: other attention") + families("refused: other logits")


def save_family(folder: Path, family: str) -> str:
    """A random model with the family's own defaults, but for its sizes."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**SIZES, **OWN_NAMES.get(family, {})}))
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases away from their neutral start values
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", RIGHT)
def test_packed_log_probabilities_are_those_of_transformers_one_sequence_at_a_time(tmp_path: Path, family: str) -> None:
    policy = load_policy(save_family(tmp_path, family), "float32", 7).eval()
    chance = torch.Generator().manual_seed(1)
    first, second = torch.randint(3, 64, (23,), generator=chance), torch.randint(3, 64, (17,), generator=chance)
    ids, positions = torch.cat([first, second]), torch.cat([torch.arange(23), torch.arange(17)])
    predictors = torch.cat([torch.arange(22), 23 + torch.arange(16)])
    with torch.no_grad():
        got = policy(ids, positions, (23, 17), predictors, ids[predictors + 1], 1.0)
    reference = naive_model(tmp_path)
    expected = [naive_logprobs(reference, part[:1].tolist(), part[1:].tolist()) for part in (first, second)]
    assert torch.allclose(got.double(), torch.cat(expected).detach(), atol=1e-5)


@pytest.mark.parametrize("family", [*RIGHT, *REFUSED, "glm4_moe", "qwen3_moe"])
def test_the_weights_of_a_family_are_known_before_they_are_loaded_and_make_a_policy(
    tmp_path: Path, family: str
) -> None:
    path = save_family(tmp_path, family)
    config = read_config(path)
    check_weights(path, config)
    check_export(config, path)


@pytest.mark.parametrize("family", ["qwen2", "apertus"])
def test_what_the_learner_writes_are_the_weights_that_the_model_has(tmp_path: Path, family: str) -> None:
    """Buffers, too, of which Apertus stores some."""
    from actors.learner.rank import LearnerRank

    policy = load_policy(save_family(tmp_path / "start", family), "float32", 7)
    parameters = {name: parameter.data for name, parameter in policy.model.named_parameters()}
    LearnerRank._write_model(SimpleNamespace(policy=policy), tmp_path / "policy", parameters)  # type: ignore[arg-type]
    written = load_file(tmp_path / "policy" / "model.safetensors")
    start = load_file(tmp_path / "start" / "model.safetensors")
    assert written.keys() == start.keys() and all(torch.equal(written[name], start[name]) for name in start)


def test_an_architecture_that_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_family(tmp_path, "apertus")
    monkeypatch.setattr(model_files, "fixed_weights", lambda model: {})
    with pytest.raises(
        UserError, match=r"a ApertusForCausalLM, the architecture of .+, cannot be exported, so it cannot"
    ):
        check_export(read_config(path), path)


@pytest.mark.parametrize("family", families("refused: other attention"))
def test_other_attention_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(UserError, match="only full attention"):
        load_policy(save_family(tmp_path, family), "float32", 7)


@pytest.mark.parametrize("family", WITHOUT_WINDOW)
def test_a_window_over_all_layers_is_refused_where_sequences_may_be_longer(family: str) -> None:
    config = CONFIG_MAPPING[family](**SIZES | {"sliding_window": 100})
    check_attention(config, family, longest=100)
    with pytest.raises(UserError, match=r"sliding window of 100 tokens.*now 101"):
        check_attention(config, family, longest=101)


@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_a_bias_on_the_attention_is_refused(family: str) -> None:
    with pytest.raises(UserError, match="ALiBi"):
        check_attention(CONFIG_MAPPING[family](), family)


def test_a_family_that_the_learner_cannot_call_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the learner cannot compute model"):
        load_policy(save_family(tmp_path, "stablelm"), "float32", 7)


@pytest.mark.parametrize("family", families("refused: other logits"))
def test_other_logits_are_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(UserError, match="computes its logits in a way"):
        load_policy(save_family(tmp_path, family), "float32", 7)


@pytest.mark.parametrize("family", RIGHT)
def test_vllm_has_an_engine_for_the_family(family: str) -> None:
    from vllm import ModelRegistry

    architecture = AutoModelForCausalLM._model_mapping[CONFIG_MAPPING[family]].__name__
    assert architecture in ModelRegistry.get_supported_archs()


def test_the_page_has_the_head_sizes_of_vllms_attention_on_a_cpu() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    *sizes, last = CPUAttentionBackend.get_supported_head_sizes()
    assert f"of size {', '.join(map(str, sizes))} or {last}, on a CPU" in PAGE
