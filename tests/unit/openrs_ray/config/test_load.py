"""Recipes and command lines: what is accepted, and one clear sentence for what is not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from openrs_ray.config.fields import section_kinds
from openrs_ray.config.help import help_text
from openrs_ray.config.load import flat, load_config
from openrs_ray.config.resumable import FREE
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.schema import RunConfig
from openrs_ray.config.section import Section
from openrs_ray.errors import UserError
from openrs_ray.preparation.dry_run import dry_run_text
from openrs_ray.run.resume import check_resumable

RECIPE = """
run: {name: small, folder: /runs, steps: 10}
model: {path: toy}
data: {path: toy}
rollout:
  problems_per_step: 12
  completions_per_problem: 6
  max_completion_tokens: 100
learner:
  learning_rate: 1e-6
  zero_stage: 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def test_scientific_notation_is_a_number(recipe: Path) -> None:
    rate = load_config(recipe, []).learner.learning_rate
    assert isinstance(rate, float) and rate == 0.000001
    for text in ("2e-6", "2E-06", "0.000002", "2.0e-6"):
        assert load_config(recipe, ["--learner.learning_rate", text]).learner.learning_rate == 2e-6


def test_values_of_every_kind_can_be_given(recipe: Path) -> None:
    config = load_config(
        recipe,
        [
            *("--run.steps=20", "--run.steps", "30"),  # the last one counts
            *("--run.name", "2026-11-23", "--data.split", "no"),
            *("--data.columns.answer_after", "####", "--data.suffix", "Answer: [x"),
            *("--data.examples", "[{problem: 1 + 1, response: '2'}]"),
            *("--rewards.weights.format", "0.5", "--learner.adam_betas", "[0.9, 0.95]"),
            *("--placement", "{num_rollout_gpus: 2, num_learner_gpus: 2}", "--data.shuffle", "false"),
            *("--data.system_prompt", "null", "--model.path", "'quoted'", "--evaluation.problems", "null"),
        ],
    )
    assert config.run.steps == 30 and config.run.name == "2026-11-23"
    assert (
        config.data.split == "no" and config.data.columns.answer_after == "####" and config.data.suffix == "Answer: [x"
    )
    assert config.data.examples[0].response == "2"
    assert config.rewards.weights == {"accuracy": 2.0, "format": 0.5}
    assert config.learner.adam_betas == (0.9, 0.95)
    assert config.placement.num_rollout_gpus == config.placement.num_learner_gpus == 2
    assert config.data.shuffle is False
    assert config.data.system_prompt is None and config.model.path == "quoted" and config.evaluation.problems is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--learner.learnin_rate", "1"], ["learner.learnin_rate is not a field", "learner.learning_rate"]),
        (["--learning_rate", "1"], ["learning_rate is not a field", "learner.learning_rate"]),
        (["--lerner.zero_stage"], ["lerner.zero_stage is not a field", "learner.zero_stage"]),
        (["--rollout.problems_per_step", "many"], ["rollout.problems_per_step", '"many"', "whole number > 0"]),
        (["--rollout.problems_per_step", "2.5"], ["rollout.problems_per_step", "2.5", "whole number > 0"]),
        (["--learner.zero_stage", "0"], ["learner.zero_stage is 0", "1 or 2 or 3"]),
        (["--loss.clip_epsilon", "1.0"], ["loss.clip_epsilon is 1.0", "> 0 and < 1"]),
        (["--rollout.top_p", "0.9"], ["rollout.top_p must be 1"]),
        (
            ["--rollout.in_flight", "25", "--rollout.problems_per_step", "12", "--rollout.staleness", "1"],
            ["rollout.in_flight (25) must not be above 24"],
        ),
        (
            ["--rollout.problems_per_step", "12", "--learner.updates_per_batch", "5"],
            ["rollout.problems_per_step (12) must be a multiple of learner.updates_per_batch (5)"],
        ),
        (
            ["--rollout.problems_per_step", "12", "--learner.updates_per_batch", "2", "--loss.old_policy", "current"],
            ["learner.updates_per_batch above 1 needs loss.old_policy sampler"],
        ),
        (["--run.folder", "here"], ["run.folder must be an absolute path", "here"]),
        (["--run.name", "a/b"], ["run.name", '"a/b"', "letters"]),
        (["--rewards.weights", "{}"], ["rewards.weights is {}", "not empty"]),
        (["--rewards.weights.accuracy", "high"], ["rewards.weights.accuracy", '"high"', "number"]),
        (["--data.examples", "[{problem: a}]"], ["data.examples[0].response is missing"]),
        (["--run", "{name: x, folder: /runs}"], ["run.steps is missing", "Optimizer steps"]),
        (["--placement", "3"], ["placement is 3", "section with device"]),
        (["--placement.num_rollout_gpus", "3", "--engine.tensor_parallel", "2"], ["placement.num_rollout_gpus (3)"]),
        (["--rewards.extraction=published", "--rewards.final_form=true"], ["rewards.final_form does not go with"]),
        (
            ["--rollout.stages.0.until", "3"],
            ["rollout.stages is given as a whole, as a list of section with max_completion"],
        ),
        (["--run.steps"], ["--run.steps needs a value"]),
        (["--run.steps", "--run.seed", "3"], ["--run.steps needs a value"]),
        (["--learner.adam_betas", "[0.9"], ["learner.adam_betas", "not valid YAML"]),
        (["run.steps=3"], ["'run.steps=3' was not expected"]),
    ],
)
def test_a_mistake_is_one_sentence(recipe: Path, overrides: list[str], said: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load_config(recipe, overrides)
    message = str(error.value)
    assert all(part in message for part in said), message
    assert "\n" not in message and message.endswith(".") and not message.endswith("..") and "pydantic" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RECIPE + "  zero_stage: 3\n", "line 12, zero_stage is given twice"),
        (RECIPE + "run: {name: again, steps: 1}\n", "run is given twice"),
        ("run: [1, 2", "not valid YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        (
            RECIPE.replace("problems_per_step", "problem_per_step"),
            "rollout.problem_per_step is not a field; the nearest one is rollout.problems_per_step.",
        ),
        (RECIPE.replace("model: {path: toy}", ""), "model is missing"),
    ],
)
def test_a_bad_recipe_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path, [])
    assert said in str(error.value) and "bad.yaml" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_recipe_says_which_there_are(recipe: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe .*smal\.yaml; .* has small\.yaml"):
        load_config(recipe.with_name("smal.yaml"), [])
    with pytest.raises(UserError, match="a folder without the settings of a run"):
        load_config(recipe.parent, [])


def test_help_explains_every_field(recipe: Path) -> None:
    text = help_text()
    for dotted in flat(load_config(recipe, [])):
        assert f"--{dotted}  (" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "--loss.clip_epsilon  (number > 0 and < 1, default 0.2)" in text
    assert (
        "--run.steps  (whole number > 0 and <= 1,000,000,000, required)\n      Optimizer steps of the whole run."
        in text
    )
    assert "--evaluation.problems  (whole number > 0 and <= 1,000,000,000 or null, default null)" in text


def test_help_has_the_sentence_of_every_field() -> None:
    text = " ".join(help_text().split())

    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            section, entry = section_kinds(field.annotation)
            for kind in filter(None, (section, entry)):
                check(kind)
            if section is None:
                assert field.description, f"{model.__name__}.{name}"
                assert " ".join(field.description.split()) in text

    check(RunConfig)


def test_dry_run_says_what_the_loss_is(recipe: Path) -> None:
    changes = ["--loss.kind", "gspo", "--loss.correction", "sequence_mask"]
    said = "gspo, ratio in [0.9997, 1.0004], normalization sequences, correction sequence_mask"
    assert said in dry_run_text(load_config(recipe, changes))
    assert "cispo, ratio at most 2, normalization tokens" in dry_run_text(load_config(recipe, ["--loss.kind", "cispo"]))
    sapo = dry_run_text(load_config(recipe, ["--loss.kind", "sapo", "--loss.entropy_weight", "0.01"]))
    assert "sapo, ratio in a soft gate of temperature 1 and 1.05, normalization sequences" in sapo
    assert "no KL, entropy 0.01, advantage group_std\n" in sapo
    changes = ["--loss.advantage", "leave_one_out", "--loss.truncated_completions", "leave_out"]
    assert "advantage leave_one_out, without truncated completions" in dry_run_text(load_config(recipe, changes))
    with pytest.raises(UserError, match=r"dapo goes with loss.normalization tokens, not sequences"):
        load_config(recipe, ["--loss.kind", "dapo", "--loss.normalization", "sequences"])


def test_dry_run_says_sizes_places_and_changes(recipe: Path) -> None:
    text = dry_run_text(load_config(recipe, ["--learner.weight_decay", "0.1"]))
    for part in ("/runs/small", "12 problems x 6 completions = 72 completions", "7,200", "120 problems", "3 rank(s)"):
        assert part in text
    assert "learner.weight_decay: 0.1" in text
    held_out = [
        "--evaluation.path=null",
        "--evaluation.problems=null",
        "--evaluation.hold_out=8",
        "--evaluation.samples=4",
    ]
    said = dry_run_text(load_config(recipe, held_out))
    assert "8 held-out problems of" in said and "x 4 samples, before and after" in said
    assert "learner.schedule" not in text and "learner.learning_rate" not in text  # 1e-6 is the default


@pytest.mark.parametrize(
    ("dotted", "value", "shown"),
    [
        ("run.seed", "7", ("42", "7")),
        ("data.columns.answer", "gold", ('"answer"', '"gold"')),
        ("rollout.problems_per_step", "24", ("12", "24")),
        ("rewards.weights", "{accuracy: 1.0}", ('"format": 1.0', '{"accuracy": 1.0}')),
        ("learner.zero_stage", "3", ("2", "3")),
    ],
)
def test_what_a_run_is_cannot_change_on_resume(recipe: Path, dotted: str, value: str, shown: tuple[str, str]) -> None:
    saved = load_config(recipe, []).model_dump(mode="json")
    with pytest.raises(UserError, match="resume") as error:
        check_resumable(saved, load_config(recipe, [f"--{dotted}", value]))
    assert dotted in str(error.value) and all(part in str(error.value) for part in shown)


def test_a_run_with_another_draw_of_held_out_problems_is_not_resumed(recipe: Path) -> None:
    held_out = ["--evaluation.path=null", "--evaluation.problems=null", "--evaluation.hold_out=8"]
    config = load_config(recipe, held_out)
    saved = config.model_dump(mode="json")
    check_resumable(saved, config)
    with pytest.raises(UserError, match=r"evaluation.hold_out_seed was 0 .* cannot become 7"):
        check_resumable(saved, load_config(recipe, [*held_out, "--evaluation.hold_out_seed=7"]))
    del saved["evaluation"]["hold_out_seed"]  # written by a version that drew by run.seed
    with pytest.raises(UserError, match=r"drawn by run\.seed"):
        check_resumable(saved, config)


def test_the_rest_may_change_on_resume(recipe: Path) -> None:
    saved = load_config(recipe, []).model_dump(mode="json")
    del saved["evaluation"]["samples"]  # written by a version that did not have the field
    changes = ["--run.steps=20", "--learner.learning_rate=2e-6", "--checkpoint.every_minutes=5", "--run.folder=/moved"]
    changes += ["--cost.price_per_gpu_hour=2", "--cost.budget_usd=50", "--cost.max_hours=3"]
    check_resumable(saved, load_config(recipe, [*changes, "--placement.num_learner_gpus=2"]))


def test_the_learner_keeps_its_ranks_where_the_loss_depends_on_them(recipe: Path) -> None:
    published = ["--loss.normalization=local_micro_batch", "--learner.micro_batch_sequences=6"]
    saved = load_config(recipe, published).model_dump(mode="json")
    check_resumable(saved, load_config(recipe, published))
    with pytest.raises(UserError, match=r"num_learner_gpus was 3 .* cannot become 2 .* local_micro_batch"):
        check_resumable(saved, load_config(recipe, [*published, "--placement.num_learner_gpus=2"]))


def dotted_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every field, and whether it or a section that it is in is marked."""
    for name, field in model.model_fields.items():
        (kind, _), free = section_kinds(field.annotation), FREE in field.metadata
        if kind is not None:
            yield from ((dotted, free or inner) for dotted, inner in dotted_fields(kind, f"{prefix}{name}."))
        else:
            yield prefix + name, free


def with_another_value(config: BaseModel, dotted: str) -> Any:
    """A copy in which the field has another value, whatever the checks would say of it."""
    name, _, rest = dotted.partition(".")
    value: Any = getattr(config, name)
    if rest:
        changed = with_another_value(value, rest)
    elif isinstance(value, bool):
        changed = not value
    elif isinstance(value, int | float):
        changed = value + 1
    else:
        changed = f"other than {value}"
    return config.model_copy(update={name: changed})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_field_is_fixed_on_resume_unless_it_is_marked(recipe: Path) -> None:
    now = load_config(recipe, [])
    saved, fields = now.model_dump(mode="json"), dict(dotted_fields(RunConfig))
    assert fields.keys() == flat(now).keys()
    for dotted, free in fields.items():
        changed = with_another_value(now, dotted)
        if free:
            check_resumable(saved, changed)
        else:
            with pytest.raises(UserError, match=rf"{re.escape(dotted)} was .* on resume"):
                check_resumable(saved, changed)
    marked = {
        dotted for dotted, free in fields.items() if free and dotted.split(".")[0] in ("data", "rewards", "evaluation")
    }
    assert marked == {
        *("data.max_unparseable_share", "evaluation.every_steps", "evaluation.on_training_data"),
        "evaluation.max_completion_tokens",  # its effect may not (`test_resume_rule`): rollout's may take its place
        *("rewards.processes", "rewards.deadline_s", "rewards.memory_gib", "rewards.max_unjudged_share"),
        *(
            f"rewards.judge.{name}"
            for name in ("url", "api_key_env", "concurrency", "timeout_s", "deadline_s", "retries")
        ),
        *("rewards.judge.backoff_s", "rewards.judge.price_per_million_prompt_tokens"),
        *("rewards.judge.price_per_million_completion_tokens", "rewards.judge.serve.gpus"),
        *("rewards.judge.serve.max_model_tokens", "rewards.judge.serve.gpu_memory_fraction"),
        *("rewards.judge.serve.cpu_cache_gib", "rewards.judge.serve.start_deadline_s"),
    }, "what the policy reads and is paid for, and what it is measured by, may not change"


class Brevity(Section):
    longest: int = 100


class NewRewards(Rewards):
    brevity: Brevity = Brevity()
    bonus: float = 0.0


class NewConfig(RunConfig):
    rewards: NewRewards = NewRewards()


@pytest.mark.parametrize("change", [{"brevity": {"longest": 50}}, {"bonus": 1.0}])
def test_a_new_reward_s_parameter_is_fixed_without_anybody_saying_so(recipe: Path, change: dict[str, Any]) -> None:
    saved = load_config(recipe, []).model_dump(mode="json")
    sections = {"bonus": 0.0, "brevity": {"longest": 100}}
    for before in (saved, saved | {"rewards": saved["rewards"] | sections}):  # of a version without it, and with it
        check_resumable(before, NewConfig.model_validate(before))
        now = NewConfig.model_validate(saved | {"rewards": saved["rewards"] | change})
        with pytest.raises(UserError, match=r"rewards\.(brevity\.longest|bonus) was .* cannot become"):
            check_resumable(before, now)


@pytest.mark.parametrize("content", [{}, {"run": {}}, {"run": None, "rollout": []}])
def test_a_saved_config_without_its_shape_is_refused(recipe: Path, content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config\.json of run small .* is damaged or of another version"):
        check_resumable(content, load_config(recipe, []))


def test_help_marks_what_a_resume_may_not_change(recipe: Path) -> None:
    entries = re.split(r"\n  --", help_text())[1:]
    marked = {entry.split()[0] for entry in entries if entry.split("\n\n")[0].rstrip().endswith("[fixed]")}
    of_entries = {"name", "weight", "environment", "answer", "rewards", "evaluation"}
    fixed = {dotted for dotted, free in dotted_fields(RunConfig) if not free}
    assert marked == fixed | {f"data[N].{name}" for name in of_entries}


def test_a_config_is_read_back_as_it_was_written(recipe: Path) -> None:
    assert isinstance(RunConfig.model_validate(load_config(recipe, []).model_dump(mode="json")), RunConfig)
