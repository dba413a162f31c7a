"""An adapter merged into a weight, against the exact sum in float64."""

import pytest
import torch

from openrs_ray.models.merging import merged


def young_adapter(size: int, rank: int, step: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A bfloat16 weight, and an adapter after one step of Adam at this learning rate."""
    generator = torch.Generator().manual_seed(seed)
    base = (0.02 * torch.randn(size, size, generator=generator)).bfloat16()
    down = torch.randn(rank, size, generator=generator) * (3 * size) ** -0.5
    up = step * torch.randn(size, rank, generator=generator).sign()
    return base, down.bfloat16(), up.bfloat16()


def kept(weight: torch.Tensor, base: torch.Tensor, change: torch.Tensor) -> float:
    """Share of `change` that the weight has received."""
    return float(((weight.double() - base.double()) * change).sum() / change.square().sum())


@pytest.mark.parametrize("step", [1e-6, 1e-5, 1e-3])
def test_a_change_far_below_the_last_digit_is_kept_on_average(step: float) -> None:
    base, down, up = young_adapter(512, 8, step)
    change = 2 * up.double() @ down.double()
    found = merged(base, down, up, 2.0)
    assert kept(found, base, change) == pytest.approx(1, abs=0.1)
    nearest = (base.double() + change).bfloat16()
    assert step > 1e-5 or kept(nearest, base, change) < 0.2, "which rounding to the nearest would lose"


def test_every_number_is_a_neighbour_of_the_exact_sum_and_always_the_same() -> None:
    base, down, up = young_adapter(512, 8, 1e-3)
    exact = base.double() + 2 * up.double() @ down.double()
    found = merged(base, down, up, 2.0)
    last_digit = torch.exp2(torch.floor(torch.log2(exact.abs())) - 7)
    assert found.dtype == torch.bfloat16 and bool(((found.double() - exact).abs() <= 1.01 * last_digit).all())
    assert abs(float(((found.double() - exact) / last_digit).mean())) < 0.01, "as often up as down"
    assert torch.equal(found, merged(base, down, up, 2.0))


def test_an_adapter_of_zero_changes_no_bit() -> None:
    base, down, up = young_adapter(64, 4, 0.0)
    assert torch.equal(merged(base, down, up, 2.0), base)


def test_in_float32_it_is_the_sum_and_the_base_stays() -> None:
    base, down, up = (tensor.float() for tensor in young_adapter(64, 4, 1e-3))
    before = base.clone()
    exact = base.double() + 0.5 * up.double() @ down.double()
    torch.testing.assert_close(merged(base, down, up, 0.5).double(), exact, rtol=1e-6, atol=1e-8)
    assert torch.equal(base, before)


def test_other_formats_are_refused() -> None:
    base, down, up = young_adapter(64, 4, 1e-3)
    with pytest.raises(ValueError, match="float16"):
        merged(base.half(), down, up, 1.0)
