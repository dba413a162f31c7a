"""Rollouts of several turns, with environments in processes of their own that hang, crash, fill the memory and raise."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_templates import GEMMA, tokenizer_with
from played_turns import PROBLEM, TOKENIZER, Played

from openrs_ray.config.schema import RunConfig
from openrs_ray.environments.between import Between
from openrs_ray.environments.registry import check_environment, code_of, environments, repliers
from openrs_ray.environments.reply import Answer, Asked, RolloutFailed
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.environments.turns import Ask, Bounds, TurnByTurn
from openrs_ray.errors import UserError
from openrs_ray.records import Rollout, Status, VersionSpan
from openrs_ray.rewards.pool import CheckPool

ENVIRONMENT = '''
import os, time
from openrs_ray.environments.reply import Reply


class Guess:
    """Answers with the number of guesses, and ends after `most`."""

    def __init__(self, most=2):
        self.most = most

    def reply(self, messages, *, state, gold, row, problem):
        said = messages[-1]["content"]
        if said == "1":
            time.sleep(1000)
        if said == "2":
            os._exit(3)
        if said == "3":
            held = []
            while True:
                held.append(bytes(10_000_000))  # untouched pages: the limit is met before the deadline
        if said == "4":
            raise ValueError("four")
        if said == "5":
            return 5
        if said == "6":
            return [{"role": "assistant", "content": "6"}]
        if said == "0":
            return "0" * 20_000_000
        guesses = (state or 0) + 1
        if guesses > self.most or said == gold:
            return None
        return Reply(f"{guesses}", state=guesses)
'''


def configured(folder: Path, environment: Any, source: str = ENVIRONMENT) -> RunConfig:
    (folder / "my_env.py").write_text(source)
    return RunConfig.model_validate(
        {
            "run": {"name": "x", "folder": str(folder), "steps": 1},
            "model": {"path": "toy"},
            "data": {"path": "toy"},
            "rollout": {"problems_per_step": 4, "completions_per_problem": 4, "max_completion_tokens": 40},
            "environment": environment,
        }
    )


def own(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"name": f"{folder / 'my_env.py'}:Guess", "deadline_s": 1.0, "memory_gib": 1.0} | settings


def said(environment: TurnByTurn, *lines: str, tokens: int = 40) -> tuple[Rollout, Played]:
    engines = Played(*lines)
    engines.max_tokens = tokens
    return asyncio.run(environment.rollout(PROBLEM, engines)), engines


def turn_by_turn(config: RunConfig, ask: Ask) -> TurnByTurn:
    (task,) = config.tasks
    bounds = Bounds(task.environment.max_turns, task.environment.max_turn_tokens)
    assert TOKENIZER.eos_token_id is not None
    return TurnByTurn(Between(TOKENIZER, frozenset({TOKENIZER.eos_token_id})), ask, bounds)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunConfig, CheckPool[Asked, Answer]]]:
    folder = tmp_path_factory.mktemp("environment")
    config = configured(folder, own(folder))
    replier = repliers(config, TOKENIZER)[""]
    with CheckPool[Asked, Answer](replier, 2, 1.0, 1.0, prepare=replier.prepare, failed=Answer.failure) as pool:
        yield config, pool


def asking(pool: CheckPool[Asked, Answer]) -> Ask:
    async def ask(asked: Asked) -> Answer:
        return await asyncio.wrap_future(pool.submit(asked))

    return ask


def test_turns_with_given_tokens_between_them_and_the_state_that_travels(
    pool: tuple[RunConfig, CheckPool[Asked, Answer]],
) -> None:
    rollout, engines = said(turn_by_turn(pool[0], asking(pool[1])), "7", "8", "9", "never")
    assert TOKENIZER.decode(rollout.token_ids) == "7<|end|><|user|>1<|assistant|>8<|end|><|user|>2<|assistant|>9<|end|>"
    assert TOKENIZER.decode(rollout.token_ids[~rollout.sampled]) == "<|user|>1<|assistant|><|user|>2<|assistant|>"
    assert [text for text, _ in engines.asked][
        2
    ] == f"<|user|>12+30<|assistant|>{TOKENIZER.decode(rollout.token_ids[:10])}"
    assert rollout.versions == (VersionSpan(0, 0, 2), VersionSpan(1, 5, 7), VersionSpan(2, 10, 12))
    assert rollout.versions_cover and not rollout.truncated and not rollout.logprobs[~rollout.sampled].any()
    right, _ = said(turn_by_turn(pool[0], asking(pool[1])), "7", "42", "never")
    assert TOKENIZER.decode(right.token_ids) == "7<|end|><|user|>1<|assistant|>42<|end|>", "it is told the gold"


FAILING = {
    "1": (Status.TIMEOUT, "killed at the deadline of 1 s"),
    "2": (Status.ERROR, "exit code 3"),
    "3": (Status.ERROR, "my_env.py:Guess took more than environment.memory_gib allows"),
    "4": (Status.ERROR, "my_env.py:Guess failed: ValueError: four (my_env.py, line 23)"),
    "5": (Status.ERROR, "reply returned int: give a text, a list of messages, a Reply or None"),
    "6": (Status.ERROR, "reply returned a message of role 'assistant': one of tool, user, system"),
    "0": (Status.ERROR, "reply returned 20,000,000 characters"),
}


def test_a_failing_environment_ends_its_own_rollout_and_no_other(
    pool: tuple[RunConfig, CheckPool[Asked, Answer]],
) -> None:
    environment = turn_by_turn(pool[0], asking(pool[1]))

    async def all_at_once() -> list[Any]:
        played = [Played("7", fault, "9") for fault in FAILING] + [Played("7", "8", "9") for _ in range(4)]
        rollouts = [environment.rollout(PROBLEM, engines) for engines in played]
        return await asyncio.gather(*rollouts, return_exceptions=True)

    ended = asyncio.run(all_at_once())
    for failed, (fault, (status, detail)) in zip(ended, FAILING.items(), strict=False):
        assert isinstance(failed, RolloutFailed) and failed.status is status
        assert failed.detail.startswith("environment: ") and detail in failed.detail, failed.detail
        assert TOKENIZER.decode(failed.rollout.token_ids) == f"7<|end|><|user|>1<|assistant|>{fault}<|end|>"
    assert all(isinstance(rollout, Rollout) and rollout.sampled_tokens == 6 for rollout in ended[len(FAILING) :])


def test_bounds_end_a_rollout_as_truncated(tmp_path: Path) -> None:
    async def again(asked: Asked) -> Answer:
        return Answer(({"role": "user", "content": "1" * len(asked.messages)},))

    bounded = turn_by_turn(configured(tmp_path, own(tmp_path, max_turns=2, max_turn_tokens=5)), again)
    rollout, engines = said(bounded, "7", "8", "9")
    assert rollout.truncated and TOKENIZER.decode(rollout.token_ids) == "7<|end|><|user|>11<|assistant|>8<|end|>"
    assert [most for _, most in engines.asked] == [5, 5]
    unbounded = turn_by_turn(configured(tmp_path, own(tmp_path)), again)
    rollout, _ = said(unbounded, "7", "8", "9", tokens=9)
    assert rollout.truncated and TOKENIZER.decode(rollout.token_ids) == "7<|end|><|user|>11<|assistant|>8<|end|>"
    rollout, _ = said(unbounded, "7", "8", "9", tokens=6)
    assert rollout.truncated and TOKENIZER.decode(rollout.token_ids) == "7<|end|>", "no room for a token of the model"


def test_messages_that_the_chat_template_refuses_end_their_own_rollout(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(GEMMA, "<end_of_turn>")

    async def two(asked: Asked) -> Answer:
        return Answer(({"role": "system", "content": "1"}, {"role": "user", "content": "2"}))

    assert tokenizer.eos_token_id is not None
    environment = TurnByTurn(Between(tokenizer, frozenset({tokenizer.eos_token_id})), two, Bounds(3, None))
    with pytest.raises(RolloutFailed) as error:
        asyncio.run(environment.rollout(PROBLEM, Played("7", tokenizer=tokenizer, end="<end_of_turn>")))
    assert error.value.status is Status.ERROR
    assert (
        error.value.detail
        == "environment: the chat template does not take its messages: Conversation roles must alternate"
    )


def test_turns_that_nothing_answers_are_a_mistake_and_no_single_turns(tmp_path: Path) -> None:
    tasks = configured(tmp_path, own(tmp_path)).tasks
    with pytest.raises(AssertionError, match=r"nothing answers the turns of environment .*Guess"):
        environments(tasks, TOKENIZER, [1], None)
    assert isinstance(environments(configured(tmp_path, {}).tasks, TOKENIZER, [1], None)[""], SingleTurn)


BAD = {
    "class Guess:\n    pass": "has no method reply",
    "class Guess:\n    def reply(self, messages, temperature): pass": "asks for temperature; it may name messages, problem",
    "class Guess:\n    async def reply(self): pass": "has an async reply",
    "class Guess:\n    def __init__(self): raise KeyError('x')\n    def reply(self): pass": "KeyError: 'x' (my_env.py, line 2)",
    "class Guess:\n    tools = [{'name': 'f'}]\n    def reply(self): pass": "has tools that are no list",
    "class Guess(": "is not Python: '(' was never closed in line 1",
    "import nowhere": "cannot be imported: ModuleNotFoundError: No module named 'nowhere' (my_env.py, line 1)",
    "class Other: pass": "there is no Guess in",
    "import os\nos._exit(7)": "exit code 7",
}


@pytest.mark.parametrize("source", BAD)
def test_a_bad_file_is_one_sentence_before_anything_starts(tmp_path: Path, source: str) -> None:
    config = configured(tmp_path, own(tmp_path), source)
    with pytest.raises(UserError) as error:
        check_environment(config.tasks[0], code_of(config, config.tasks[0]))
    assert BAD[source] in str(error.value) and "\n" not in str(error.value)


def test_parameters_that_the_class_does_not_take_are_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, own(tmp_path, parameters={"least": 1}))
    with pytest.raises(UserError, match="unexpected keyword argument 'least'"):
        check_environment(config.tasks[0], code_of(config, config.tasks[0]))
    with pytest.raises(UserError, match="there is no environment 'calculator'; known are single_turn, python_tool"):
        check_environment(configured(tmp_path, "calculator").tasks[0], None)
    with pytest.raises(ValueError, match="single_turn has one turn and takes no parameters"):
        configured(tmp_path, {"name": "single_turn", "max_turns": 3})
