"""The reward pool as an actor."""

import ray
from tasks import task_of

from actors.pools.reward import RewardPool
from openrs_ray.config.rewards import Rewards
from openrs_ray.records import Status
from openrs_ray.rewards.records import JudgeItem


def test_in_a_ray_actor_a_timeout_is_a_timeout_and_right_is_right(ray_session: None) -> None:
    """An actor's threads and event loop are where math-verify's own time limits fail and score everything wrong."""
    rewards = Rewards(weights={"accuracy": 1.0}, processes=2, deadline_s=2.0)
    actor = ray.remote(RewardPool).options(num_cpus=1, max_concurrency=100).remote([task_of(rewards)])
    try:
        right = JudgeItem(r"</think> \boxed{\frac{1}{2}\sqrt{8}}", 9, "stop", (r"\sqrt{2}",))
        wrong = JudgeItem(r"</think> \boxed{\sqrt{3}}", 9, "stop", (r"\sqrt{2}",))
        poison = JudgeItem(rf"</think> \boxed{{{'|x|' * 300}}}", 130, "stop", ("3",))
        batches = ray.get([actor.judge.remote([right, wrong]), actor.judge.remote([poison, right])], timeout=120)
        assert [[verdict.status for verdict in batch] for batch in batches] == [
            [Status.CORRECT, Status.WRONG],
            [Status.TIMEOUT, Status.CORRECT],
        ]
        assert ray.get(actor.counts.remote()) == {"checks": 4, "timeouts": 1, "errors": 0, "replaced": 1}
        ray.get(actor.close.remote(), timeout=30)
    finally:
        ray.kill(actor)
