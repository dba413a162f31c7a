"""`rollout.stages` in a recipe and on a command line: what follows from it, and one sentence for what does not fit."""

from pathlib import Path
from typing import Any

import pytest
from system import system_config

from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

RECIPE = """
run: {name: staged, folder: /runs, steps: 100}
model: {path: toy}
data: {path: toy}
rollout:
  problems_per_step: 12
  completions_per_problem: 6
  stages:
    - {max_completion_tokens: 128, max_prompt_tokens: 64, until: {step: 20, truncated_share_below: 0.1}}
    - {max_completion_tokens: 256, temperature: 0.7, until: {truncated_share_above: 0.3, window: 5}}
    - {max_completion_tokens: 512}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "staged.yaml"
    path.write_text(RECIPE)
    return path


def test_lengths_are_those_of_the_longest_stage_and_open_ones_those_of_the_run(recipe: Path) -> None:
    config = load_config(recipe, ["--rollout.temperature", "0.9"])
    assert config.rollout.max_completion_tokens == 512 and config.max_sequence_tokens == 512 + 512
    found = [(s.max_completion_tokens, s.max_prompt_tokens, s.temperature) for s in config.rollout.each_stage]
    assert found == [(128, 64, 0.9), (256, 512, 0.7), (512, 512, 0.9)]
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config, "as a run's config.json has it"
    (one,) = load_config(recipe, ["--rollout.stages", "[]", "--rollout.max_completion_tokens", "99"]).rollout.each_stage
    assert (one.max_completion_tokens, one.until) == (99, None)


def test_a_command_line_takes_the_place_of_all_stages(recipe: Path) -> None:
    words = ["--rollout.stages", "[{max_completion_tokens: 32, until: {step: 5}}, {max_completion_tokens: 16}]"]
    config = load_config(recipe, words)
    assert config.rollout.max_completion_tokens == 32, "a stage may be shorter than the one before"
    assert config.rollout.stages[0].until is not None and config.rollout.stages[0].until.step == 5


def test_a_command_line_changes_one_field_of_a_stage(recipe: Path) -> None:
    config = load_config(recipe, ["--rollout.stages[1].temperature", "0.5", "--rollout.stages[0].until.step=7"])
    first, second, third = config.rollout.stages
    assert (first.until and first.until.step, second.temperature, third.temperature) == (7, 0.5, None)


REFUSED: dict[str, tuple[list[str], str]] = {
    "another length": (
        ["--rollout.max_completion_tokens", "384"],
        r"rollout.max_completion_tokens \(384\) must be that of the longest of rollout.stages \(512\): set it to 512, or leave",
    ),
    "an endless stage": (
        ["--rollout.stages", "[{max_completion_tokens: 8}, {max_completion_tokens: 16}]"],
        r"rollout.stages\[0\] needs `until`",
    ),
    "an end of the last": (
        ["--rollout.stages", "[{max_completion_tokens: 8, until: {step: 3}}]"],
        r"rollout.stages\[0\].until must be left out",
    ),
    "the other way round": (
        [
            "--rollout.stages",
            "[{max_completion_tokens: 8, until: {step: 3}}, {max_completion_tokens: 8, until: {step: 3}}, "
            "{max_completion_tokens: 8}]",
        ],
        r"rollout.stages\[1\].until.step \(3\) must be above that of rollout.stages\[0\] \(3\)",
    ),
    "no step of the run": (
        ["--run.steps", "20"],
        r"rollout.stages\[0\].until.step \(20\) must be below run.steps \(20\)",
    ),
    "no prompt": (
        ["--rollout.stages", "[{max_completion_tokens: 8, min_prompt_tokens: 9, max_prompt_tokens: 8}]"],
        r"rollout.stages\[0\].min_prompt_tokens \(9\) must not be above its max_prompt_tokens \(8\)",
    ),
    "no condition": (
        ["--rollout.stages", "[{max_completion_tokens: 8, until: {window: 3}}, {max_completion_tokens: 8}]"],
        "needs step, truncated_share_below or truncated_share_above",
    ),
    "a misspelt field": (
        ["--rollout.stages", "[{max_completion_tokens: 8, until: {steps: 3}}, {max_completion_tokens: 8}]"],
        r"--rollout.stages\[0\].until.steps is not a field; the nearest one is rollout.stages\[0\].until.step\.",
    ),
    "a misspelt field that must be given": (
        ["--rollout.max_completion_tokens", "8", "--rollout.stages", "[{max_completion_token: 8}]"],
        r"max_completion_token is not a field; the nearest one is rollout.stages\[0\].max_completion_tokens",
    ),
    "no space after a colon": (
        ["--rollout.max_completion_tokens", "8", "--rollout.stages", "[{max_completion_tokens:8}]"],
        r"tokens:8 is not a field: in YAML a space follows the colon after rollout.stages\[0\].max_completion_tokens\.",
    ),
    "a value of another kind": (
        ["--rollout.stages[0].until.step", "soon"],
        r"--rollout.stages\[0\].until.step is \"soon\"; allowed: whole number > 0",
    ),
    "no such stage": (
        ["--rollout.stages[3].temperature", "1"],
        r"--rollout.stages\[3\].temperature is not a field",
    ),
    "an entry by a dot": (
        ["--rollout.stages.1.temperature", "1"],
        r"rollout.stages is a list here, so say which one is meant, such as rollout.stages\[1\].temperature",
    ),
    "a punishment longer than a stage": (
        [
            *("--rewards.weights", "{accuracy: 1.0, soft_overlong: 1.0}"),
            *("--rewards.soft_overlong", "{max_length: 512, buffer: 256}"),
        ],
        r"rewards.soft_overlong.buffer \(256\) must not be above .* nor above max_completion_tokens of any of rollout.stages "
        r"\(128\)",
    ),
    "places that mix temperatures": (
        [
            *("--rollout.staleness", "1", "--loss.normalization", "local_micro_batch"),
            *("--learner.micro_batch_sequences", "6", "--placement.num_learner_gpus", "1"),
        ],
        "rollout.stages of several temperatures need rollout.staleness 0 with loss.normalization local_micro_batch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(recipe: Path, case: str) -> None:
    words, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence) as error:
        load_config(recipe, words)
    assert len(str(error.value).splitlines()) <= 2


def test_prompts_that_no_stage_would_take_are_a_mistake(recipe: Path) -> None:
    last = "{max_completion_tokens: 8, max_prompt_tokens: 96}"
    stages = f"[{{max_completion_tokens: 8, max_prompt_tokens: 64, until: {{step: 3}}}}, {last}]"
    assert load_config(recipe, ["--rollout.stages", stages]).rollout.max_prompt_tokens == 96
    with pytest.raises(UserError, match=r"rollout.max_prompt_tokens \(512\) must be that of the longest"):
        load_config(recipe, ["--rollout.stages", stages, "--rollout.max_prompt_tokens", "512"])


@pytest.mark.parametrize(
    ("steps_of_stages", "steps", "ends"),
    [
        ([None], 100, [100]),
        ([20, None], 100, [20, 100]),
        ([None, None], 100, [50, 100]),  # even parts
        ([20, None, None], 100, [20, 60, 100]),
        ([None, 40, None], 100, [20, 40, 100]),
        ([None, None, 90, None], 100, [30, 60, 90, 100]),
    ],
)
def test_planned_ends(tmp_path: Path, steps_of_stages: list[int | None], steps: int, ends: list[int]) -> None:
    def stage(end: int | None, last: bool) -> dict[str, Any]:
        until = {"step": end} if end else {"truncated_share_below": 0.1}
        return {"max_completion_tokens": 8} | ({} if last else {"until": until})

    stages = [stage(end, n == len(steps_of_stages) - 1) for n, end in enumerate(steps_of_stages)]
    config = system_config(
        tmp_path, tmp_path, run={"steps": 200}, rollout={"max_completion_tokens": 8, "stages": stages}
    )
    assert config.rollout.planned_ends(steps) == ends


RESET = {"reference_reset_after": 2, "kl_beta": 0.04}
HELD_OUT = {"hold_out": 8, "every_steps": 10}
UNFIT: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "no reference": ({"loss": {**RESET, "kl_beta": 0.0}, "evaluation": HELD_OUT}, "set loss.kl_beta above 0"),
    "no evaluation": ({"loss": RESET, "evaluation": {"hold_out": 8}}, "set evaluation.every_steps"),
    "no right and wrong": (
        {"loss": RESET, "evaluation": HELD_OUT, "answer": {"kind": "none"}, "rewards": {"weights": {"format": 1.0}}},
        "of problems with right and wrong answers",
    ),
    "adapters": (
        {"loss": RESET, "evaluation": HELD_OUT, "learner": {"lora": {"rank": 4}}},
        "must be 0 with adapters",
    ),
    "no policies": (
        {"loss": RESET, "evaluation": HELD_OUT, "checkpoint": {"keep_policies": False}},
        "needs checkpoint.keep_policies true",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_reference_that_cannot_be_reset_is_refused(tmp_path: Path, case: str) -> None:
    changes, sentence = UNFIT[case]
    with pytest.raises(ValueError, match=sentence):
        system_config(tmp_path, tmp_path, **changes)
    assert system_config(tmp_path, tmp_path, loss=RESET, evaluation=HELD_OUT).loss.reference_reset_after == 2
