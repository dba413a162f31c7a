r"""Letters of multiple-choice answers: statements in the formats of public benchmarks and of the models that answer them."""

import itertools
import random
import re

import pytest

from openrs_ray.rewards.answers.choice import NO_OPTIONS, Options, claimed, gold_letters

CITIES = Options.of(["Paris", "London", "Rome", "Vitamin C"])

STATED = {  # completion's final part: letters
    "bare": {"B": "B", "(B)": "B", "B.": "B", "B)": "B", "[B]": "B", "b": "B", "**B**": "B", "`B`": "B", "Ｂ": "B"},
    "with a reason": {
        "B) because the others fail": "B",
        "B because the others fail": "B",
        "B. London": "B",
        "B: London": "B",
        "(B) London": "B",
        "B - London": "B",
        "**B**\n\nExplanation: A is wrong, and C is too.": "B",
        "We look at each.\n\nB": "B",
        "B。不是 A": "B",
    },
    "boxed": {
        r"\boxed{B}": "B",
        r"$\boxed{\text{B}}$": "B",
        r"\boxed{\textbf{(B)}}": "B",
        r"\boxed{\mathrm{(B)}\ 12}": "B",
        r"\boxed{b}": "B",
        r"\boxed{B. London}": "B",
        r"\boxed{\text{Option B}}": "B",
        r"Not A. \[\boxed{B}\]": "B",
    },
    "the answer is": {
        "The answer is B": "B",
        "the answer is (B).": "B",
        "The answer is \\(B\\).": "B",
        "The answer is $B$.": "B",
        "The answer is \\text{(B)}": "B",
        "The best answer is B. London": "B",
        "The answer to this question is B": "B",
        "The answer is therefore B": "B",
        "The correct answer would be B": "B",
        "The correct answer choice is B": "B",
        "The answer is option B: London": "B",
        "The correct option is **B**, because C is wrong": "B",
        "The answer is B, a capital": "B",
        "answer is B, I think": "B",
        "The answer is b.": "B",
        "The answer is: \n\n(B)": "B",
        "Neither A nor C holds. Thus, the correct answer is B.": "B",
        "The answer is B since C is wrong": "B",
        "The answer is A.": "A",
        "The answer is (I).": "I",
        "The answer is J": "J",
    },
    "answer:": {
        "**Answer: B**": "B",
        "Answer: **B**": "B",
        "**Answer:** B": "B",
        "ANSWER: B": "B",
        "Answer:B": "B",
        "Answer: $B$": "B",
        "Answer: B) London": "B",
        "Final answer: (b)": "B",
        "### Final Answer\nB": "B",
        "### Final Answer\n**B. London**": "B",
        "<answer>B</answer>": "B",
        "Answer: A": "A",
    },
    "other statements": {
        "B is correct.": "B",
        "Option (B) is the correct answer.": "B",
        "Therefore, option B is the right choice": "B",
        "I would go with B.": "B",
        "It's not A because it doesn't hold, therefore I think it's B": "B",
    },
    "the last one": {
        "The answer is A. Wait, no. The answer is B.": "B",
        r"\boxed{A}. Hmm, wait. The answer is B.": "B",
        r"The answer is A. Let me check. \boxed{B}": "B",
        "Options:\nA) x\nB) y\n\nThe answer is B": "B",
        "A common answer is A. The answer is B": "B",
    },
    "several": {
        "The answer is A, C.": "AC",
        "The answer is A and C.": "AC",
        "Answer: A, C, and D": "ACD",
        "The correct answers are A and C": "AC",
        r"\boxed{A, C}": "AC",
        r"\boxed{\{A, C\}}": "AC",
        r"\boxed{(A, C)}": "AC",
        r"\boxed{A} and \boxed{C}": "AC",
        "A, C": "AC",
    },
}

NOT_STATED = (
    *(
        "",
        "I think",
        "I think so.",
        "A good answer would be London",
        "I am sure. A bird sang.",
        "So A is the set of primes.",
    ),
    *(
        "The answer is A good one",
        "The answer is a matter of taste",
        "The answer is I don't know",
        "Answer: I am not sure",
    ),
    *("Option A is wrong", "The incorrect answer is A.", "The answer is not A"),
    *("The answer is A. Wait, the answer is not A.", "A, B and D are wrong.", "A common answer is B"),
    *("Neither A nor B is correct.", "I don't think the answer is B", "If the answer is B then", "Is the answer B?"),
    *("The answer is A or B", "The answer is either A or B", "The answer is A/B", r"\boxed{A \text{ or } B}"),
    *("The answer could be B.", "A) x\nB) y\nC) z", "Options: A, B, C, D", "Option A: fine\nOption B: fine"),
    *("A. x is false\nB. y is true", "A is correct. B is correct. D is incorrect."),
    *(
        "Vitamin C is the best.",
        "Plan B is correct",
        "The answer is C++",
        "The answer is D'Alembert",
        "The answer is B.C.",
    ),
    *("The answer is E = mc^2", "The answer is 42", "The answer is H2O"),
    *(r"\boxed{42}", r"\boxed{A \cap B}", r"\boxed{A+B}", r"\boxed{C_2}"),
)

BY_TEXT = {
    "London": "B",
    "The answer is London.": "B",
    "The answer is London because it is": "B",
    "Answer: **London**": "B",
    r"\boxed{London}": "B",
    r"\boxed{\text{london}}": "B",
    "The answer is Vitamin C": "D",
    "The answer is D) Vitamin C": "D",
    "The answer is B) London": "B",
    r"\boxed{Vitamin C}": "D",
    # a letter that is not an option, another option's text, or a text that only occurs
    "The answer is E": "",
    "The answer is B. Rome": "",
    "B) Rome": "",
    r"\boxed{B. Rome}": "",
    "I like London": "",
    "The answer is Berlin": "",
}


@pytest.mark.parametrize("way", STATED)
def test_stated_letters(way: str) -> None:
    found = {text: "".join(claimed(text)) for text in STATED[way]}
    assert found == STATED[way]


@pytest.mark.parametrize("text", NOT_STATED)
def test_no_letter_is_guessed(text: str) -> None:
    assert claimed(text) == ()


@pytest.mark.parametrize(("text", "letter"), BY_TEXT.items())
def test_texts_of_options(text: str, letter: str) -> None:
    assert "".join(claimed(text, CITIES)) == letter


def test_letters_side_by_side_are_several_only_where_asked() -> None:
    assert claimed(r"\boxed{ACD}", several=True) == ("A", "C", "D")
    assert claimed(r"\boxed{ACD}") == claimed(r"\boxed{BAD}", several=True) == ()


@pytest.mark.parametrize(
    ("gold", "options", "index", "letters"),
    [
        ("B", NO_OPTIONS, False, "B"),  # MMLU-Pro's answer, and GPQA's as most files have it
        ("(B)", NO_OPTIONS, False, "B"),  # BIG-bench hard
        ("b", NO_OPTIONS, False, "B"),
        ("A, C", NO_OPTIONS, False, "AC"),
        ("AC", NO_OPTIONS, False, "AC"),
        ("2", NO_OPTIONS, True, "C"),  # MMLU
        ("8", NO_OPTIONS, True, "I"),  # MMLU-Pro's answer_index
        ("0, 2", NO_OPTIONS, True, "AC"),
        ("London", CITIES, False, "B"),  # GPQA's "Correct Answer"
        ("Vitamin C", CITIES, False, "D"),
        ("3", Options.of({"text": ["w", "x", "y", "z"], "label": ["1", "2", "3", "4"]}), False, "C"),  # ARC, a few rows
        ("C", Options.of({"text": ["w", "x", "y", "z"], "label": ["A", "B", "C", "D"]}), False, "C"),  # ARC
        ("B", Options.of({"A": "w", "B": "x", "C": None}), False, "B"),  # MedQA
        ("E", CITIES, False, ""),
        ("Berlin", CITIES, False, ""),
        ("7", CITIES, True, ""),
        ("A or B", NO_OPTIONS, False, ""),
        ("", NO_OPTIONS, False, ""),
    ],
)
def test_golds(gold: str, options: Options, index: bool, letters: str) -> None:
    assert "".join(gold_letters(gold, options, index)) == letters


@pytest.mark.parametrize(
    "cell", [None, "A, B", [], ["one"], list(map(str, range(11))), {"x": "1", "y": "2"}.keys(), {}, 5]
)
def test_cells_that_are_no_options(cell: object) -> None:
    with pytest.raises(ValueError, match="options are"):
        Options.of(cell)


# Beside the extraction of public harnesses: their patterns, written down from their documentation.

_REASONING = (
    "We check each option. Option A is wrong. ",
    "A good start: heat rises. Option C fails, too. ",
    "I think about it. ",
)
_ENDINGS = {
    "The answer is ({}).": True,
    "the answer is {}": True,
    "Answer: {}": True,
    "**Answer: {}**": True,
    "The correct answer is **{}**.": True,
    r"\boxed{{{}}}": True,
    r"\boxed{{\text{{{}}}}}": True,
    "So the correct option is {}, since the rest fails.": True,
    "\n\n({})": True,
    "The answer is not ({}).": False,
    "I cannot tell whether the answer is {}.": False,
    "A and ({}) are both possible.": False,
}


HARNESSES = {
    "simple-evals": re.compile(r"(?i)Answer[ \t]*:[ \t]*\$?([A-D])\$?"),
    "MMLU-Pro": re.compile(r"answer is \(?([ABCDEFGHIJ])\)?"),
    "lm-evaluation-harness, flexible": re.compile(r"\(([A-Z])\)"),
}


def test_more_right_and_fewer_wrong_than_public_patterns() -> None:
    draw = random.Random(16)
    cases = [
        (draw.choice(_REASONING) + ending.format(letter), letter if stated else None)
        for (ending, stated), letter in itertools.product(_ENDINGS.items(), "ABCD")
    ]
    ours = {text: "".join(claimed(text)) or None for text, _ in cases}
    assert ours == dict(cases)
    for pattern in HARNESSES.values():
        theirs = {text: found[-1] if (found := pattern.findall(text)) else None for text, _ in cases}
        missed = sum(theirs[text] != letter for text, letter in cases)
        assert missed >= len(cases) / 4  # each reads the forms that its own prompt asks for
