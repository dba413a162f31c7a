"""Bucket layout and digest: what the proof of a push rests on."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from openrs_ray.weights.buckets import Bucket, ParameterSpec, plan_buckets
from openrs_ray.weights.digest import BLOCK_BYTES, column_digests, digest


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


@pytest.mark.parametrize("piece_bytes", [1, 16, 100, 4096])
def test_pieces_of_a_bucket_are_its_bytes(piece_bytes: int) -> None:
    parameters = random_parameters(1)
    (bucket,) = plan_buckets(specs(parameters), 1 << 20)
    tensors = [parameters[spec.name] for spec in bucket.parameters]
    whole = bucket.pack(tensors, torch.full((bucket.nbytes,), 255, dtype=torch.uint8))
    pieces = torch.full_like(whole, 255)
    for start in range(0, bucket.nbytes, piece_bytes):
        bucket.pack_part(tensors, start, pieces[start : start + piece_bytes])
    assert torch.equal(pieces, whole)


def test_pack_refuses_a_tensor_that_is_not_what_was_agreed() -> None:
    bucket = Bucket((ParameterSpec("weight", "float32", (4,)),))
    with pytest.raises(ValueError, match="weight"):
        bucket.pack([torch.zeros(4, dtype=torch.bfloat16)], torch.empty(64, dtype=torch.uint8))


def python_weight(position: int) -> int:
    """The weight of a position (from 1) in Python integers, with the shift of a signed 64-bit integer."""
    weight = (position * 0x9E3779B97F4A7C15) % 2**64
    signed = weight - 2**64 if weight >= 2**63 else weight
    return (signed ^ (signed >> 29)) | 1


def python_digest(content: bytes) -> int:
    """The documented sum in plain integers, wrapped to a signed 64-bit number at the end."""
    words = np.frombuffer(content + b"\0" * (-len(content) % 4), dtype=np.int32)
    total = 0
    for position, word in enumerate(words.tolist()):
        block, place = divmod(position, 1 << 16)
        total += word * python_weight(1 + place) * python_weight(1 + (1 << 16) + block)
    total %= 2**64
    return total - 2**64 if total >= 2**63 else total


@pytest.mark.parametrize("size", [1, 4, 7, 1000, 4099, BLOCK_BYTES, 3 * BLOCK_BYTES + 1001])
def test_digest_equals_exact_integer_arithmetic(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert int(digest(torch.from_numpy(content))) == python_digest(content.tobytes())


def test_digest_is_the_same_however_many_blocks_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block at a time as on a CPU, 64 as on a GPU."""
    size = 5 * BLOCK_BYTES + 77
    content = torch.from_numpy(np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8))
    matrix = content[: 5 * BLOCK_BYTES].view(torch.float32).view(-1, 80)
    whole, columns = int(digest(content)), column_digests(matrix)
    for blocks in (2, 64):
        monkeypatch.setattr("openrs_ray.weights.digest._blocks_at_once", lambda device, count=blocks: count)
        assert int(digest(content)) == whole and torch.equal(column_digests(matrix), columns)


def test_digests_of_parts_add_up_to_that_of_the_whole() -> None:
    content = torch.from_numpy(np.random.default_rng(2).integers(0, 256, 4 * BLOCK_BYTES + 7, dtype=np.uint8))
    cuts = [0, BLOCK_BYTES, 3 * BLOCK_BYTES, content.numel()]
    parts = [digest(content[start:end], start) for start, end in pairwise(cuts)]
    assert int(sum(parts)) == int(digest(content))
    assert int(digest(content[:BLOCK_BYTES]) + digest(content[BLOCK_BYTES:])) != int(digest(content)), (
        "the place counts"
    )


def test_digest_sees_blocks_that_change_places_and_two_signs_that_flip() -> None:
    weights = torch.randn(3 * BLOCK_BYTES // 4)
    before = int(digest(weights.view(torch.uint8)))
    first, second, third = weights.chunk(3)
    flipped = weights.clone()
    flipped[[7, BLOCK_BYTES // 4 + 7]] *= -1
    moved = torch.cat([second, first, third])
    assert before not in {int(digest(other.view(torch.uint8))) for other in (flipped, moved)}


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
