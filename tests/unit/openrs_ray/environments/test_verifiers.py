"""What an environment of verifiers says between turns: the same from every process, and an error where it is not."""

import random
from pathlib import Path
from typing import Any

import pytest
from places import SUPPORT
from tasks import task_of

from openrs_ray.config.data import Data
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.task import Task
from openrs_ray.data.libraries import library_rows
from openrs_ray.environments.making import Making
from openrs_ray.environments.replier import Replier
from openrs_ray.environments.reply import Answer, Asked
from openrs_ray.models.tool_template import OWN_FORMAT
from openrs_ray.records import Status
from openrs_ray.rewards.pool import CheckPool

pytest.importorskip("verifiers", reason="the extra verifiers is not installed")


def environment(name: str, **parameters: Any) -> Task:
    plain = task_of(Rewards())
    data = Data(path=f"verifiers:{name}", parameters=parameters)
    return Task("", data, plain.answer, plain.rewards, EnvironmentSection(name=data.path))


def answers(task: Task, asked: list[Asked]) -> list[Answer]:
    """All from one new process, the last first."""
    replier = Replier(Making(task), OWN_FORMAT, task.environment.name)
    with CheckPool[Asked, Answer](replier, 1, 10.0, 4.0, prepare=replier.prepare, failed=Answer.failure) as pool:
        return [future.result() for future in [pool.submit(one) for one in reversed(asked)]][::-1]


def asked(row: dict[str, Any], *talk: str) -> Asked:
    """The model speaks first."""
    messages = [{"role": ("assistant", "user")[n % 2], "content": text} for n, text in enumerate(talk)]
    return Asked("", "opening", (), row, ({"role": "user", "content": "opening"}, *messages), 9)


def test_any_process_answers_any_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SUPPORT / "verifiers_environments")
    task = environment("guess_a_number", select={"limit": 2})
    row, draw = library_rows(task.data)[1], random.Random(1)
    number, noise = draw.randint(1, 99), f"({draw.random():.3f})"
    first, second, found, other = answers(
        task,
        [
            asked(row, str(number + 1)),
            asked(row, str(number + 1), f"too high {noise}", "hm"),
            asked(row, str(number + 1), f"too high {noise}", str(number)),
            asked(row, str(number + 1), "too high (0.5)", "hm"),
        ],
    )
    assert first.messages == ({"role": "user", "content": f"too high {noise}"},)
    assert second.messages == ({"role": "user", "content": f"no number {noise}"},)
    assert found.messages == () and found.failed is None, "the episode is over"
    assert other.failed is Status.ERROR and "when its conversation is played again" in other.detail


def test_an_environment_of_one_turn_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SUPPORT / "verifiers_environments")
    task = environment("reversed_words", words=1)
    (row,) = library_rows(task.data)
    assert answers(task, [asked(row, "3111")])[0] == Answer()


def test_randomness_of_an_environment_s_own_is_an_error_and_no_wrong_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loose.py").write_text(
        "import os\nimport verifiers.v1 as vf\n"
        "class Env(vf.SingleAgentEnv):\n"
        "    async def run(self, task, agents):\n"
        "        async with agents.agent.interaction(task) as talk:\n"
        "            await talk.turn()\n"
        "            while True: await talk.turn(os.urandom(8).hex())\n"
        "class Tasks(vf.Taskset[vf.Task, vf.TasksetConfig]):\n"
        "    def load(self): return [vf.Task(vf.TaskData(prompt='1'))]\n"
        "__all__ = ['Env', 'Tasks']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = environment("loose")
    (row,) = library_rows(task.data)
    (first,) = answers(task, [asked(row, "x")])
    (second,) = answers(task, [asked(row, "x", first.messages[0]["content"], "y")])
    assert first.failed is None and second.failed is Status.ERROR
