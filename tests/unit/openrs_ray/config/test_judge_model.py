"""The section rewards.judge: mistakes are said in one sentence, and what it asks for is reserved and paid."""

import pickle
from pathlib import Path

import pytest
from tiny import make_config

from openrs_ray.cluster.layout import plan_layout
from openrs_ray.config.load import load_config
from openrs_ray.config.rewards import Rewards
from openrs_ray.errors import UserError
from openrs_ray.rewards.judge_model.settings import JudgeSettings

ASKED = ["--rewards.weights", "{judge: 1.0}", "--rewards.judge.model", "j"]
BOTH = ["--rewards.weights", "{judge: 1.0, judge_relative: 1.0}", "--rewards.judge.model", "j"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--rewards.weights", "{judge_relative: 1.0}"], "names judge_relative but rewards.judge.model is missing"),
        (["--rewards.judge.model", "j"], "has a model that no weight asks: add judge or judge_relative"),
        (["--rewards.judge.url", "http://a/v1"], "rewards.judge.url needs rewards.judge.model"),
        ([*ASKED, "--rewards.judge.url", "a:80/v1"], "must be like http://host:8000/v1"),
        ([*ASKED, "--rewards.judge.url", "http://me:pw@a/v1"], "must hold no name, key or password"),
        ([*ASKED, "--rewards.judge.url", "http://:pw@a/v1"], "must hold no name, key or password"),
        ([*ASKED, "--rewards.judge.url", "http://a/v1/chat/completions"], "ends before /chat/completions"),
        ([*ASKED, "--rewards.judge.template", "{completions}"], "must contain {completion}"),
        ([*ASKED, "--rewards.judge.relative_template", "{completion}"], "must contain {completions}"),
        ([*ASKED, "--rewards.judge.low", "10"], "low (10) must be below"),
        ([*ASKED, "--rewards.judge.score_pattern", "(a"], "no regular expression"),
        ([*ASKED, "--rewards.judge.score_pattern", "a"], "must have one group"),
        ([*ASKED, "--rewards.judge.timeout_s", "700"], "must not be above rewards.judge.deadline_s (400)"),
        ([*ASKED, "--rollout.deadline_s", "700"], "lower rewards.judge.deadline_s to 350, or raise rollout.deadline_s"),
        (
            [*BOTH, "--rewards.judge.deadline_s", "500"],
            "(500 s for each of judge and judge_relative) may take at most half",
        ),
        ([*BOTH, "--rollout.deadline_s", "1500"], "lower rewards.judge.deadline_s to 375, or raise rollout.deadline_s"),
        ([*ASKED, "--rewards.judge.api_key_env", "sk-0123456789abcdef"], "never the key itself"),
    ],
)
def test_a_mistake_is_one_sentence(given: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("quickstart", given)
    sentence = str(caught.value)
    assert expected in sentence and "sk-0123" not in sentence and "\n" not in sentence


def test_the_defaults_leave_half_of_a_step_to_sampling() -> None:
    config = load_config("quickstart", BOTH)
    assert 2 * config.rewards.judge.deadline_s <= config.rollout.deadline_s / 2


def test_a_served_judge_has_places_of_its_own(tmp_path: Path) -> None:
    judge = {"model": "j", "serve": {"gpus": 2}}
    place = {"device": "gpu", "num_rollout_gpus": 1, "num_learner_gpus": 1, "cpus_per_slot": 3}
    config = make_config(tmp_path, rewards={"weights": {"judge": 1.0}, "judge": judge}, placement=place)
    assert config.num_gpus == 4 and plan_layout(config, "gpu").judges == ({"CPU": 6.0, "GPU": 2.0},)
    assert plan_layout(config, "gpu").total()["GPU"] == 4
    assert plan_layout(config, "cpu").judges == ({"CPU": 6.0},)
    elsewhere = judge | {"url": "http://a/v1"}
    config = make_config(tmp_path, rewards={"weights": {"judge": 1.0}, "judge": elsewhere}, placement=place)
    assert config.num_gpus == 2 and plan_layout(config, "gpu").judges == ()


def test_the_client_reads_every_setting() -> None:
    rewards = Rewards.model_validate(
        {"weights": {"judge": 1.0}, "judge": {"model": "j", "request": {"a": {"b": None}}}}
    )
    settings = JudgeSettings.of(pickle.loads(pickle.dumps(rewards)).judge)
    assert settings == JudgeSettings("j", request={"a": {"b": None}}), "its defaults are those of the section"
