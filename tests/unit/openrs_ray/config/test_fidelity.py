"""The paper's text against its published code: every difference, what each side does, and the recipes of its experiments."""

import json
from pathlib import Path
from typing import Any

import math_verify
import pyarrow
import pyarrow.parquet
import pytest
import torch
from paper import RECIPES, experiment, published
from tiny import save_model

from actors.learner.rank import LearnerRank
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import RolloutWorker
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.packing import pack, split
from openrs_ray.config.load import flat, load_config
from openrs_ray.config.recipe_file import read_recipe
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.problems import load_problems
from openrs_ray.errors import UserError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.preparation.dry_run import dry_run_text
from openrs_ray.preparation.prepared import prepare
from openrs_ray.records import Status
from openrs_ray.rewards.answers.check import gold_is_parseable
from openrs_ray.rewards.answers.published import published_gold_is_parseable
from openrs_ray.rewards.judge import Judge
from openrs_ray.rewards.records import JudgeItem, RewardInput
from openrs_ray.rewards.single import cosine, format
from openrs_ray.run.resume import check_resumable

EXPERIMENTS = (1, 2, 3)
DIFFERENCES: dict[str, tuple[Any, Any]] = {
    "rewards.cosine.unit": ("tokens", "characters"),
    "rewards.cosine.clamp": (True, False),
    "rewards.cosine.wrong_short": (-1.0, 0.0),
    "rewards.comparison": ("gold_first", "answer_first"),
    "rewards.unparseable_gold": ("skip", "reward"),
    "rewards.unfinished_reasoning": ("no_answer", "read"),
    "rewards.extraction": ("boxed", "published"),
    "rewards.unjudged": ("skip", "wrong"),
    "rewards.format.form": ("tags", "line"),
    "loss.normalization": ("tokens", "local_micro_batch"),
    "loss.tempered": (True, False),
    "loss.old_policy": ("sampler", "current"),
    "data.columns.answer": ("answer", "solution"),
}


# The choice


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_one_field_switches_every_difference_and_nothing_else(number: int) -> None:
    described, switched = flat(experiment(number)), flat(published(number))
    changed = {name: (described[name], switched[name]) for name in described if described[name] != switched[name]}
    assert changed == DIFFERENCES | {
        "fidelity": ("as_described", "as_published"),
        "learner.micro_batch_sequences": (None, 6),  # per_device_train_batch_size
        "rollout.staleness": (1, 0),
        "loss.correction": ("truncated", "none"),
        "learner.head_dtype": ("float32", "model"),
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss.normalization", "tokens"),
        ("rewards.cosine.clamp", "true"),
        ("loss.tempered", "true"),
        ("loss.old_policy", "sampler"),
        ("rewards.extraction", "boxed"),
        ("rewards.unjudged", "skip"),
    ],
)
def test_what_as_published_fixes_cannot_be_given_otherwise(field: str, value: str) -> None:
    experiment(3, f"--{field}", value)
    with pytest.raises(
        UserError, match=rf"fidelity as_published goes with {field} .*, not .*: leave {field} out\."
    ) as said:
        published(3, f"--{field}", value)
    assert "\n" not in str(said.value)


def test_the_column_of_the_gold_is_the_solution_where_none_is_named() -> None:
    assert experiment(3).data.columns.answer == "answer"
    assert published().data.columns.answer == "solution"
    assert published(3, "--data.columns.answer", "mine").data.columns.answer == "mine"


def test_a_published_config_is_read_back_as_it_was_written_and_cannot_turn_on_resume() -> None:
    config = published()
    saved = json.loads(json.dumps(config.model_dump(mode="json")))
    assert RunConfig.model_validate(saved) == config
    check_resumable(saved, config)
    with pytest.raises(UserError, match=r'fidelity was "as_published"'):
        check_resumable(saved, experiment(3))


def test_mistakes_are_still_named_where_they_are() -> None:
    for overrides, said in (
        (("--rewards", "3"), "rewards is 3"),
        (("--learner", "[]"), "learner is"),
        (("--fidelity", "paper"), "fidelity is"),
        (("--rollout", "{problems_per_step: 3}"), "rollout.completions_per_problem is missing"),
        (("--loss.kind", "dapo"), "dapo"),
    ):
        with pytest.raises(UserError, match=said):
            published(3, *overrides)


def test_dry_run_prints_both_sides_and_the_run_s_own() -> None:
    for config in (experiment(3), published(), experiment(3, "--rollout.staleness", "2")):
        lines = [" ".join(line.split()) for line in dry_run_text(config).splitlines()]
        assert f"fidelity {config.fidelity}" in lines
        assert f"Where the paper and its published code differ (this run: {config.fidelity}):" in lines
        own = flat(config)
        for field, (described, switched) in DIFFERENCES.items():
            row = f"{field} {own[field]} {described} {switched} ".lower()
            assert sum(line.startswith(row) for line in lines) == 1, row


# What as_published does


@pytest.mark.parametrize(
    ("characters", "correct", "wrong"),
    [
        (0, 1.0, 0.0),
        (896, 0.9268, -0.0732),
        (1792, 0.75, -0.25),
        (3584, 0.5, -0.5),
        (5376, 0.75, -0.25),
        (7168, 1.0, 0.0),
        (8960, 0.75, -0.25),
        (10752, 0.5, -0.5),
        (14336, 1.0, 0.0),
    ],
)
def test_cosine_is_periodic_in_characters(characters: int, correct: float, wrong: float) -> None:
    parameters = cosine.Parameters(**published().rewards.cosine.model_dump())
    for status, expected in ((Status.CORRECT, correct), (Status.WRONG, wrong), (Status.NO_ANSWER, wrong)):
        item = RewardInput("x" * characters, 77, "stop", status, None)
        assert cosine.reward(item, parameters) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("text", "line", "tags"),
    [
        ("a\n</think>\nb", 1.0, 1.0),
        ("\n</think>\n", 1.0, 0.0),
        ("<think>a\n</think>\n<think>b", 1.0, 0.0),
        ("a</think> and\n</think>\nb", 1.0, 0.0),
        ("a</think>b", 0.0, 1.0),
        ("a\n</think>\nb\n</think>\nc", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_format_in_both_forms(text: str, line: float, tags: float) -> None:
    item = RewardInput(text, 5, "stop", Status.WRONG, None)
    assert format.reward(item, format.Parameters(**published().rewards.format.model_dump())) == line
    assert format.reward(item, format.Parameters(**experiment(3).rewards.format.model_dump())) == tags


@pytest.mark.parametrize(("gold", "answer"), [("(1,2)", "1<x<2"), ("1<x<2", "(1,2)"), (r"\frac{1}{2}", "0.5")])
def test_math_verify_gets_its_arguments_in_either_order(gold: str, answer: str) -> None:
    parsed = {text: math_verify.parse(f"${text}$") for text in (gold, answer)}
    item = JudgeItem(rf"a</think>\boxed{{{answer}}}", 9, "stop", (f"${gold}$",))
    for config, first, second in ((experiment(1), gold, answer), (published(1), answer, gold)):
        correct = math_verify.verify(parsed[first], parsed[second])
        assert (Judge.of(config.rewards)(item).status is Status.CORRECT) == correct
    if gold == "(1,2)":
        assert math_verify.verify(parsed[answer], parsed[gold]) > math_verify.verify(parsed[gold], parsed[answer])


def test_a_gold_that_cannot_be_parsed_is_skipped_or_paid_for() -> None:
    text = "x" * 1780 + "\n</think>\nno box"
    for number, name in ((1, "accuracy"), (3, "cosine")):
        item = JudgeItem(text, 1792, "stop", ("forty two",))
        skipped, paid = (Judge.of(config.rewards)(item) for config in (experiment(number), published(number)))
        assert skipped.status is paid.status is Status.UNPARSEABLE_GOLD
        assert (skipped.rewards, skipped.reward) == ({}, None)
        assert (paid.rewards, paid.reward) == ({name: 1.0, "format": 1.0}, 3.0)


def test_problems_without_a_readable_gold_are_kept_only_where_they_are_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parseable(golds: list[tuple[str, ...]], extraction: str, processes: int) -> list[bool]:
        return [*map(published_gold_is_parseable if extraction == "published" else gold_is_parseable, golds)]

    monkeypatch.setattr("openrs_ray.rewards.golds.parseable_golds", parseable)
    save_model(tmp_path, vocabulary=64)
    make_tokenizer().save_pretrained(tmp_path)
    golds = [r"So \boxed{2}.", "forty two", "$4$", None, r"\frac{1}{2}", "6"]
    data, held_out = tmp_path / "data.jsonl", tmp_path / "held_out.jsonl"
    for file in (data, held_out):
        file.write_text(
            "".join(json.dumps({"problem": "1+1", "answer": gold, "solution": gold}) + "\n" for gold in golds)
        )
    content = {
        "run": {"name": "r", "folder": str(tmp_path), "steps": 1},
        "model": {"path": str(tmp_path)},
        "data": {"path": str(data), "max_unparseable_share": 0.5},
        "evaluation": {"path": str(held_out)},
        "rollout": {"problems_per_step": 3, "completions_per_problem": 2, "max_completion_tokens": 64},
    }
    kept, held = {}, {}
    for fidelity in ("as_described", "as_published"):
        prepared = prepare(RunConfig.model_validate(content | {"fidelity": fidelity}))
        kept[fidelity] = [problem.gold for problem in prepared.problems]
        held[fidelity] = [problem.gold for problem in prepared.held_out]
    assert kept["as_described"] == held["as_described"] == [("2",), ("$4$",), (r"\frac{1}{2}",), ("6",)]
    assert kept["as_published"] == [("" if gold is None else gold,) for gold in golds]
    assert held["as_published"] == [(r"So \boxed{2}.",), ("$4$",), (r"\frac{1}{2}",)]


def test_the_loss_is_at_the_sampling_temperature_or_at_one() -> None:
    sequence = TrainingSequence(*(torch.arange(3).numpy() for _ in range(2)), torch.zeros(3).numpy(), 1.0)
    for config, temperature, mode in ((experiment(3), 0.7, "processed_logprobs"), (published(), 1.0, "raw_logprobs")):
        asked: list[float] = []

        def model(asked: list[float] = asked, **arguments: Any) -> torch.Tensor:
            asked.append(arguments["temperature"])
            return torch.zeros(3)

        rank = LearnerRank(config, "", 0, 1, "cpu")
        rank.engine = rank.reference = model
        batch = pack([sequence])
        rank._loss_input(batch, *rank._reference_logprobs([batch]))
        assert asked == [temperature] * 2  # learner and reference
        assert (
            RolloutWorker(EngineSettings.of_run(config, "", (1,)), 0, "gpu")._engine_arguments()["logprobs_mode"]
            == mode
        )
        assert config.rollout.temperature == 0.7  # what is sampled at does not change


def test_a_published_micro_batch_is_one_group() -> None:
    config = published()
    groups = [
        TrainingSequence(*(torch.tensor([g]).numpy() for _ in range(2)), torch.zeros(1).numpy(), 0.0)
        for g in range(12)
        for _ in range(6)
    ]
    ranks = split(groups, 3, micro_batch_sequences=config.learner.micro_batch_sequences)
    assert [[set(batch.token_ids) for batch in batches] for batches in ranks] == [
        [{rank + 3 * turn} for turn in range(4)] for rank in range(3)
    ]
    assert config.micro_batch_tokens == 6 * (512 + 3584)
    # One completion is left out: its own group is smaller, and no other one changes.
    lost = [place for place in range(72) if place != 3]
    ranks = split([groups[place] for place in lost], 3, micro_batch_sequences=6, places=lost)
    found = [[(set(batch.token_ids), len(batch.lengths)) for batch in batches] for batches in ranks]
    assert found == [[({rank + 3 * turn}, 5 if rank + 3 * turn == 0 else 6) for turn in range(4)] for rank in range(3)]


# The recipes


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_a_recipe_is_the_paper_s_experiment(number: int) -> None:
    config = experiment(number)
    assert config.fidelity == "as_described"
    assert config.model.path == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B" and config.model.dtype == "bfloat16"
    assert config.data.path == ("knoveleng/open-s1" if number == 1 else "knoveleng/open-rs")
    assert config.rewards.weights == {"cosine" if number == 3 else "accuracy": 2.0, "format": 1.0}
    prompt = config.data.system_prompt or ""
    assert prompt.startswith("A conversation between User and Assistant. The user asks") and "\n" not in prompt
    assert prompt.endswith("Note that respond by English, NOT use other languages." if number == 3 else "</answer>.")
    rollout, loss, learner = config.rollout, config.loss, config.learner
    assert (config.run.steps, config.run.seed, config.checkpoint.every_steps) == (500, 42, 50)
    assert (rollout.problems_per_step, rollout.completions_per_problem, config.completions_per_step) == (12, 6, 72)
    assert (rollout.max_prompt_tokens, rollout.max_completion_tokens) == (512, 4096 if number == 1 else 3584)
    assert (rollout.temperature, rollout.top_p, rollout.staleness) == (0.7, 1.0, 1)
    assert (loss.kind, loss.normalization, loss.kl_beta, loss.clip_range) == ("grpo", "tokens", 0.04, (0.8, 1.2))
    assert (loss.advantage_epsilon, loss.correction) == (1e-4, "truncated")
    assert (learner.learning_rate, learner.schedule, learner.warmup_share, learner.final_share) == (
        1e-6,
        "cosine",
        0.1,
        0.1,
    )
    assert (learner.weight_decay, learner.adam_betas, learner.max_grad_norm) == (0.0, (0.9, 0.999), 1.0)
    assert (learner.zero_stage, config.placement.num_rollout_gpus, config.placement.num_learner_gpus) == (2, 1, 3)
    if number == 3:
        assert config.rewards.cosine.max_length == 3584


@pytest.mark.parametrize("number", EXPERIMENTS)
def test_a_recipe_leaves_nothing_that_its_run_depends_on_to_defaults(number: int) -> None:
    given = flat(read_recipe(f"open-rs{number}", RunConfig).content)
    config = flat(experiment(number))
    decides = {"run.steps", "run.seed", "fidelity", "rewards.weights", "rewards.extraction", "checkpoint.every_steps"}
    decides |= {name for name in config if name.startswith(("data.columns.", "loss.", "learner.", "rewards.cosine."))}
    decides |= {f"data.{name}" for name in ("path", "split", "system_prompt", "suffix", "shuffle")}
    decides |= {"model.path", "model.dtype"}
    decides |= {f"rollout.{name}" for name in ("temperature", "top_p", "staleness", "max_prompt_tokens")}
    speed = {"logprob_chunk_tokens", "fused_kernels", "start_deadline_s", "deadline_s", "micro_batch_sequences"}
    speed |= {"offload_reference", "offload_activations"}
    not_used = {"data.columns.answer_after", "loss.clip_epsilon_high", "loss.correction_cap", "loss.mask_ratio"}
    not_used |= {f"loss.{name}" for name in ("gate_temperature", "gate_temperature_negative")}  # of sapo
    not_used |= {f"loss.teacher.{name}" for name in ("path", "weight", "top_k", "offload")}  # of distill
    not_used |= {"loss.token_mask_low", "loss.token_mask_high"}  # of another correction
    not_used.add("loss.advantage")  # of loss.kind, which is given
    not_used |= {"learner.lora.alpha", "learner.lora.layers"}  # of adapters, of which there are none
    not_used |= {name for name in decides if number < 3 and name.startswith("rewards.cosine.")}
    missing = decides - set(given) - set(DIFFERENCES) - not_used - {f"learner.{name}" for name in speed}
    assert missing == set()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    "recipe", sorted({*RECIPES.glob("*.yaml")} - {*RECIPES.glob("*-data.yaml")}), ids=lambda path: path.stem
)
def test_every_recipe_takes_a_local_file_with_columns_of_its_own(tmp_path: Path, recipe: Path, suffix: str) -> None:
    rows = [{"id": n, "task": f"{n}+{n}", "final": f"#### {2 * n}"} for n in range(1, 4)]
    file = tmp_path / f"mine{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
    columns = ("--data.columns.problem=task", "--data.columns.answer=final", "--data.columns.answer_after=####")
    data = load_config(recipe, [f"--data.path={file}", *columns]).data
    loaded = load_problems(data, make_tokenizer(), 100_000, lambda golds: [True] * len(golds))
    assert [(p.text, p.gold) for p in loaded.problems] == [("1+1", ("2",)), ("2+2", ("4",)), ("3+3", ("6",))]
