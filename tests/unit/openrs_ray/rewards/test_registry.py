"""A new reward is one new file: docs/extending.md, "Adding a reward", followed to the letter in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openrs_ray.records import Status, Verdict
from openrs_ray.rewards import registry
from openrs_ray.rewards.judge import judge_group
from openrs_ray.rewards.judge_model.settings import NAMES
from openrs_ray.rewards.registry import Reward

ROOT = Path(__file__).parents[4]

SCRIPT = r"""
import copy, json
from openrs_ray.config.help import help_text
from openrs_ray.config.load import checked
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.rewards.judge import Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem

recipe = {
    "run": {"name": "r", "folder": "/runs", "steps": 1},
    "model": {"path": "toy"},
    "data": {"path": "toy"},
    "rollout": {"problems_per_step": 3, "completions_per_problem": 2, "max_completion_tokens": 100},
    "rewards": {"weights": {"accuracy": 1.0, "brevity": 0.5}},
}


def mistake(*words):
    try:
        checked(RunConfig, copy.deepcopy(recipe), words, "recipe.yaml")
    except UserError as error:
        return str(error)


judge = Judge.of(checked(RunConfig, copy.deepcopy(recipe), ["--rewards.brevity.enough", "3"], "recipe.yaml").rewards)
with CheckPool(judge, processes=1, deadline_s=20.0, memory_gib=2.0) as pool:
    verdict = pool.submit(JudgeItem(r"so it is </think> \boxed{4} and more", 9, "stop", ("4",))).result(60)
print(json.dumps({
    "help": help_text("rewards.brevity"),
    "bound": mistake("--rewards.brevity.enough", "0"),
    "unknown": mistake("--rewards.brevity.enugh", "3"),
    "rewards": verdict.rewards,
    "reward": verdict.reward,
}))
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Output of the script where the page's file stands beside the other rewards."""
    place = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "openrs_ray", place / "openrs_ray", ignore=shutil.ignore_patterns("__pycache__"))
    page = (ROOT / "docs" / "extending.md").read_text()
    section = page.partition("## Adding a reward")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    name = re.search(r"`(openrs_ray/rewards/\S+\.py)` is the reward", section)
    assert code and name
    (place / name[1]).write_text(code[1])
    environment = os.environ | {"PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_a_reward_as_the_page_has_it(followed: dict[str, Any]) -> None:
    # 7 words where 3 are enough.
    assert followed["rewards"] == pytest.approx({"accuracy": 1.0, "brevity": 3 / 7})
    assert followed["reward"] == pytest.approx(1.0 + 0.5 * 3 / 7)


def test_its_parameters_are_a_section_of_the_config(followed: dict[str, Any]) -> None:
    assert " ".join(followed["help"].split()) == (
        "rewards: --rewards.brevity.enough (whole number > 0 and <= 1,000,000,000, default 100) "
        "Words that cost nothing. [fixed]"
    )
    assert followed["bound"] == "--rewards.brevity.enough is 0; allowed: whole number > 0 and <= 1,000,000,000."
    assert followed["unknown"] == ("--rewards.brevity.enugh is not a field; the nearest one is rewards.brevity.enough.")


@dataclass(frozen=True)
class Scaled:
    times: float = 2.0


def test_a_group_reward_may_have_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(lengths: Sequence[int], correct: Sequence[bool], parameters: Scaled) -> list[float]:
        return [parameters.times * length * right for length, right in zip(lengths, correct, strict=True)]

    monkeypatch.setitem(registry.GROUP, "scaled", Reward.of(scaled))
    verdicts = [Verdict(status, {}, 0.0) for status in (Status.CORRECT, Status.WRONG)]
    weights = {"scaled": 10.0}
    by_default = judge_group(verdicts, [3, 4], weights)
    assert [verdict.reward for verdict in by_default] == [60.0, 0.0]
    changed = judge_group(verdicts, [3, 4], weights, {"scaled": Scaled(0.5)})
    assert [verdict.reward for verdict in changed] == [15.0, 0.0]


def test_rewards_do_not_need_the_config() -> None:
    script = "import sys, openrs_ray.rewards.golds, openrs_ray.rewards.judge; print([*sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "openrs_ray.rewards.single.cosine" in loaded and "openrs_ray.config" not in loaded


def test_every_reward_has_its_line_in_the_docs() -> None:
    page = (ROOT / "docs" / "rewards.md").read_text().partition("\n## ")[0]
    lines = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(lines) == sorted([*registry.SINGLE, *registry.GROUP, *NAMES])
