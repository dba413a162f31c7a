"""What a teacher adds to the plan of memory and time, by arithmetic: the paper's model learning from one of its own size."""

from dataclasses import replace

import pytest
from planned import paper_shape, recipe

from openrs_ray.cluster.cards import card
from openrs_ray.cluster.forecast import forecast
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig

PARAMETERS, HEAD, HIDDEN = 1_777_088_000, 151936 * 1536, 1536
TAUGHT = ("--loss.kind=distill", "--loss.teacher.path=a/teacher", "--loss.kl_beta=0")


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return replace(paper_shape(), teacher=paper_shape())


def parts(config: RunConfig, shape: ModelShape, when: str = "in the backward pass") -> dict[str, float]:
    return learner_phases(config, shape, True)[when]


def test_a_teacher_on_the_gpu_takes_its_weights_at_all_times(shape: ModelShape) -> None:
    config = recipe("one-gpu-80gb", *TAUGHT)
    assert all(phase["teacher"] == 2 * PARAMETERS for phase in learner_phases(config, shape, True).values())
    assert "teacher" not in host_parts(config, shape)
    alone = recipe("one-gpu-80gb", "--loss.kl_beta=0")
    assert parts(alone, replace(shape, teacher=None))["teacher"] == 0


def test_an_offloaded_teacher_leaves_its_head_and_waits_on_the_host(shape: ModelShape) -> None:
    config = recipe("one-gpu-80gb", *TAUGHT, "--loss.teacher.offload=true")
    assert parts(config, shape)["teacher"] == 2 * HEAD
    assert parts(config, shape, "in a push")["teacher"] == 0
    assert parts(config, shape, "in the teacher's pass")["teacher"] == 2 * (PARAMETERS + HEAD)
    longest = config.completions_per_step * config.rollout.max_completion_tokens
    assert host_parts(config, shape)["teacher"] == 2 * PARAMETERS + 2 * HIDDEN * longest
    sampled = recipe("one-gpu-80gb", *TAUGHT, "--loss.teacher.offload=true", "--loss.teacher.top_k=0")
    assert parts(sampled, shape)["teacher"] == 0 and host_parts(sampled, shape)["teacher"] == 2 * PARAMETERS


def test_a_teacher_costs_one_forward_pass_more(shape: ModelShape) -> None:
    """As much as a reference of the same size."""
    gpu = card("H100")
    assert gpu is not None
    plain = replace(shape, teacher=None)
    taught, alone, penalised = (
        forecast(recipe("one-gpu-80gb", *options), its, gpu, None, 0)[0].learning_s
        for options, its in (
            (TAUGHT, shape),
            (("--loss.kl_beta=0",), plain),
            (("--loss.kl_beta=0.04",), plain),
        )
    )
    assert taught - alone == pytest.approx(penalised - alone) and taught > 1.1 * alone
