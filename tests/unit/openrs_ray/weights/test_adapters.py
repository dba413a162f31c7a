"""Base and adapters as an engine receives them: merged in any order, refused where a half is missing."""

import pytest
import torch

from openrs_ray.models.merging import merged
from openrs_ray.weights.adapters import Adapted, pairs, squared_change

CPU = torch.device("cpu")
DIGESTS = [torch.tensor(1), torch.tensor(2)]
BASE = [
    [("base:embed.weight", torch.randn(8, 4)), ("base:q.weight", torch.randn(6, 4))],
    [("base:q.bias", torch.randn(6))],
]


def adapter(seed: int) -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        ("lora_A:q.weight", torch.randn(2, 4, generator=generator)),
        ("lora_B:q.weight", torch.randn(6, 2, generator=generator)),
        ("lora_scale", torch.tensor([2.0], dtype=torch.float64)),
    ]


def received(*pushes: tuple[bool, list[tuple[str, torch.Tensor]]]) -> Adapted:
    """After pushes of the base, or not, and adapters."""
    found = Adapted()
    for base, adapters in pushes:
        found.begin()
        for bucket, digest in zip(BASE if base else (), DIGESTS, strict=False):
            assert found.take(bucket, digest)
        assert not adapters or not found.take(adapters, torch.tensor(3))
    return found


def loaded(of: Adapted) -> dict[str, torch.Tensor]:
    return dict(pair for weights in of.policy(CPU) for pair in weights)


def test_adapters_are_merged_into_the_base_not_into_what_was_pushed_before() -> None:
    found = received((True, adapter(1)), (False, adapter(2)))
    weights, (down, up) = loaded(found), pairs(dict(adapter(2)))["q"]
    assert torch.equal(weights["q.weight"], merged(BASE[0][1][1], down, up, 2.0))
    assert torch.equal(weights["embed.weight"], BASE[0][0][1]) and torch.equal(weights["q.bias"], BASE[1][0][1])
    assert found.base_digests == DIGESTS and found.without_place() == []


def test_nothing_is_loaded_without_adapters_or_without_a_base() -> None:
    assert loaded(received((True, []))) == {} and loaded(received((True, adapter(1)), (False, []))) == {}
    lost = received((False, adapter(1)))
    assert loaded(lost) == {} and lost.base_digests == [] and len(lost.without_place()) == 2


def test_an_adapter_without_its_other_half_is_named() -> None:
    whole = adapter(1)
    assert received((True, [whole[0], whole[2]])).without_place() == ["lora_A:q.weight"]
    elsewhere = [(name.replace("q.", "k."), tensor) for name, tensor in whole]
    assert received((True, elsewhere)).without_place() == ["lora_A:k.weight", "lora_B:k.weight"]


def test_another_base_takes_the_place_of_the_first() -> None:
    found = received((True, adapter(1)), (True, adapter(1)))
    assert found.base_digests == DIGESTS and len(loaded(found)) == 3


def test_buckets_of_a_whole_policy_are_not_for_merging() -> None:
    found = Adapted()
    assert not found.accepts([("model.norm.weight", torch.ones(2))])
    assert found.accepts(BASE[0]) and found.accepts(adapter(1))


def pushed(step: float, dtype: torch.dtype, sent: float = 1.0) -> Adapted:
    """After a push of adapters as a step of that learning rate leaves them; `sent` is what was lost of them on the engine."""
    generator = torch.Generator().manual_seed(0)
    base = (0.02 * torch.randn(256, 128, generator=generator)).to(dtype)
    down = (torch.randn(4, 128, generator=generator) * 0.05).to(dtype)
    up = (step * torch.randn(256, 4, generator=generator).sign()).to(dtype)
    found = Adapted()
    found.begin()
    found.take([("base:q.weight", base)], DIGESTS[0])
    adapters = [
        ("lora_A:q.weight", down),
        ("lora_B:q.weight", (sent * up).to(dtype)),
        ("lora_square:q.weight", squared_change(down, up, 2.0)),
        ("lora_scale", torch.tensor([2.0], dtype=torch.float64)),
    ]
    found.take(adapters, DIGESTS[1])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [0.0, 1e-6, 1e-4, 1e-2])
def test_what_was_merged_is_what_the_learner_meant(step: float, dtype: torch.dtype) -> None:
    """Even a change smaller than the rounding passes; a weight without the change, or with another adapter's, is named."""
    whole, nothing, other = (pushed(step, dtype, sent) for sent in (1.0, 0.0, 2.0))
    assert whole.unmerged() == ([] if step == 0 else ["q.weight"]), "not merged yet"
    for found in (whole, nothing, other):
        loaded(found)
    assert whole.unmerged() == []
    assert nothing.unmerged() == ([] if step == 0 else ["q.weight"])
    assert dtype == torch.bfloat16 or other.unmerged() == ([] if step == 0 else ["q.weight"])


@pytest.mark.parametrize("step", [1e-11, 1e-9, 1e-8, 1e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_change_too_small_to_move_a_number_of_the_weight_is_no_fault(step: float, dtype: torch.dtype) -> None:
    """The first step of a long warm-up, at a thousandth of a learning rate of 1e-6, say."""
    found = pushed(step, dtype)
    loaded(found)
    assert found.unmerged() == []
