"""Two sums, one after the other, as the toy model knows them; on request, with tasks whose functions hang, die or raise."""

import os
import re
import time

import verifiers.v1 as vf


class SumData(vf.TaskData):
    sums: list[tuple[int, int]]
    fault: str = ""


def break_down(fault: str) -> None:
    if fault == "hang":
        time.sleep(1000)
    elif fault == "die":
        os._exit(9)
    elif fault == "eat":
        bytearray(1 << 40)
    elif fault:
        raise ValueError("a mistake in the environment")


class SumTask(vf.Task[SumData]):
    @vf.reward(weight=2.0)
    async def share_right(self, trace: vf.Trace) -> float:
        if self.data.fault.startswith("reward_"):
            break_down(self.data.fault.removeprefix("reward_"))
        said = [re.findall(r"\\boxed\{(\d+)\}", message.content or "") for message in trace.assistant_messages]
        right = [found[-1:] == [str(sum(pair))] for found, pair in zip(said, self.data.sums, strict=False)]
        return sum(right) / len(self.data.sums)


class SumEnv(vf.SingleAgentEnv):
    async def run(self, task, agents):
        (left, right), *others = task.data.sums
        async with agents.agent.interaction(task) as interaction:
            segment = await interaction.turn(f"{left}+{right}")
            for left, right in others:
                if segment.terminated:
                    break
                if task.data.fault.startswith("turn_"):
                    break_down(task.data.fault.removeprefix("turn_"))
                segment = await interaction.turn(f"{left}+{right}")


class SumConfig(vf.TasksetConfig):
    tasks: int = 16
    faults: tuple[str, ...] = ()


class SumTaskset(vf.Taskset[SumTask, SumConfig]):
    def load(self):
        for number in range(self.config.tasks):
            fault = self.config.faults[number] if number < len(self.config.faults) else ""
            sums = [(214 + number, 321 + 3 * number), (523 + number, 142 + number)]
            yield SumTask(SumData(sums=sums, fault=fault), self.config.task)


__all__ = ["SumEnv", "SumTaskset"]
