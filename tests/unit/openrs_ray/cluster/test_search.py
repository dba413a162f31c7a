"""The cheapest changes that fit: against every combination, with their price, and with what they are called."""

import re
from itertools import product

import pytest
from places import ROOT

from openrs_ray.cluster.cards import card
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.forecast import forecast
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.cluster.search import Found, Search
from openrs_ray.cluster.shapes import shipped_shape
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

GIB = 2**30
CARD_24 = 24564 * 2.0**20
ONE_GPU = (
    "--rollout.staleness=0", "--placement.colocated=true", "--placement.num_learner_gpus=1", "--engine.gpu_memory_fraction=0.4",
)  # fmt: skip
RTX_4090 = card("RTX 4090")


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    found = shipped_shape("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
    assert found is not None
    return found


def paper(*overrides: str) -> RunConfig:
    return load_config(ROOT / "launch" / "recipes" / "open-rs3.yaml", list(overrides))


def typed(found: Found) -> list[str]:
    return [f"--{field}={str(value).lower()}" for field, value in found.options.items()]


def step_s(shape: ModelShape, gpu_bytes: float, *overrides: str) -> float:
    assert RTX_4090 is not None
    return forecast(paper(*ONE_GPU, *overrides), shape, RTX_4090, gpu_bytes, 0)[0].step_s


@pytest.mark.parametrize("gib", [23.99, 44])
def test_no_other_combination_is_cheaper(shape: ModelShape, gib: float) -> None:
    """Of all of the usual changes, each tried by itself. A change more may save up to a twentieth of the step."""
    assert RTX_4090 is not None
    (found, *_) = Search(paper(*ONE_GPU), shape, gib * GIB, RTX_4090).cheapest({})
    assert all(one.fits(gib * GIB) for one in plan(paper(*ONE_GPU, *typed(found)), shape, gib * GIB))
    assert found.step_s[0] == pytest.approx(step_s(shape, gib * GIB, *typed(found)))
    fields = {
        "rollout.sleep_while_learning": ["true"], "learner.optimizer": ["adamw_8bit", "adamw_offload"],
        "learner.offload_reference": ["true"], "learner.micro_batch_tokens": ["4096"],
        "learner.gradient_checkpointing": ["true"], "engine.gpu_memory_fraction": ["0.3"],
    }  # fmt: skip
    tried = 0
    for values in product(*([None, *each] for each in fields.values())):
        options = [f"--{field}={value}" for field, value in zip(fields, values, strict=True) if value]
        if not all(one.fits(0.92 * gib * GIB) for one in plan(paper(*ONE_GPU, *options), shape, gib * GIB)):
            continue
        tried += 1
        seconds = step_s(shape, gib * GIB, *options) + 0.05 * found.step_s[0] * max(
            0, len(options) - len(found.options)
        )
        assert seconds > found.step_s[0] - 0.1, options
    assert tried > 3


def test_on_a_24_gb_card_it_is_the_optimizer_in_the_hosts_memory(shape: ModelShape) -> None:
    with pytest.raises(UserError) as refused:
        check_fits(paper(*ONE_GPU), shape, Machine(CARD_24, RTX_4090))
    said = str(refused.value)
    first, *_, last = said.partition("the cheapest change that fits is ")[2].split(", or ")
    assert first.startswith("--learner.optimizer adamw_offload --rollout.sleep_while_learning true (")
    price = re.search(
        r"\(([\d.]+) GiB and ([\d.]+) of the host's, on RTX 4090 (\d+) to (\d+) s a step, ([+-][\d.]+) to", first
    )
    assert price is not None
    peak, host, least, _, more = map(float, price.groups())
    assert peak < 0.92 * CARD_24 / GIB and host == pytest.approx(
        (18 * 1_777_088_000 + 2 * 151936 * 1536) / GIB, abs=0.1
    )
    options = ("--learner.optimizer=adamw_offload", "--rollout.sleep_while_learning=true")
    assert least == pytest.approx(step_s(shape, CARD_24, *options), abs=0.5)
    # By hand: 42 bytes a weight in the host's memory and 6 over PCIe, instead of 28 in the GPU's.
    by_hand = 1_777_088_000 * (42 / 60e9 + 6 / 24e9 - 28 / (0.75 * 1008e9))
    assert more == pytest.approx(by_hand, abs=0.06)
    # What needs no memory of the host stands beside it, and says what it is.
    assert last.startswith("--learner.lora.rank 32") and "another training, of adapters instead of all weights" in last


def test_a_small_host_is_not_offered_what_it_cannot_hold(shape: ModelShape) -> None:
    with pytest.raises(UserError) as refused:
        check_fits(paper(*ONE_GPU), shape, Machine(CARD_24, RTX_4090, host_bytes=24 * GIB))
    ways = str(refused.value).partition("the cheapest change that fits is ")[2].split(", or ")
    assert all("adamw_offload" not in way and "another training" in way for way in ways)


def test_on_12_gb_it_is_adapters(shape: ModelShape) -> None:
    with pytest.raises(UserError) as refused:
        check_fits(paper(*ONE_GPU), shape, Machine(12282 * 2.0**20, card("RTX 4070")))
    ways = str(refused.value).partition("the cheapest change that fits is ")[2].split(", or ")
    assert all(way.startswith("--learner.lora.rank 32") and "another training" in way for way in ways)
    assert "sampled with weights of 8 bits" in ways[-1]  # much faster: the cache has room for more completions


def test_an_unknown_card_has_the_price_of_a_known_one(shape: ModelShape) -> None:
    with pytest.raises(UserError, match="on A40"):
        check_fits(paper(*ONE_GPU), shape, Machine(CARD_24))
