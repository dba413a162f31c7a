"""Names and values that are wrong: what was likely meant, what other trainers call it, and what is not offered."""

from pathlib import Path

import pytest

from launch import train
from openrs_ray.config.fields import Names
from openrs_ray.config.load import load_config
from openrs_ray.config.peer_names import _BY_NAME, _REASONS, not_offered, our_name
from openrs_ray.config.schema import RunConfig
from openrs_ray.curation.recipe import load_recipe
from openrs_ray.errors import UserError

FLAGS = ("--dry-run", "--resume", "--restart")
FIELDS = Names.of(RunConfig, {}).fields


def mistakes(*words: str) -> list[str]:
    with pytest.raises(UserError) as error:
        load_config("quickstart", words, FLAGS)
    lines = str(error.value).splitlines()
    return lines if len(lines) == 1 else [line.strip() for line in lines[1:]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dryrun"], "--dryrun is not an option; the nearest one is --dry-run."),
        (["--dry_run", "true"], "--dry_run is not an option; the nearest one is --dry-run."),
        (["--resum"], "--resum is not an option; the nearest one is --resume."),
        (["--learner.lr", "1e-5"], "--learner.lr is not a field; here it is learner.learning_rate."),
        (["--learnrate", "1e-5"], "--learnrate is not a field; the nearest one is learner.learning_rate."),
        (["--num_generations", "8"], "--num_generations is not a field; here it is rollout.completions_per_problem."),
        (["--max-completion-length=9"], "--max-completion-length is not a field; here it is rollout.max_completion_tokens."),
        (["--beta", "0.1"], "--beta is not a field; here it is loss.kl_beta."),
        (["--algorithm.kl_ctrl.kl_coef", "1"], "--algorithm.kl_ctrl.kl_coef is not a field; here it is loss.kl_beta."),
        (["--per_device_train_batch_size", "1"], "here it is learner.micro_batch_sequences."),
        (["--actor_rollout_ref.rollout.n=8"], "here it is rollout.completions_per_problem."),
        (["--actor_rollout_ref.actor.optim.lr=1"], "here it is learner.learning_rate."),
        (["--actor_rollout_ref.model.path=x"], "the nearest one is model.path."),
        (["--optim", "adamw_bnb_8bit"], "--optim is not a field; here it is learner.optimizer."),
        (["--actor.fsdp_config.optimizer_offload=true"], "here it is learner.optimizer."),
        (["--learner.optimizer", "adamw_bnb_8bit"], "allowed: adamw or adamw_8bit or adamw_offload."),
        (["--activation_offloading", "true"], "here it is learner.offload_activations."),
        (["--resume_from_checkpoint", "x"], "here it is --resume."),
        (["--lora.rank", "8"], "--lora.rank is not a field; here it is learner.lora.rank."),
        (["--lora_r", "8"], "--lora_r is not a field; here it is learner.lora.rank."),
        (["--use_peft", "true"], "--use_peft is not a field; here it is learner.lora.rank."),
        (["--lora_alpha", "8"], "--lora_alpha is not a field; here it is learner.lora.alpha."),
        (["--lora.alpha", "8"], "--lora.alpha is not a field; here it is learner.lora.alpha."),
        (["--lora_target_modules", "x"], "here it is learner.lora.layers."),
        (["--actor_rollout_ref.model.lora_rank", "8"], "here it is learner.lora.rank."),
        (["--entropy_coeff", "0.001"], "--entropy_coeff is not a field; here it is loss.entropy_weight."),
        (["--adv_estimator", "rloo"], "--adv_estimator is not a field; here it is loss.advantage."),
        (["--mask_truncated_completions", "true"], "here it is loss.truncated_completions."),
        (["--num_iterations", "2"], "--num_iterations is not offered: no completion is learned from twice;"),
        (["--qlora"], "--qlora is not offered: adapters (learner.lora.rank) are trained on a base in bfloat16"),
        (["--wandb"], "--wandb is not offered: figures go to metrics.jsonl and tensorboard/"),
        (["--critic.learning_rate", "1"], "--critic.learning_rate is not offered: GRPO compares"),
        (["--sft_loss_coef", "1"], "--sft_loss_coef is not offered: there is no supervised fine-tuning"),
        (["--rollout.max_sequences", "8"], "--rollout.max_sequences is not a field; the nearest one is engine.max_sequences."),
        (["--rollout.start_deadline_s=8"], "the nearest one is engine.start_deadline_s."),
        (["--nonsense", "1"], "--nonsense is not a field; --help lists all fields."),
        (["--placement.colocated"], "--placement.colocated needs a value: true or false."),
    ],
)  # fmt: skip
def test_a_wrong_name_is_answered_with_the_right_one(words: list[str], said: str) -> None:
    (line,) = mistakes(*words)
    assert said in line


@pytest.mark.parametrize("name", ["rollouts", "runs", "learnr", "placment", "evaluate"])
def test_a_section_is_never_what_is_suggested(name: str) -> None:
    (line,) = mistakes(f"--{name}", "3")
    assert line.endswith("--help lists all fields.") or line.rstrip(".").split()[-1] in {*FIELDS, *FLAGS}


def test_the_former_section_of_a_curation_recipe_leads_to_the_new_fields(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("extends: open-rs-data\nengines: {count: 2}\n")
    with pytest.raises(UserError, match=r"old.yaml: engines is not a field; the nearest one is engine\."):
        load_recipe(tmp_path / "old.yaml", [])
    for old, new in {
        "count": "placement.num_rollout_gpus",
        "cpus": "placement.cpus_per_slot",
        "chunk": "chunk",
    }.items():
        with pytest.raises(UserError, match=rf"--engines.{old} is not a field; .* {new}\."):
            load_recipe("open-rs-data", [f"--engines.{old}", "2"])


def test_a_field_is_no_candidate_where_the_config_does_not_have_it() -> None:
    with pytest.raises(UserError, match=r"--num_generations is not a field; --help lists"):
        load_recipe("open-rs-data", ["--num_generations", "8"])
    with pytest.raises(UserError, match=r"--dryrun is not an option; the nearest one is --dry-run"):
        load_recipe("open-rs-data", ["--dryrun"], ["--dry-run"])


def test_every_name_of_other_trainers_leads_to_a_field_and_is_none_of_ours() -> None:
    assert {*_BY_NAME.values()} <= {*FIELDS, *FLAGS}
    assert not {*_BY_NAME} & {*FIELDS, *(field.rpartition(".")[2] for field in FIELDS)}
    assert all(our_name(name, {*FIELDS, *FLAGS}) and not not_offered(name) for name in _BY_NAME)
    assert all(not_offered(name) for name in _REASONS)
    assert not any(map(not_offered, FIELDS)), "a field that there is is offered"


def test_a_bad_value_from_the_command_line_does_not_blame_the_recipe() -> None:
    (line,) = mistakes("--learner.learning_rate", "abc")
    assert line.startswith('--learner.learning_rate is "abc"; allowed: number') and "quickstart" not in line
    (line,) = mistakes("--learner.gradient_checkpointing", "maybe")
    assert line == '--learner.gradient_checkpointing is "maybe"; allowed: auto or true or false.'
    (line,) = mistakes("--placement", "{num_learner_gpus: none}")
    assert line.startswith('--placement.num_learner_gpus is "none"')


def test_a_missing_field_is_the_recipe_s(tmp_path: Path) -> None:
    recipe = tmp_path / "bare.yaml"
    recipe.write_text("model: {path: toy}\ndata: {path: toy}\nrun: {name: bare}\nrollout: {problems_per_step: 4}\n")
    with pytest.raises(UserError) as error:
        load_config(recipe, ["--rollout.num_generations", "4", "--run.stebs", "3"])
    _, *lines = str(error.value).splitlines()
    assert [line.strip().split(";")[0] for line in lines] == [
        "--rollout.num_generations is not a field",  # and so the fields that are meant are not missed a second time
        "--run.stebs is not a field",
        f"{recipe}: rollout.max_completion_tokens is missing",
    ]


def test_all_mistakes_are_said_at_once_each_in_a_line() -> None:
    words = ["--run.steps=0", "--run.seed=-1", "--loss.kl_beta=-1", "--learner.lr=1", "--data.shuffle=[", "stray"]
    lines = mistakes(*words)
    assert len(lines) == len(words) and "more)" not in "".join(lines)
    for start in (
        "--run.steps is 0",
        "--run.seed is -1",
        "--loss.kl_beta is -1",
        "--learner.lr",
        "--data.shuffle [",
        "'stray'",
    ):
        assert sum(line.startswith(start) for line in lines) == 1
    assert all(line.endswith(".") and not line.endswith("..") for line in lines)


def test_a_name_of_any_length_and_more_mistakes_than_anyone_reads_end_soon() -> None:
    (line,) = mistakes("--" + "a." * 100_000 + "lr=1")
    assert line.endswith("here it is learner.learning_rate.")
    mistakes("--" + "q" * 100_000)
    lines = mistakes("--data.examples", str([{"problem": 1}] * 200))
    assert len(lines) == 51 and lines[-1] == "and 350 more."


def test_the_last_value_counts_and_the_first_is_not_blamed() -> None:
    assert load_config("quickstart", ["--run.steps", "many", "--run.steps", "3"]).run.steps == 3


def test_options_and_fields_may_stand_in_any_order() -> None:
    expected = train.Command("quickstart", ["--run.steps", "3", "--run.seed=4"], True, True, False)
    for line in (
        "quickstart --run.steps 3 --run.seed=4 --dry-run --resume",
        "--dry-run --run.steps 3 --resume quickstart --run.seed=4",
        "--run.steps 3 --run.seed=4 --resume --dry-run quickstart",
    ):
        assert train.parse(line.split()) == expected
