"""What the trainer makes of actors that are late, fail or die: who, what for, why."""

import asyncio
import os
import time

import pytest
import ray

from actors.cluster.deadlines import within
from openrs_ray.errors import RunError, UserError


@ray.remote(num_cpus=0.1)
class Actor:
    def raises(self, error: Exception) -> None:
        raise error

    def sleeps(self) -> None:
        time.sleep(30)

    def dies(self) -> None:
        os._exit(1)


@pytest.mark.parametrize(
    ("method", "arguments", "kind", "sentence"),
    [
        ("raises", [UserError("mend this")], UserError, "^mend this$"),
        ("raises", [RunError("this broke")], RunError, "^this broke$"),
        # Its own time-out, not the trainer's deadline, which has 60 s left.
        ("raises", [TimeoutError("store")], RunError, "rank 3 failed to join: TimeoutError: store"),
        ("dies", [], RunError, "rank 3 died while asked to join"),
        ("sleeps", [], RunError, "waited 1 s for rank 3 to join"),
    ],
)
def test_who_what_and_why(
    ray_session: None, method: str, arguments: list[Exception], kind: type[Exception], sentence: str
) -> None:
    actor = Actor.remote()
    seconds = 1 if method == "sleeps" else 60
    with pytest.raises(kind, match=sentence):
        asyncio.run(_wait(seconds, getattr(actor, method), arguments))
    ray.kill(actor)


async def _wait(seconds: float, method: object, arguments: list[Exception]) -> None:
    await within(seconds, "rank 3", "join", method.remote(*arguments))
