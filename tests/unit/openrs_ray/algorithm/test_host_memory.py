"""Offloading a frozen policy and activations; test_learner shows that a whole learner computes the same with it."""

import weakref
from pathlib import Path

import pytest
import torch
from tiny import make_sequences, save_model

from openrs_ray.algorithm import host_memory
from openrs_ray.algorithm.host_memory import FrozenOnHost, activations_on_host
from openrs_ray.algorithm.packing import pack
from openrs_ray.algorithm.policy import Policy, load_policy, micro_batch_arguments

CPU = torch.device("cpu")


def loaded(tmp_path: Path) -> Policy:
    return load_policy(str(save_model(tmp_path, tied=True)), "bfloat16", 64)


def test_a_frozen_policy_is_on_the_device_during_a_visit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a second place in the same memory: there is no GPU to visit."""
    policy, visits = loaded(tmp_path), list[weakref.ref[torch.UntypedStorage]]()

    def on_device(self: FrozenOnHost) -> torch.Tensor:
        there = self._home.clone()
        visits.append(weakref.ref(there.untyped_storage()))
        return there

    monkeypatch.setattr(FrozenOnHost, "_on_device", on_device)
    before = {name: parameter.clone() for name, parameter in policy.model.named_parameters()}
    frozen = FrozenOnHost(policy, CPU)
    (home,) = places(policy)
    for _ in range(2):
        with frozen.visit() as there:
            assert len(places(there)) == 1 and home not in places(there)
            assert there.head.weight is there.model.get_input_embeddings().weight  # tied
            assert all(torch.equal(p, before[name]) for name, p in there.model.named_parameters())
        assert places(policy) == {home} and visits[-1]() is None
    with pytest.raises(RuntimeError, match="out of memory"), frozen.visit():
        raise RuntimeError("out of memory")
    assert places(policy) == {home}
    assert all(torch.equal(p, before[name]) and not p.requires_grad for name, p in policy.model.named_parameters())


def places(policy: Policy) -> set[int]:
    return {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}


def test_every_layers_input_waits_on_the_host_and_gradients_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, left = loaded(tmp_path), list[torch.Tensor]()
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    arguments = micro_batch_arguments(pack(make_sequences(9)), CPU)

    def gradients() -> list[torch.Tensor]:
        policy.zero_grad()
        policy(**arguments, temperature=1.0).sum().backward()
        return [parameter.grad.clone() for parameter in policy.parameters()]

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        left.append(tensor)
        return tensor.clone()

    expected = gradients()
    monkeypatch.setattr(host_memory, "_copy_on_host", copied)
    with activations_on_host(64):
        got = gradients()
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    tokens = len(arguments["token_ids"])
    # Of two layers and the last norm, which keeps its input in float32 and what it made of it.
    assert [tuple(tensor.shape) for tensor in left[:2]] == [(1, tokens, 64)] * 2
    assert len(left) <= 2 + 3, [tensor.shape for tensor in left]
