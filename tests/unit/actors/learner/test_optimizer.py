"""Parameters of the optimizers; their steps are tested in test_learner."""

import pytest
import torch

from actors.learner.optimizer import optimizer
from openrs_ray.config.learner import Learner


def parameter(elements: int, trained: bool = True) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(elements, device="meta"), requires_grad=trained)


def test_groups_of_8_bit_moments_have_elements_that_32_bits_count() -> None:
    """bitsandbytes passes the number of elements as a C int, which overflows for a model of 3 billion parameters."""
    sizes = [2**30, 2**30 - 1, 2**30, 5]
    made = optimizer(map(parameter, sizes), Learner(optimizer="adamw_8bit"))
    assert [[p.numel() for p in group["params"]] for group in made.param_groups] == [sizes[:2], sizes[2:]]


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit", "adamw_offload"])
def test_an_optimizer_has_the_settings_and_what_is_trained_only(kind: str) -> None:
    learner = Learner(optimizer=kind, learning_rate=0.1, weight_decay=0.2, adam_betas=(0.8, 0.9))
    parameters = [torch.nn.Parameter(torch.zeros(3), requires_grad=trained) for trained in (True, False)]
    (group,) = optimizer(parameters, learner).param_groups
    assert group["params"] == parameters[:1]
    assert (group["lr"], group["weight_decay"], tuple(group["betas"]), group["eps"]) == (0.1, 0.2, (0.8, 0.9), 1e-8)
