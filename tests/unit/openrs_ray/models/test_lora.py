"""Which layers get adapters, whatever a family calls them, and which models are refused."""

from pathlib import Path

import pytest
import torch
from tiny import make_sequences, save_model
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, MixtralConfig, Phi3Config

from openrs_ray.algorithm.packing import pack
from openrs_ray.algorithm.policy import adapt, load_policy, micro_batch_arguments
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.learner import Lora
from openrs_ray.errors import UserError
from openrs_ray.models.lora import adapted_layers, linear_layers
from openrs_ray.models.pretrained import empty_model
from openrs_ray.weights.sources import sources

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
GPT2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64)


@pytest.mark.parametrize(
    ("config", "layers", "last"),
    [
        (Phi3Config(**SMALL, pad_token_id=0), "all", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        (GPTNeoXConfig(**SMALL), "all", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
        (GPTNeoXConfig(**SMALL), "attention", {"query_key_value", "dense"}),
        (MixtralConfig(**SMALL), "attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
    ],
)
def test_linear_layers_are_found_whatever_their_names(config: object, layers: str, last: set[str]) -> None:
    model, lora = empty_model(config), Lora(rank=4, layers=layers)  # type: ignore[arg-type]
    found = linear_layers(model, lora)
    assert {name.rsplit(".", 1)[-1] for name in found} == last and len(found) == 2 * len(last)
    assert all(module is model.get_submodule(name) for name, module in found.items())
    planned = ModelShape.of(config).adapted(lora)  # type: ignore[arg-type]
    assert [(one.outputs, one.inputs) for one in planned] == [(x.out_features, x.in_features) for x in found.values()]


@pytest.mark.parametrize(
    ("config", "layers", "sentence"),
    [
        (
            MixtralConfig(**SMALL),
            "all",
            r"TopKRouter, .*rank 0, or learner.lora.layers attention$",
        ),
        (
            GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64),
            "all",
            r"is a Conv1D, and only linear layers .*: set learner.lora.rank 0$",
        ),
        (
            GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64),
            "attention",
            r"is a Conv1D.*: set learner.lora.rank 0$",
        ),
    ],
)
def test_other_layers_are_refused_in_a_sentence(config: object, layers: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        linear_layers(empty_model(config), Lora(rank=4, layers=layers))  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_adapters_and_leaves_the_random_state_alone(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path))

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed + 7)
        policy = load_policy(folder, "bfloat16", 64)
        before = torch.get_rng_state()
        adapt(policy, Lora(rank=4), seed)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([layer.down.flatten() for layer in adapted_layers(policy.model).values()])

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_an_adapter_is_never_larger_than_its_weight() -> None:
    config = LlamaConfig(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=1)
    assert linear_layers(empty_model(config), Lora(rank=16))
    with pytest.raises(UserError, match=r"rank \(17\) is more than the smaller side of .*k_proj \(16\)"):
        linear_layers(empty_model(config), Lora(rank=17))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_bfloat16_the_policy_is_that_of_the_exported_weights_bit_for_bit(
    tmp_path: Path, checkpointing: bool
) -> None:
    """Gradients agree with float64 up to rounding: dL/dA and dL/dB from the dense dL/dW."""
    folder = save_model(tmp_path / "start")
    policy = load_policy(str(folder), "bfloat16", 64)
    adapt(policy, Lora(rank=4), 1)
    if checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layers, plain = adapted_layers(policy.model), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for layer in layers.values():
        layer.up.data.copy_(0.02 * torch.randn(layer.up.shape, generator=generator))
    with torch.no_grad():
        for source in sources(policy.model, "policy"):
            plain.get_parameter(source.spec.name).copy_(source.make())
    plain.save_pretrained(tmp_path / "merged")
    alone = load_policy(str(tmp_path / "merged"), "bfloat16", 64)
    arguments = micro_batch_arguments(pack(make_sequences(9)), torch.device("cpu"))
    found, expected = policy(**arguments, temperature=1.0), alone(**arguments, temperature=1.0)
    assert torch.equal(found, expected)
    weights = torch.linspace(-1, 1, len(found))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, layer in layers.items():
        dense, down, up = alone.model.get_submodule(name).weight.grad.double(), layer.down.double(), layer.up.double()
        for own, exact in ((layer.down, 2 * up.T @ dense), (layer.up, 2 * dense @ down.T)):
            assert float((own.grad.double() - exact).norm() / exact.norm()) < 0.02, name
    trained = {id(weight) for layer in layers.values() for weight in (layer.down, layer.up)}
    assert all((parameter.grad is not None) == (id(parameter) in trained) for parameter in policy.parameters())
