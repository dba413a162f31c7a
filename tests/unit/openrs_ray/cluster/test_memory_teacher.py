"""What a teacher adds to the plan of memory and time, by arithmetic: the paper's model learning from one of its own size."""

from dataclasses import replace

import pytest
from planned import paper_shape, recipe

from openrs_ray.cluster.cards import card
from openrs_ray.cluster.changes import changed, shorter
from openrs_ray.cluster.disk import disk_parts
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.forecast import forecast
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.machine import Machine
from openrs_ray.cluster.memory import memory_text
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

GIB = 2**30
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


def test_a_teacher_whose_engine_would_have_no_room_is_refused_where_it_is_measured(shape: ModelShape) -> None:
    """A 14-billion teacher in 0.3 of 80 GiB: the learner may offload it, an engine cannot."""
    large, smaller = (replace(paper_shape(), parameter_shapes=((count,),)) for count in (14_000_000_000, 9_000_000_000))
    offloaded = (*TAUGHT, "--loss.teacher.offload=true", "--engine.gpu_memory_fraction=0.3", "--evaluation.hold_out=64")
    fits = Machine(80 * GIB, host_bytes=500 * GIB)
    with pytest.raises(UserError, match=r"the teacher, which is measured .* has 26\.1 GiB of weights"):
        check_fits(recipe("one-gpu-80gb", *offloaded), replace(shape, teacher=large), fits)
    check_fits(recipe("one-gpu-80gb", *offloaded, "--evaluation.hold_out=0"), replace(shape, teacher=large), fits)
    check_fits(recipe("one-gpu-80gb", *offloaded), replace(shape, teacher=smaller), fits)
    longer = recipe("one-gpu-80gb", *offloaded, "--evaluation.max_completion_tokens=300000")
    with pytest.raises(UserError, match=r"no room for one completion of 300512 tokens"):
        check_fits(longer, replace(shape, teacher=smaller), fits)
    check_fits(recipe("one-gpu-80gb", *offloaded), shape, fits)


def test_an_evaluation_with_a_limit_of_its_own_takes_its_time_and_its_room(shape: ModelShape) -> None:
    gpu = card("H100")
    assert gpu is not None
    alone = replace(shape, teacher=None)
    plain, longer = (recipe("one-gpu-80gb", *more) for more in ((), ("--evaluation.max_completion_tokens=32256",)))
    assert longer.max_served_tokens == 32256 + longer.rollout.max_prompt_tokens
    for end in (0, 1):
        hours = [forecast(config, alone, gpu, 80 * GIB, 128)[end].hours for config in (plain, longer)]
        assert hours[1] > hours[0]
    for gib in (24, 80):  # what the cache holds of training completions is the same
        steps = [forecast(config, alone, gpu, gib * GIB, 0) for config in (plain, longer)]
        assert steps[0] == steps[1]
    records = [disk_parts(config, alone, 128)["completions"] for config in (plain, longer)]
    extra = 2 * 128 * longer.evaluation.samples * (32256 - plain.rollout.max_completion_tokens)
    assert records[1] - records[0] == pytest.approx(extra * records[0] / sampled_tokens(plain, 128))


def sampled_tokens(config: RunConfig, held_out: int) -> int:
    trained = config.run.steps * config.rollout.most_drawn_per_step * config.rollout.completions_per_problem
    return (trained + 2 * held_out * config.evaluation.samples) * config.rollout.max_completion_tokens


def test_stages_hold_as_many_training_completions_whatever_evaluations_have(shape: ModelShape) -> None:
    alone = replace(shape, teacher=None)
    plain, longer = (
        memory_text(recipe("fastcurl-stages", *more), alone, 44 * GIB)
        for more in ((), ("--evaluation.max_completion_tokens=24000",))
    )
    ends = [[line.partition("in stage 1")[2] for line in text if "in stage 1" in line] for text in (plain, longer)]
    assert ends[0] == ends[1] and ends[0]


def test_a_limit_of_evaluations_that_cannot_be_served_is_what_is_lowered(shape: ModelShape) -> None:
    alone = replace(shape, teacher=None)
    asked = recipe("one-gpu-24gb", "--evaluation.hold_out=64", "--evaluation.max_completion_tokens=500000")
    with pytest.raises(
        UserError, match=r"tokens \(rollout\.max_prompt_tokens \+ evaluation\.max_completion_tokens\)"
    ) as refused:
        check_fits(asked, alone, Machine(24 * GIB, host_bytes=64 * GIB))
    assert "--evaluation.max_completion_tokens " in str(refused.value)


def test_where_both_limits_are_too_long_both_are_lowered() -> None:
    asked = recipe("one-gpu-24gb", "--evaluation.hold_out=64", "--evaluation.max_completion_tokens=3584")
    served = [changed(asked, options).max_served_tokens - asked.rollout.max_prompt_tokens for options in shorter(asked)]
    assert served == [3584 // by for by in (2, 4, 8, 16)]
