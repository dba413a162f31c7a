"""`python calculator_run.py RECIPE ...`: the training command with two turns and a calculator's result between them."""

import asyncio
import functools
import sys

import actors.loop.system
from launch.train import main
from openrs_ray.environments.environment import Engines
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Problem, Rollout

FIRST_TURN = 8
"""Tokens at most."""
WAIT_S = 8.0
TOKENIZER = make_tokenizer()


def said(problem: str) -> list[int]:
    """Tokens of the calculator's answer. Example: of "12+30" those of "<|user|>=42<|assistant|>" """
    left, right = problem.split("+")
    return list(TOKENIZER(f"<|user|>={int(left) + int(right)}<|assistant|>")["input_ids"])


class Calculator:
    """Every second rollout waits between its turns, for some seconds, until others are sampled by a newer policy."""

    def __init__(self) -> None:
        self._newest = 0

    async def rollout(self, problem: Problem, engines: Engines) -> Rollout:
        first = await engines.sample(problem.prompt_ids, max_tokens=FIRST_TURN)
        version = first.versions[-1].version
        self._newest = max(self._newest, version)
        if first.sample % 2:
            for _ in range(int(WAIT_S / 0.05)):
                if self._newest > version:
                    break
                await asyncio.sleep(0.05)
        given = said(problem.text)
        second = await engines.sample([*problem.prompt_ids, *first.token_ids, *given])
        return Rollout.of([first, given, second])


if __name__ == "__main__":
    actors.loop.system.System = functools.partial(  # type: ignore[misc,assignment]
        actors.loop.system.System, environments={"": Calculator()}
    )
    sys.exit(main(sys.argv[1:]))
