"""Replies of judge models are read strictly."""

import time

import pytest

from openrs_ray.rewards.judge_model.scores import (
    SCORE_PATTERN,
    Unreadable,
    ranking,
    score_by_key,
    score_by_pattern,
    scores,
)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Score: 7", 0.7),
        ("It is right.\n\n**Score:** 10", 1.0),
        ("**Score: 2.5**", 0.25),
        ("Score: 3 at first, but\nScore: 4\n", 0.4),
        ("score 8/10.", 0.8),
        ("Score: 6 out of 10", 0.6),
        ("<think>Score: 1\n</think>Score: 0", 0.0),
    ],
)
def test_the_score_of_the_last_line(reply: str, value: float) -> None:
    assert score_by_pattern(reply, SCORE_PATTERN, 0, 10) == pytest.approx(value)


@pytest.mark.parametrize(
    "reply", ["", "7", "Score: high", "Score (0-10): 7", "Score: 11", "Score: -1", "Score: 7 or 8", "Score: 1e999"]
)
def test_anything_else_is_no_score(reply: str) -> None:
    with pytest.raises(Unreadable):
        score_by_pattern(reply, SCORE_PATTERN, 0, 10)


def test_a_scale_of_ones_own() -> None:
    assert score_by_pattern("grade=3", r"grade=(\d)", 1, 5) == 0.5
    assert score_by_pattern("grade=1", r"grade=(\d)", 1, 5) == 0.0
    with pytest.raises(Unreadable, match="is not in 1 to 5"):
        score_by_pattern("grade=0", r"grade=(\d)", 1, 5)
    with pytest.raises(Unreadable, match="None is not in"):
        score_by_pattern("none", r"none|(\d)", 1, 5)


def test_a_pattern_without_end_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(Unreadable, match=r"score_pattern took over 2 s"):
        score_by_pattern("a" * 60, r"(a|aa)+b", 0, 1)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('{"score": 5}', 0.5),
        ('Here: {"why": "a } b {", "score": "7.5"} and that is it', 0.75),
        ('{"score": 1} no: {"score": 2}', 0.2),
        ('{broken {"score": 3}', 0.3),
    ],
)
def test_the_last_object_with_the_key(reply: str, value: float) -> None:
    assert score_by_key(reply, "score", 0, 10) == pytest.approx(value)


@pytest.mark.parametrize(
    "reply",
    ["", "5", '{"grade": 5}', '{"score": true}', '{"score": null}', '{"score": [5]}', '{"score": 11}', '{"score": NaN}',
     "{" * 3000, '{"score": "' + "9" * 5000 + '"}'],
)  # fmt: skip
def test_no_object_with_a_score(reply: str) -> None:
    with pytest.raises(Unreadable):
        score_by_key(reply, "score", 0, 10)


def test_a_ranking_names_each_once() -> None:
    assert ranking("First [1, 2, 3]; no, [3, 1, 2]", 3) == [0.5, 0.0, 1.0]
    assert ranking('{"ranking": [2, 1]}', 2) == [0.0, 1.0]
    for reply in (
        "3 1 2",
        "[3, 1]",
        "[3, 1, 2, 2]",
        "[0, 1, 2]",
        "[1.0, 2, 3]",
        "[true, 2, 3]",
        '["1", 2, 3]',
        "[1, 2, 3] [x]",
    ):
        with pytest.raises(Unreadable):
            ranking(reply, 3)


def test_scores_are_one_for_each() -> None:
    assert scores("[0, 10, 2.5]", 3, 0, 10) == [0.0, 1.0, 0.25]
    for reply in ("[1, 2]", "[1, 2, 11]", "[1, 2, null]", "none"):
        with pytest.raises(Unreadable):
            scores(reply, 3, 0, 10)
