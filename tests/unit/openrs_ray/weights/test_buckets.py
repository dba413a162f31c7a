"""Bucket layout and digest: what the proof of a push rests on."""

import numpy as np
import pytest
import torch

from openrs_ray.weights.buckets import Bucket, ParameterSpec, plan_buckets
from openrs_ray.weights.digest import digest


def random_parameters(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed": (64, 24), "bias": (7,), "half": (5, 3), "scalar": (1,), "head": (64, 24)}
    kinds = {"half": torch.bfloat16, "bias": torch.bfloat16}
    return {
        name: torch.randn(shape, generator=generator).to(kinds.get(name, torch.float32))
        for name, shape in shapes.items()
    }


def specs(parameters: dict[str, torch.Tensor]) -> list[ParameterSpec]:
    return [ParameterSpec(n, str(p.dtype).removeprefix("torch."), tuple(p.shape)) for n, p in parameters.items()]


@pytest.mark.parametrize("bucket_bytes", [1, 100, 6200, 1 << 20])
def test_every_parameter_survives_the_journey_in_order(bucket_bytes: int) -> None:
    parameters = random_parameters(0)
    arrived = []
    for bucket in plan_buckets(specs(parameters), bucket_bytes):
        buffer = torch.full((bucket.nbytes,), 255, dtype=torch.uint8)
        bucket.pack([parameters[spec.name] for spec in bucket.parameters], buffer)
        arrived += bucket.unpack(buffer.clone())
    assert [name for name, _ in arrived] == list(parameters)
    for name, tensor in arrived:
        assert tensor.dtype == parameters[name].dtype and torch.equal(tensor, parameters[name])


def test_buckets_respect_their_size_unless_one_parameter_is_larger() -> None:
    buckets = plan_buckets(specs(random_parameters(0)), 200)
    assert all(bucket.nbytes <= 200 or len(bucket.parameters) == 1 for bucket in buckets)
    assert len(buckets) == 3


def test_pack_refuses_a_tensor_that_is_not_what_was_agreed() -> None:
    bucket = Bucket((ParameterSpec("weight", "float32", (4,)),))
    with pytest.raises(ValueError, match="weight"):
        bucket.pack([torch.zeros(4, dtype=torch.bfloat16)], torch.empty(64, dtype=torch.uint8))


def python_digest(content: bytes) -> int:
    """The documented sum in plain integers, wrapped to a signed 64-bit number at the end."""
    words = np.frombuffer(content + b"\0" * (-len(content) % 4), dtype=np.int32)
    total = 0
    for position, word in enumerate(words.tolist(), start=1):
        weight = (position * 0x9E3779B97F4A7C15) % 2**64
        signed = weight - 2**64 if weight >= 2**63 else weight
        weight = (signed ^ (signed >> 29)) | 1
        total += word * weight
    total %= 2**64
    return total - 2**64 if total >= 2**63 else total


@pytest.mark.parametrize("size", [1, 4, 7, 1000, 4099])
def test_digest_equals_exact_integer_arithmetic(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert int(digest(torch.from_numpy(content))) == python_digest(content.tobytes())


def test_digest_is_the_same_across_its_internal_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    content = torch.from_numpy(np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8))
    whole = int(digest(content))
    monkeypatch.setattr("openrs_ray.weights.digest._CHUNK_WORDS", 77)
    assert int(digest(content)) == whole


def test_digest_sees_one_bit_one_swap_and_one_tiny_update() -> None:
    weights = torch.randn(1000)
    before = int(digest(weights.view(torch.uint8)))
    flipped = weights.view(torch.uint8).clone()
    flipped[1234] ^= 1
    swapped = weights.clone()
    swapped[[3, 4]] = weights[[4, 3]]
    nudged = weights.clone()
    nudged[500] = torch.nextafter(nudged[500], torch.tensor(10.0))
    assert before not in {int(digest(other.view(torch.uint8))) for other in (flipped, swapped, nudged)}
