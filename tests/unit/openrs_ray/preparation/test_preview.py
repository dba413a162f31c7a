"""The dry run's preview of the data, and the warnings of a run before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from shared_data import shared_rows
from tiny import make_config, save_model

from launch.train import main
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.preparation.prepared import prepare
from openrs_ray.preparation.preview import look_lines, warning_lines
from openrs_ray.rewards.answers.check import gold_is_parseable
from openrs_ray.rewards.answers.reading import read, says_words
from openrs_ray.rewards.golds import gold_kind
from openrs_ray.sandbox.records import Strength

BOX = {"system_prompt": "\\boxed{"}
ROWS = [{"problem": f"{n}+{n}", "answer": str(2 * n)} for n in range(1, 9)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path, vocabulary=64)
    make_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def said(
    folder: Path, rows: list[dict[str, Any]], data: dict[str, Any] = BOX, whole: bool = True, **sections: Any
) -> str:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rollout = {
        "max_prompt_tokens": 64,
        "max_completion_tokens": 24,
        "problems_per_step": 2,
        "completions_per_problem": 2,
    }
    sections = {
        "data": {"path": str(file), **data},
        "rollout": rollout,
        "learner": {"micro_batch_tokens": 128},
    } | sections
    config = make_config(folder, **sections)
    return "\n".join((look_lines if whole else warning_lines)(config, prepare(config)))


def test_the_first_prompt_and_its_gold_are_shown_as_they_are_read(model: Path) -> None:
    rows = [{"problem": "9+\n9", "answer": r"So \boxed{18}."}, *ROWS]
    text = said(model, rows, BOX | {"suffix": "="})
    assert text.startswith(
        "first prompt, 9 tokens, as the model sees it:\n  | <|system|>\\boxed{<|user|>9+\n  | 9=<|assistant|>\n"
        "its gold, as read: 18\ngolds: 9 numbers"
    )
    assert "warning" not in text
    assert "its gold, as read: 2 or \\x1b[31m\n" in said(
        model, [{"problem": "1+1", "answer": ["2", "\x1b[31m"]}, *ROWS]
    )


def test_how_golds_are_read(model: Path) -> None:
    golds = [
        "72",
        1.5,
        r"\frac{1}{2}",
        "Paris",
        "C",
        r"\text{Evelyn}",
        r"x^2+1",
        "(1,2)",
        ["yes", "3"],
        "10 cm",
        r"2\sqrt{3}",
    ]
    rows = [{"problem": f"{n}+1", "answer": gold} for n, gold in enumerate(golds)]
    assert "golds: 3 numbers, 5 expressions, 3 texts\n" in said(model, rows) + "\n"
    held_out = said(model, rows, evaluation={"hold_out": 3})
    assert "golds: " in held_out and "golds of the held-out problems: " in held_out


def test_a_gold_s_kind_is_how_the_checker_reads_it() -> None:
    golds = {str(row["gold"]) for row in shared_rows("verifier_cases/math_verify.jsonl")}
    golds |= {str(row["answer"]) for row in shared_rows("eval/math500.jsonl")}
    kinds = {"number": 0, "expression": 0, "text": 0}
    for gold in golds:
        if gold_is_parseable((gold,)):
            reading = read(gold)
            assert says_words(gold) == bool(reading.words or reading.option), gold
            kinds[gold_kind((gold,))] += 1
    assert all(kinds.values()), kinds


@pytest.mark.parametrize(
    ("data", "rewards", "warned"),
    [
        ({}, {}, "warning: nothing in the prompts asks for \\boxed{}, without which no answer counts (accuracy)"),
        (BOX, {}, None),
        ({"suffix": "\\boxed{"}, {}, None),
        ({"examples": [{"problem": "1+1", "response": "\\boxed{2}"}]}, {}, None),
        ({}, {"extraction": "any"}, None),
        ({}, {"weights": {"accuracy": 0.0, "format": 1.0}}, None),
        ({}, {"weights": {"cosine": 1.0, "length": 1.0}}, "without which no answer counts (cosine, length)"),
    ],
)
def test_a_run_whose_prompts_do_not_ask_for_the_box(
    model: Path, data: dict[str, Any], rewards: dict[str, Any], warned: str | None
) -> None:
    text = said(model, ROWS, data, whole=False, rewards=rewards)
    assert text == "" if warned is None else warned in text


def test_golds_and_prompts_of_other_kinds(model: Path) -> None:
    rows = [{**row, "choices": ["2", "4"], "answer": number % 2} for number, row in enumerate(ROWS)]
    choice = {"kind": "choice", "choices": "choices", "gold_index": True}
    text = said(model, rows, {}, answer=choice)
    assert "its gold, as read: A\ngolds: 8 choices" in text and "warning" not in text  # a letter needs no box
    marked = said(model, ROWS, {}, answer={"kind": "number", "after": "+++"})
    assert "nothing in the prompts asks for +++, without which no answer counts (accuracy): put it into" in marked
    assert "warning" not in said(model, ROWS, {"suffix": "+++"}, answer={"kind": "number", "after": "+++"})
    rows = [{"problem": row["problem"]} for row in ROWS]
    text = said(model, rows, {}, answer={"kind": "none"}, rewards={"weights": {"format": 1.0}})
    assert text.endswith("golds: none is needed (answer.kind none)")
    text = said(model, ROWS, {}, answer={"kind": "reasoning_gym"}, rewards={"weights": {"reasoning_gym": 1.0}})
    assert text.endswith("golds: reasoning_gym judges by the whole rows")


def test_problems_and_templates_may_ask_for_the_box_too(model: Path) -> None:
    asking = [{**row, "problem": row["problem"] + "\\boxed{"} for row in ROWS]
    assert said(model, asking, {}, whole=False) == ""
    some = said(model, [*asking[:3], *ROWS[3:]], {}, whole=False)
    assert some.startswith("warning: only 3 of the first 8 prompts ask for \\boxed{}")
    template = model / "template.jinja"
    template.write_text(
        "\\boxed{{ '{' }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
    )
    assert said(model, ROWS, {}, False, model={"path": str(model), "chat_template": str(template)}) == ""


def test_tests_of_programs_and_missing_walls(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"problem": f"{n}+{n}", "answer": [f"assert f({n}) == 2", "assert f(1)"]} for n in range(10, 18)]
    answer = {"kind": "code", "shown_tests": 0}
    text = said(model, rows, {}, answer=answer)
    assert "its gold, as read: assert f(10) == 2; assert f(1)\ngolds: tests of 8 programs" in text
    monkeypatch.setattr("openrs_ray.preparation.preview.strength", lambda: Strength("process", ["landlock", "seccomp"]))
    assert said(model, rows, {}, False, answer=answer) == (
        "warning: programs run behind weaker walls here, without namespaces of their own (processes, network, files), "
        "without a user of their own. docs/code.md says what that means"
    )


def test_weights_that_are_all_0(model: Path) -> None:
    weights = {"accuracy": 0.0, "format": 0.0}
    assert said(model, ROWS, whole=False, rewards={"weights": weights}).startswith("warning: all rewards.weights are 0")


def test_rows_that_repeat_and_problems_with_two_golds(model: Path) -> None:
    again = [*ROWS, ROWS[2], {"problem": "3 + 3 ", "answer": 6}, ROWS[4]]
    assert said(model, again, whole=False) == (
        "warning: 3 of the 11 problems have the text and the gold of another one, such as '3+3', and are drawn as often: "
        "python -m launch.curate takes duplicates out"
    )
    two = [*ROWS, {"problem": "2 + 2", "answer": "5"}]
    assert said(model, two, whole=False) == "warning: 1 problem has more than one gold: '2+2' has '4' and '5'"
    assert said(model, [*ROWS, {"problem": "2 - 2", "answer": "0"}], whole=False) == ""
    halves = [{"problem": "0.5", "answer": gold} for gold in (r"\frac12", r"$\frac{1}{2}$")]
    assert "of another one" in (text := said(model, [*ROWS, *halves], whole=False)) and "more than one gold" not in text


def test_characters_that_the_tokenizer_does_not_know(model: Path) -> None:
    """The toy's tokenizer drops letters without a word."""
    rows = [*ROWS, {"problem": "1+1 apples", "answer": "2"}]
    assert said(model, rows, whole=False) == (
        "warning: the tokenizer loses some of the characters of '1+1 apples': the model cannot see them"
    )


def test_the_dry_run_says_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    recipe = model / "recipe.yaml"
    recipe.write_text(
        f"run: {{name: look, folder: {model}/runs, steps: 2}}\nmodel: {{path: {model}, dtype: float32}}\n"
        f"data: {{path: {model}/data.jsonl}}\nplacement: {{device: cpu, num_learner_gpus: 1}}\n"
        "rollout: {problems_per_step: 2, completions_per_problem: 2, max_prompt_tokens: 16, max_completion_tokens: 24}\n"
    )
    assert main([str(recipe), "--dry-run"]) == 0
    out = capsys.readouterr().out
    for line in (
        "first prompt, 5 tokens, as the model sees it:\n  | <|user|>1+1<|assistant|>\nits gold, as read: 2\n",
        "golds: 8 numbers\nwarning: nothing in the prompts asks for \\boxed{}",
    ):
        assert line in out
