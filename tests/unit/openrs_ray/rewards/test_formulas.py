"""Every reward but accuracy and format, against values worked out by hand from its source."""

import inspect
import math
import time
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import pytest
from shared_data import shared_rows

from openrs_ray.config.rewards import Rewards
from openrs_ray.config.schema import RunConfig
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.group import length
from openrs_ray.rewards.judge import WARM_UP, Judge, judge_group
from openrs_ray.rewards.libraries.judging import LIBRARIES
from openrs_ray.rewards.records import JudgeItem, RewardInput
from openrs_ray.rewards.registry import SINGLE, weighted_parameters
from openrs_ray.rewards.single import cosine, reasoning_steps, repetition, soft_overlong, tag_count
from openrs_ray.rewards.single.language import _SCRIPTS, Language, language_share


def seen(text: str = "", tokens: int = 10, status: Status = Status.WRONG) -> RewardInput:
    return RewardInput(text, tokens, "stop", status, None)


# Cosine


@pytest.mark.parametrize(
    ("tokens", "correct", "wrong"),
    [
        (0, 1.0, -1.0),
        (896, 0.5 + 0.25 * (1 + 2**-0.5), -0.5 - 0.25 * (1 + 2**-0.5)),  # a quarter: cos(pi / 4)
        (1792, 0.75, -0.75),
        (3584, 0.5, -0.5),
        (7168, 0.5, -0.5),
    ],
)
def test_cosine_as_described(tokens: int, correct: float, wrong: float) -> None:
    parameters = cosine.Parameters()
    for status, expected in ((Status.CORRECT, correct), (Status.WRONG, wrong), (Status.NO_ANSWER, wrong)):
        assert cosine.reward(seen("x" * 9, tokens, status), parameters) == pytest.approx(expected, abs=1e-12)


def test_cosine_counts_the_characters_that_were_sampled() -> None:
    parameters = cosine.Parameters(unit="characters", max_length=100)
    for text in ("x" * 50, "<think>" + "x" * 50):  # the second tag is the template's
        assert cosine.reward(seen(text, 7, Status.CORRECT), parameters) == pytest.approx(0.75)


# Length, of a group


def test_length_is_relative_to_the_group() -> None:
    # Kimi's lambda by hand: 0.5 - (l - 100) / 300 is 0.5, 0.25, 0, -0.5; wrong ones get at most 0.
    lengths = [100, 175, 250, 400]
    assert length.reward(lengths, [True] * 4) == pytest.approx([0.5, 0.25, 0.0, -0.5])
    assert length.reward(lengths, [False] * 4) == pytest.approx([0.0, 0.0, 0.0, -0.5])
    assert length.reward(lengths, [True, False, True, False]) == pytest.approx([0.5, 0.0, 0.0, -0.5])
    assert length.reward([7, 7], [True, False]) == [0.0, 0.0]
    assert length.reward([7], [True]) == [0.0]


def test_a_group_reward_is_added_to_judged_completions_only() -> None:
    def verdict(status: Status) -> Verdict:
        value = float(status is Status.CORRECT)
        return Verdict(status, {"accuracy": value} if status.judged else {}, 2 * value if status.judged else None)

    verdicts = [verdict(s) for s in (Status.CORRECT, Status.TIMEOUT, Status.WRONG, Status.CORRECT)]
    finished = judge_group(verdicts, [300, 9, 200, 100], {"accuracy": 2.0, "length": 0.4})
    # Among 300, 200 and 100 the values are -0.5, 0 (wrong: min(0, 0)) and 0.5; the timeout's 9 tokens count for nobody.
    assert [v.reward for v in finished] == pytest.approx([2 - 0.2, None, 0.0, 2 + 0.2])
    assert [dict(v.rewards) for v in finished] == [
        {"accuracy": 1.0, "length": -0.5},
        {},
        {"accuracy": 0.0, "length": 0.0},
        {"accuracy": 1.0, "length": 0.5},
    ]
    assert judge_group(verdicts, [300, 9, 200, 100], {"accuracy": 2.0}) == tuple(verdicts)
    lost = [verdict(Status.ERROR)] * 2
    assert judge_group(lost, [1, 2], {"length": 1.0}) == tuple(lost)


# Soft overlong


@pytest.mark.parametrize(
    ("tokens", "value"), [(1, 0.0), (16384, 0.0), (17408, -0.25), (18432, -0.5), (20480, -1.0), (30000, -1.0)]
)
def test_soft_overlong_with_the_paper_s_values(tokens: int, value: float) -> None:
    assert soft_overlong.reward(seen(tokens=tokens), soft_overlong.Parameters()) == value


def test_a_soft_overlong_that_could_not_act_is_refused() -> None:
    recipe = {
        "run": {"name": "r", "folder": "/runs", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 3, "completions_per_problem": 2, "max_completion_tokens": 3584},
        "rewards": {"weights": {"accuracy": 1.0, "soft_overlong": 1.0}},
    }
    with pytest.raises(
        ValueError, match=r"soft_overlong begins at 16384 tokens.*lower rewards.soft_overlong.max_length"
    ):
        RunConfig.model_validate(recipe)
    RunConfig.model_validate(
        recipe | {"rewards": recipe["rewards"] | {"soft_overlong": {"max_length": 3584, "buffer": 512}}}
    )


def test_a_buffer_above_the_longest_length_is_a_mistake_in_a_stage_only() -> None:
    """Runs that began with one go on."""
    rewards = {
        "weights": {"accuracy": 1.0, "soft_overlong": 1.0},
        "soft_overlong": {"max_length": 1000, "buffer": 2000},
    }
    rollout: dict[str, Any] = {"problems_per_step": 3, "completions_per_problem": 2}
    recipe = {
        "run": {"name": "r", "folder": "/runs", "steps": 9},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rewards": rewards,
    }
    RunConfig.model_validate(recipe | {"rollout": rollout | {"max_completion_tokens": 3584}})
    stages = [{"max_completion_tokens": 3584, "until": {"step": 4}}, {"max_completion_tokens": 4096}]
    with pytest.raises(ValueError, match=r"buffer \(2000\) must not be above .* \(1000\): every completion"):
        RunConfig.model_validate(recipe | {"rollout": rollout | {"stages": stages}})


# Text


@pytest.mark.parametrize(
    ("text", "words", "share"),
    [
        ("", 3, Fraction(0)),
        ("one two", 3, Fraction(0)),
        ("one two three four", 3, Fraction(0)),
        ("so So SO so so", 3, Fraction(2, 3)),  # three triples, all the same
        ("a b a b a b", 2, Fraction(3, 5)),  # ab ba ab ba ab
        ("a b\na  b", 2, Fraction(1, 3)),  # ab ba ab
    ],
)
def test_repetition_is_the_share_of_n_grams_seen_before(text: str, words: int, share: Fraction) -> None:
    assert repetition.reward(seen(text), repetition.Parameters(words, -1.0)) == pytest.approx(-float(share))
    assert repetition.reward(seen(text), repetition.Parameters(words, -0.5)) == pytest.approx(-float(share) / 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>\na\n</think>\n<answer>\nb\n</answer>", 1.0),
        ("<think>a</think> b", 0.5),
        ("a</think> b", 0.25),
        ("<think>a</think>b</think><answer>c</answer>", 0.75),
        ("nothing", 0.0),
    ],
)
def test_tag_count(text: str, value: float) -> None:
    assert tag_count.reward(seen(text)) == value


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("It is 4.", 0),
        ("Step 1: add. Step 2: carry.", 2),
        ("1. add\n2. carry\n  10. stop", 3),
        ("- add\n* carry\n-3 is negative and 2*3 is 6", 2),
        ("First, add. Second, carry. Next, stop. Finally, rest.", 4),
        ("Nextly, the 3.14 of Step one", 0),
    ],
)
def test_reasoning_steps(text: str, steps: int) -> None:
    assert reasoning_steps.reward(seen(text), reasoning_steps.Parameters(enough=3)) == pytest.approx(
        min(1.0, steps / 3)
    )
    assert reasoning_steps.reward(seen(text), reasoning_steps.Parameters(enough=8)) == pytest.approx(steps / 8)


# Language

ENGLISH = (
    "We first add the two numbers, then we look at the remainder and see that it must be even.\n"
    "Therefore the answer follows from the second equation, which we solved above.\n"
)
SPANISH = (
    "Primero sumamos los dos números, luego miramos el resto y vemos que tiene que ser par.\n"
    "Por lo tanto la respuesta se sigue de la segunda ecuación, que resolvimos arriba.\n"
)
CHINESE = "首先我们把两个数相加,然后看余数,可以看出它必须是偶数。因此答案由上面解出的第二个方程得到。\n"


def letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def test_a_short_text_is_judged_by_its_script() -> None:
    assert language_share("so 因此 it", "en") == pytest.approx(4 / 6)
    assert language_share("so 因此 it", "zh") == pytest.approx(2 / 6)
    assert language_share("да yes", "ru") == pytest.approx(2 / 5)
    assert language_share("", "en") == language_share("12 + 30 = 42", "en") == 1.0


@pytest.mark.parametrize(
    "mathematics",
    [
        "$因此 x$",
        "$$因此\n x$$",
        r"\(因此\)",
        r"\[因此 \text{所以} \]",
        r"\begin{align*} 因此 &= 4 \end{align*}",
        r"\boxed{因此}",
        r"\frac{因此}{所以}",
        "π θ",
        "<think></think><answer></answer>",
    ],
)
def test_mathematics_has_no_language(mathematics: str) -> None:
    assert language_share(f"so {mathematics} it", "en") == 1.0
    assert language_share(f"因此 {mathematics} 所以", "zh") == 1.0


def test_two_languages_of_one_script_are_told_apart() -> None:
    pytest.importorskip("py3langid")
    assert language_share(ENGLISH, "en") == language_share(SPANISH, "es") == language_share(CHINESE, "zh") == 1.0
    assert language_share(SPANISH, "en") == language_share(ENGLISH, "es") == language_share(CHINESE, "en") == 0.0
    drifted = ENGLISH + SPANISH
    assert language_share(drifted, "en") == pytest.approx(letters(ENGLISH) / letters(drifted))
    mixed = ENGLISH.replace("Therefore", "因此")  # English to the detector; the script tells
    assert language_share(mixed, "en") == pytest.approx(1 - 2 / letters(mixed))


def test_real_solutions_are_english() -> None:
    pytest.importorskip("py3langid")
    solutions = [row["solution"] for row in shared_rows("train/math_train.jsonl")[:2000]]
    english = [language_share(solution, "en") for solution in solutions]
    assert sum(share > 0.99 for share in english) / len(english) > 0.98
    long = [solution for solution in solutions if letters(solution) > 400]
    german = [language_share(solution, "de") for solution in long]
    assert len(long) > 100 and sum(share == 0 for share in german) / len(german) > 0.98


def test_every_language_is_known_to_the_detector() -> None:
    py3langid = pytest.importorskip("py3langid")
    known = {language for language, _ in py3langid.langid._load_identifier().rank("text")}
    languages = set(Language.__args__)
    assert languages <= known and set(_SCRIPTS) <= languages


@pytest.mark.parametrize(
    "piece", ["$", "$$ ", r"\[", r"\(", r"\begin{a}", r"\a{", "{", "\\", "因\n", "a b ", "<think>", "1. ", "First, "]
)
def test_time_is_linear_in_hostile_text(monkeypatch: pytest.MonkeyPatch, piece: str) -> None:
    monkeypatch.setattr("openrs_ray.rewards.single.language._detect", lambda text: "en")
    item = seen(piece * (200_000 // len(piece)))
    started = time.monotonic()
    language_share(item.text, "en")
    repetition.reward(item, repetition.Parameters())
    tag_count.reward(item)
    reasoning_steps.reward(item, reasoning_steps.Parameters(enough=3))
    assert time.monotonic() - started < 5  # where the time grows with the square of the length it takes minutes


def test_the_warm_up_loads_the_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    detected: list[str] = []
    monkeypatch.setattr("openrs_ray.rewards.single.language._detect", lambda text: detected.append(text) or "en")
    Judge.of(Rewards(weights={"language": 1.0}))(WARM_UP[0])
    assert detected


# All together


def test_every_parameter_of_a_reward_is_a_field_of_its_section() -> None:
    section = Rewards(weights=dict.fromkeys(SINGLE, 1.0))
    parameters = weighted_parameters(section)
    for name, reward in SINGLE.items():
        _, *taken = inspect.signature(reward.function).parameters
        assert taken == ["parameters"] * hasattr(section, name), name
        assert not taken or asdict(parameters[name]) == getattr(section, name).model_dump() == asdict(
            reward.parameters()
        )


def test_all_rewards_in_one_verdict() -> None:
    weights = {name: 1.0 for name in SINGLE if name not in ("language", *LIBRARIES)} | {"length": 1.0}
    text = "<think>\nStep 1: two and two\n</think>\n<answer> \\boxed{4} </answer>"
    judge = Judge.of(Rewards(weights=weights))
    (verdict,) = judge_group([judge(JudgeItem(text, 1792, "stop", ("4",)))], [1792], weights)
    expected = {
        "accuracy": 1.0,
        "format": 1.0,
        "cosine": 0.75,
        "repetition": 0.0,
        "tag_count": 1.0,
        "reasoning_steps": 1 / 3,
        "soft_overlong": 0.0,
        "tests_passed": 0.0,  # no program
        "length": 0.0,
    }
    assert verdict.rewards == pytest.approx(expected)
    assert verdict.reward == pytest.approx(sum(expected.values()))


@pytest.mark.parametrize(("max_tokens", "length", "long_end"), [(None, 400, 400), (100, 100, 100), (1000, 400, 400)])
def test_in_a_stage_lengths_of_rewards_end_at_the_longest_completion(
    max_tokens: int | None, length: int, long_end: int
) -> None:
    """A right answer of the stage's whole length earns the long end of the cosine, and half of it by the formula, more."""
    judge = Judge.of(
        Rewards(
            weights={"cosine": 1.0, "soft_overlong": 1.0},
            cosine={"max_length": 400},
            soft_overlong={"max_length": 400, "buffer": 50},
        )
    )
    found = {
        tokens: judge(JudgeItem(r"</think> \boxed{4}", tokens, "stop", ("4",), max_tokens=max_tokens)).rewards
        for tokens in (length, length // 2, length - 25)
    }
    for tokens, rewards in found.items():
        assert rewards["cosine"] == pytest.approx(0.5 + 0.25 * (1 + math.cos(math.pi * tokens / long_end)))
        assert rewards["soft_overlong"] == pytest.approx(-max(0.0, tokens - (long_end - 50)) / 50)
    by_characters = Judge.of(Rewards(weights={"cosine": 1.0}, cosine={"max_length": 400, "unit": "characters"}))
    item = JudgeItem("</think> " + "a" * 191 + r" \boxed{4}", 9, "stop", ("4",), max_tokens=max_tokens)
    assert by_characters(item).rewards["cosine"] == by_characters(replace(item, max_tokens=None)).rewards["cosine"]
