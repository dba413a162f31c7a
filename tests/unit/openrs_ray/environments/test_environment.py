"""Environments with engines that are played."""

import asyncio
from typing import Any

from places import ROOT
from played_turns import PROBLEM, TOKENIZER, Played

from openrs_ray.environments.environment import Environment
from openrs_ray.environments.single_turn import SingleTurn
from openrs_ray.records import Rollout, VersionSpan


def of_page() -> Environment:
    """The environment in docs/extending.md."""
    page = (ROOT / "docs" / "extending.md").read_text().partition("## Adding an environment")[2]
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    environment: Environment = names["Calculator"]()
    return environment


def test_one_turn_is_the_completion_itself() -> None:
    engines = Played("42")
    rollout = asyncio.run(SingleTurn().rollout(PROBLEM, engines))
    assert engines.asked == [("<|user|>12+30<|assistant|>", None)]
    assert list(rollout.token_ids) == engines.lines[0] and rollout.sampled.all() and rollout.versions_cover
    assert (rollout.position, rollout.sample, rollout.worker, rollout.truncated) == (40, 3, 1, False)


def test_the_environment_of_the_page() -> None:
    engines = Played("12+30=", "42")
    rollout = asyncio.run(of_page().rollout(PROBLEM, engines))
    said = "<|user|>12+30<|assistant|>12+30=<|end|><|user|>42<|assistant|>"
    assert engines.asked == [("<|user|>12+30<|assistant|>", 32), (said, None)]
    assert TOKENIZER.decode(rollout.token_ids[rollout.sampled]) == "12+30=<|end|>42<|end|>"
    assert TOKENIZER.decode(rollout.token_ids[~rollout.sampled]) == "<|user|>42<|assistant|>"
    assert not rollout.logprobs[~rollout.sampled].any() and rollout.logprobs[rollout.sampled].all()
    assert rollout.versions == (VersionSpan(0, 0, 7), VersionSpan(1, 11, 14)) and rollout.versions_cover


def test_turns_of_one_version_that_touch_are_one_span_and_what_nobody_read_is_left_out() -> None:
    turn = asyncio.run(Played("12").sample(PROBLEM.prompt_ids))
    rollout = Rollout.of([turn, turn, (7, 8)])
    assert list(rollout.token_ids) == [*turn.token_ids, *turn.token_ids] and rollout.sampled.all()
    assert rollout.versions == (VersionSpan(0, 0, 6),) and rollout.versions_cover
