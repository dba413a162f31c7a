"""A multi-turn environment of verifiers: the model guesses a number, and hears if it is too low or too high."""

import itertools
import random
import re

import verifiers.v1 as vf


class NumberData(vf.TaskData):
    seed: int


class NumberTask(vf.Task[NumberData]):
    @vf.stop
    async def gave_up(self, trace: vf.Trace) -> bool:
        return "I give up" in trace.last_reply

    @vf.reward
    async def talks(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class GuessEnv(vf.SingleAgentEnv):
    async def run(self, task, agents):
        random.seed(task.data.seed)
        number, noise = random.randint(1, 99), random.random()
        found = 0.0
        async with agents.agent.interaction(task) as interaction:
            segment = await interaction.turn("Guess a number from 1 to 99.")
            while not segment.terminated:
                guess = re.search(r"\d+", segment.last_reply)
                if guess and int(guess[0]) == number:
                    found = 1.0
                    break
                hint = "no number" if not guess else "too low" if int(guess[0]) < number else "too high"
                segment = await interaction.turn(f"{hint} ({noise:.3f})")
        interaction.trace.record_reward("found", found, 3.0)


class NumberTaskset(vf.Taskset[NumberTask, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        for seed in itertools.count():
            yield NumberTask(NumberData(seed=seed), self.config.task)


__all__ = ["GuessEnv", "NumberTaskset"]
