"""The reward pool as an actor."""

import numpy as np
import ray
from tasks import task_of

from actors.pools.messages import SampledItem
from actors.pools.reward import RewardPool
from openrs_ray.config.rewards import Rewards
from openrs_ray.data.completions import Decoder, RolloutDecoder
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Status
from openrs_ray.rewards.records import JudgeItem

TOKENIZER = make_tokenizer()
DECODER = RolloutDecoder(Decoder.of(TOKENIZER), (TOKENIZER.eos_token_id or 0,), "<think>")


def sampled(sum_: str) -> SampledItem:
    """The item of a rollout that solves a sum."""
    asked, _, answer = sum_.partition("=")
    ids = TOKENIZER.encode(f"{asked}=</think>\\boxed{{{answer}}}", add_special_tokens=False)
    tokens = np.array([*ids, TOKENIZER.eos_token_id], dtype=np.int32)
    return SampledItem(tokens, None, "stop", ("4",), "2+2", {}, "")


def test_in_a_ray_actor_a_timeout_is_a_timeout_and_right_is_right(ray_session: None) -> None:
    """An actor's threads and event loop are where math-verify's own time limits fail and score everything wrong."""
    rewards = Rewards(weights={"accuracy": 1.0}, processes=2, deadline_s=2.0)
    actor = ray.remote(RewardPool).options(num_cpus=1, max_concurrency=100).remote([task_of(rewards)], decode=DECODER)
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
        found = ray.get(actor.judge_rollouts.remote([sampled("2+2=4"), sampled("2+2=5")]), timeout=60)
        assert [(each.verdict.status, each.texts.whole) for each in found] == [
            (Status.CORRECT, "<think>2+2=</think>\\boxed{4}"),
            (Status.WRONG, "<think>2+2=</think>\\boxed{5}"),
        ]
        ray.get(actor.close.remote(), timeout=30)
    finally:
        ray.kill(actor)
