"""A single-turn environment of verifiers: two weighted rewards, a metric, a parameter."""

from difflib import SequenceMatcher

import verifiers.v1 as vf


class WordData(vf.TaskData):
    answer: str


class WordTaskConfig(vf.TaskConfig):
    fault: str = ""


class WordTask(vf.Task[WordData, vf.State, WordTaskConfig]):
    @vf.reward(weight=2.0)
    async def likeness(self, trace: vf.Trace) -> float:
        return SequenceMatcher(None, trace.last_reply, self.data.answer).ratio()

    @vf.reward(weight=0.5)
    async def brevity(self, trace: vf.Trace) -> float:
        return 1.0 / (1.0 + len(trace.last_reply.split()))

    @vf.metric
    async def turns(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class WordConfig(vf.TasksetConfig):
    words: int = 20
    task: WordTaskConfig = WordTaskConfig()


class WordTaskset(vf.Taskset[WordTask, WordConfig]):
    def load(self):
        for number in range(self.config.words):
            word = f"{number + 11}{number * 7 + 13}"
            data = WordData(prompt=f"Reverse {word}", system_prompt="You reverse words.", answer=word[::-1])
            yield WordTask(data, self.config.task)


__all__ = ["WordTaskset"]
