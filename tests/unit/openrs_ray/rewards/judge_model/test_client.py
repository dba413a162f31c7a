"""A judge model's client against an endpoint that fails in every way: values, kinds, numbers of requests, waits, cost."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flaky_judge import FlakyJudge

from openrs_ray.records import Status
from openrs_ray.rewards.judge_model.client import JudgeClient, Unjudged
from openrs_ray.rewards.judge_model.replies import FILE, Replies
from openrs_ray.rewards.judge_model.scores import Unreadable
from openrs_ray.rewards.judge_model.settings import JudgeSettings

KEY = "judge-key-0123456789"
PRICES = {"price_per_million_prompt_tokens": 2.0, "price_per_million_completion_tokens": 30.0}
DOLLARS = 100 * 2e-6 + 10 * 30e-6
"""Of one answered request."""


def read(reply: str) -> float:
    if not reply.startswith("Score: "):
        raise Unreadable(f"no score in {reply!r}")
    return float(reply.removeprefix("Score: "))


def settings(judge: FlakyJudge, **changes: Any) -> JudgeSettings:
    fast: dict[str, Any] = {"timeout_s": 1.0, "deadline_s": 20.0, "retries": 3, "backoff_s": 0.02} | PRICES
    return JudgeSettings("tiny", judge.url, **(fast | changes))


def asked(
    judge: FlakyJudge, prompts: list[str], folder: Path | None = None, **changes: Any
) -> tuple[list[float | Unjudged], Replies]:
    """What comes of prompts that are asked for at once."""
    replies = Replies(folder and folder / FILE)

    async def ask() -> list[Any]:
        client = JudgeClient(settings(judge, **changes), replies, KEY)
        try:
            return await asyncio.gather(*(client.ask(prompt, read) for prompt in prompts), return_exceptions=True)
        finally:
            await client.close()

    return asyncio.run(ask()), replies


def then_good(*first: str) -> Callable[[str, int], str]:
    return lambda prompt, before: [*first, "Score: 7"][min(before, len(first))]


@pytest.mark.parametrize(
    "failure", ["500", "503:0", "408", "reset", "hang", "trickle", "garbage", "truncated", "no-choices", "no score"]
)
def test_a_request_that_fails_is_made_again(failure: str) -> None:
    with FlakyJudge(then_good(failure)) as judge:
        (value,), replies = asked(judge, ["x"])
    assert value == 7.0 and judge.requests == 2
    assert replies.spent.failed == 1 and replies.spent.unjudged == 0
    paid = 2 if failure == "no score" else 1  # its tokens are on the bill
    assert replies.spent.requests == paid and replies.spent.dollars == pytest.approx(paid * DOLLARS)


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        ("500", Status.ERROR, "HTTP 500 (told to: 500) after 4 requests"),
        ("reset", Status.ERROR, "after 4 requests"),
        ("truncated", Status.ERROR, "RemoteProtocolError"),
        ("hang", Status.TIMEOUT, "no answer within rewards.judge.timeout_s, 1 s after 4 requests"),
        ("trickle", Status.TIMEOUT, "rewards.judge.timeout_s"),
        ("garbage", Status.ERROR, "no chat completion with text: <html>"),
        ("endless", Status.ERROR, "more than 8 MiB"),
        ("I would say seven", Status.ERROR, "no score in 'I would say seven' after 4 requests"),
    ],
)
def test_what_never_works_is_no_judgement_and_says_why(failure: str, status: Status, said: str) -> None:
    with FlakyJudge(lambda prompt, before: failure if prompt == "bad" else "Score: 3") as judge:
        (bad, good), replies = asked(judge, ["bad", "good"], timeout_s=1.0 if failure in ("hang", "trickle") else 10.0)
    assert isinstance(bad, Unjudged) and bad.status is status and said in bad.detail, bad
    assert good == 3.0 and len(judge.times["bad"]) == 4 and len(judge.times["good"]) == 1
    assert (replies.spent.unjudged, replies.spent.failed) == (1, 4)


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422", "302"])
def test_what_cannot_work_is_asked_once(status: str) -> None:
    with FlakyJudge(lambda prompt, before: status) as judge:
        (value,), _ = asked(judge, ["x"])
    assert isinstance(value, Unjudged) and value.lasting and f"HTTP {status}" in value.detail and judge.requests == 1


def test_waits_double_and_vary() -> None:
    with FlakyJudge(then_good("500", "500", "500")) as judge:
        asked(judge, [f"{number}" for number in range(8)], backoff_s=0.2)
    waits = [[late - early for early, late in pairwise(times)] for times in judge.times.values()]
    for first, second, third in waits:
        assert 0.1 <= first <= 0.5 and 0.2 <= second <= 0.8 and 0.4 <= third <= 1.2
    assert len({round(first, 3) for first, *_ in waits}) > 2, "jitter"


@pytest.mark.parametrize("after", ["1", "date"])
def test_the_wait_that_an_endpoint_asks_for_holds_for_every_request(after: str) -> None:
    wanted = "1" if after == "1" else formatdate(time.time() + 2, usegmt=True)  # whole seconds: one to two from now

    def behaviour(prompt: str, before: int) -> str:
        return f"429:{wanted}" if prompt == "first" and not before else "Score: 1"

    async def ask(judge: FlakyJudge) -> list[float]:
        client = JudgeClient(settings(judge), Replies(None))
        first = asyncio.create_task(client.ask("first", read))
        await asyncio.sleep(0.3)
        return await asyncio.gather(first, *(client.ask(f"{number}", read) for number in range(4)))

    with FlakyJudge(behaviour) as judge:
        assert asyncio.run(ask(judge)) == [1.0] * 5
        began = judge.times["first"][0]
        later = [times[-1] - began for times in judge.times.values()]
    assert min(later) >= 0.95, "one refusal stops all"


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    with FlakyJudge(lambda prompt, before: "429:3600") as judge:
        began = time.monotonic()
        (value,), _ = asked(judge, ["x"])
        assert time.monotonic() - began < 5
    assert isinstance(value, Unjudged) and value.status is Status.TIMEOUT and "asks to wait 3600 s" in value.detail


def test_the_deadline_holds_over_retries_and_for_those_that_wait() -> None:
    with FlakyJudge(lambda prompt, before: "hang") as judge:
        began = time.monotonic()
        values, _ = asked(judge, ["1", "2", "3"], timeout_s=0.5, deadline_s=1.0, concurrency=1)
        assert time.monotonic() - began < 3
    assert all(isinstance(value, Unjudged) and value.status is Status.TIMEOUT for value in values)


def test_so_many_at_once_and_no_more() -> None:
    with FlakyJudge(lambda prompt, before: "slowly Score: 2") as judge:
        values, _ = asked(judge, [f"{number}" for number in range(12)], concurrency=3)
    assert values == [2.0] * 12 and judge.most_at_once == 3


def test_one_that_hangs_keeps_no_other_waiting() -> None:
    done: dict[str, float] = {}

    async def ask(judge: FlakyJudge) -> None:
        client, began = JudgeClient(settings(judge, timeout_s=1.5, retries=0), Replies(None)), time.monotonic()

        async def one(prompt: str) -> None:
            with suppress(Unjudged):
                await client.ask(prompt, read)
            done[prompt] = time.monotonic() - began

        await asyncio.gather(*map(one, ["bad", *map(str, range(20))]))

    with FlakyJudge(lambda prompt, before: "hang" if prompt == "bad" else "Score: 5") as judge:
        asyncio.run(ask(judge))
    bad = done.pop("bad")
    assert bad >= 1.5 and max(done.values()) < bad


def test_the_same_request_is_made_once(tmp_path: Path) -> None:
    with FlakyJudge(lambda prompt, before: "slowly Score: 4") as judge:
        values, replies = asked(judge, ["x", "x", "x", "y"], tmp_path)
        assert values == [4.0] * 4 and judge.requests == 2 and replies.spent.cached == 2
        again, replies = asked(judge, ["x", "y"], tmp_path)  # another process, after a kill
        assert again == [4.0, 4.0] and judge.requests == 2
        assert (replies.spent.requests, replies.spent.prompt_tokens) == (2, 200), "sums go on"
        assert replies.spent.dollars == pytest.approx(2 * DOLLARS)
        asked(judge, ["x"], tmp_path, max_tokens=99)  # is another request
        assert judge.requests == 3


def test_a_line_torn_by_a_kill_is_asked_for_again(tmp_path: Path) -> None:
    with FlakyJudge(lambda prompt, before: f"Score: {before}") as judge:
        asked(judge, ["x", "y"], tmp_path, concurrency=1)
        path = tmp_path / FILE
        path.write_bytes(path.read_bytes()[:-20])
        values, replies = asked(judge, ["x", "y"], tmp_path, concurrency=1)
        assert values == [0.0, 1.0] and judge.requests == 3, "the first line counts, the second is half"
        assert replies.spent.requests == 2
        values, _ = asked(judge, ["x", "y"], tmp_path)
        assert values == [0.0, 1.0] and judge.requests == 3
    assert [line for line in path.read_text().splitlines() if "Score" in line]


def test_other_rules_of_reading_ask_again_where_the_old_reply_has_no_score(tmp_path: Path) -> None:
    async def ask(judge: FlakyJudge, rule: Callable[[str], float]) -> float:
        return await JudgeClient(settings(judge), Replies(tmp_path / FILE)).ask("x", rule)

    def strict(reply: str) -> float:
        if reply != "Score: 9.5":
            raise Unreadable("not strict")
        return 9.5

    with FlakyJudge(lambda prompt, before: ["Score: 9", "Score: 9.5"][before]) as judge:
        assert asyncio.run(ask(judge, read)) == 9.0
        assert asyncio.run(ask(judge, strict)) == 9.5


def test_the_key_goes_into_the_header_and_nowhere_else(tmp_path: Path) -> None:
    with FlakyJudge(lambda prompt, before: f"401:{KEY}" if prompt == "bad" else "Score: 1") as judge:
        (bad, _), _ = asked(judge, ["bad", "good"], tmp_path)
    assert judge.keys == [f"bearer {KEY}"] * 2
    assert isinstance(bad, Unjudged) and KEY not in bad.detail and "***" in bad.detail
    assert KEY not in (tmp_path / FILE).read_text()


def test_nobody_listens() -> None:
    async def ask() -> float:
        return await JudgeClient(
            JudgeSettings("tiny", "http://127.0.0.1:9", retries=1, backoff_s=0.01), Replies(None)
        ).ask("x", read)

    with pytest.raises(Unjudged, match=r"ConnectError from http://127\.0\.0\.1:9") as caught:
        asyncio.run(ask())
    assert caught.value.status is Status.ERROR and not caught.value.lasting


def test_fields_of_the_request() -> None:
    more = {"max_tokens": None, "max_completion_tokens": 5, "response_format": {"type": "json_object"}}
    with FlakyJudge(lambda prompt, before: "Score: 1") as judge:
        asked(judge, ["a \ud800 { }"], system_prompt="You judge.", request=more)
    assert judge.bodies == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "You judge."}, {"role": "user", "content": "a \ud800 { }"}],
            "temperature": 0.0,
            "max_completion_tokens": 5,
            "response_format": {"type": "json_object"},
        }
    ]


def test_a_server_of_the_runs_own_is_waited_for() -> None:
    async def ask(judge: FlakyJudge) -> float:
        async def address() -> str:
            await asyncio.sleep(0.2)
            return judge.url

        where: Callable[[], Awaitable[str]] = address
        return await JudgeClient(JudgeSettings("tiny"), Replies(None), KEY, where).ask("x", read)

    with FlakyJudge(lambda prompt, before: "Score: 8") as judge:
        assert asyncio.run(ask(judge)) == 8.0


def test_lines_of_others_are_passed_over(tmp_path: Path) -> None:
    lines = [
        {"key": "zz" * 32, "reply": "", "prompt_tokens": 1, "completion_tokens": 1, "dollars": 0.0},
        [],
        {"key": 1},
    ]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Replies(tmp_path / FILE).spent.requests == 0
