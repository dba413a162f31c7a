"""Environments as an asynchronous actor: answers the model's turns in processes that can be killed."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from actors.cluster.restarted import Restarted
from openrs_ray.config.task import Task
from openrs_ray.environments.replier import Replier
from openrs_ray.environments.reply import Answer, Asked
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.run.spans import traced

CALLS = 100_000
"""Turns that may wait at once."""
_KEPT_LINES = 1000


class EnvironmentPool:
    """Answers turns; its processes end with `close` or the actor's own. Ray starts it again: no state of a rollout is in it."""

    def __init__(self, repliers: Mapping[str, Replier], tasks: Sequence[Task]) -> None:
        """`repliers`: by task; each has processes of its own, with the deadline and the memory of its section."""
        self._printed: deque[str] = deque(maxlen=_KEPT_LINES)
        sections = {task.name: task.environment for task in tasks if task.name in repliers}
        self._pools: dict[str, CheckPool[Asked, Answer]] = {
            name: CheckPool(
                repliers[name],
                processes=section.processes,
                deadline_s=section.deadline_s,
                memory_gib=section.memory_gib,
                prepare=repliers[name].prepare,
                failed=Answer.failure,
                printed=self._printed.append,
            )
            for name, section in sections.items()
        }

    @traced("reply")
    async def answer(self, asked: Asked) -> tuple[Answer, list[str]]:
        """The answer, and lines that environments have printed meanwhile. RunError when no process can be started."""
        answer = await asyncio.wrap_future(self._pools[asked.task].submit(asked))
        return answer, [self._printed.popleft() for _ in range(len(self._printed))]

    async def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


def asking(
    pool: Any, deadline_s: float, report: Callable[[str], None], log: Callable[[str], None]
) -> Callable[[Asked], Awaitable[Answer]]:
    """Asks the actor, over the loss of it. `log` is told what environments print."""
    # A turn carries the whole state of its rollout, and answering it twice does no harm.
    restarted = Restarted("the environment pool", deadline_s, report)

    async def ask(asked: Asked) -> Answer:
        answer: Answer
        answer, printed = await restarted.ask("answer a turn", lambda: pool.answer.remote(asked))
        for line in printed:
            log(line)
        return answer

    return ask
