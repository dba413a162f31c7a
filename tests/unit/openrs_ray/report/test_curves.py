"""Curves keep every step, or the extremes of each bucket, and a page that has the first points needs the rest only."""

import random
from typing import Any

import numpy as np

from openrs_ray.report.curves import bucket_size, curves, tail


def lines(steps: int) -> list[dict[str, Any]]:
    values = random.Random(7)
    return [
        {
            "step": step,
            "attempt": 1,
            "phase": "train",
            "reward": values.random(),
            "kl": None if step % 3 else values.random(),
        }
        for step in range(1, steps + 1)
    ]


def test_few_steps_are_kept_as_they_are() -> None:
    given = lines(100)
    found = curves(given)
    assert (found["bucket"], found["step"]) == (1, [*range(1, 101)])
    assert set(found["columns"]) == {"reward", "kl"}
    assert all(abs(a - line["reward"]) < 1e-6 for a, line in zip(found["columns"]["reward"], given, strict=True))
    assert [value is None for value in found["columns"]["kl"]] == [line["kl"] is None for line in given]


def test_many_steps_keep_the_smallest_and_largest_value_of_each_bucket() -> None:
    given = lines(10_000)
    found = curves(given, most=2048)
    assert len(found["step"]) <= 2048 and found["bucket"] == 16
    assert found["step"] == sorted(found["step"]) and found["step"][-1] == 10_000
    for place in range(0, len(given), 16):
        own = [line["reward"] for line in given[place : place + 16]]
        shown = found["columns"]["reward"][place // 8 : place // 8 + 2]
        assert np.allclose(sorted(shown), [min(own), max(own)], rtol=1e-5)
        assert (own.index(min(own)) < own.index(max(own))) == (shown[0] < shown[1])


def test_a_bucket_stays_as_it_is_when_steps_follow() -> None:
    given = lines(9000)
    before, after = curves(given[:8990], most=2048), curves(given, most=2048)
    assert before["bucket"] == after["bucket"]
    whole = len(before["step"]) - 2
    assert before["step"][:whole] == after["step"][:whole]
    assert before["columns"]["reward"][:whole] == after["columns"]["reward"][:whole]


def test_a_page_gets_what_it_lacks() -> None:
    for steps, more in ((50, 3), (9000, 40)):
        before, after = curves(lines(steps)[:-more]), curves(lines(steps))
        rest = tail(after, len(before["step"]))
        assert len(rest["step"]) <= more + 2
        for name, values in before["columns"].items():
            assert values[: rest["from"]] + rest["columns"][name] == after["columns"][name]


def test_there_is_nothing_without_steps() -> None:
    assert curves([]) == {"bucket": 1, "step": [], "columns": {}}
    assert bucket_size(0) == bucket_size(2048) == 1 and bucket_size(2049) == 4


def test_what_is_not_finite_becomes_nothing() -> None:
    found = curves([{"step": 1, "loss": float("inf"), "reward": 2.0, "name": "text"}])
    assert found["columns"] == {"loss": [None], "reward": [2]}
