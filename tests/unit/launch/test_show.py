"""`launch.show` prints completions with prompt, gold and verdict, as text and as JSON."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from many_completions import write_many
from whole_run import write_run

from launch.show import main, printable
from openrs_ray.evaluation.store import SCHEMA
from openrs_ray.report.completions import Query, find


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_many(folder, 6, 3, 4)
    write_many(folder, 2, 3, 1, "evaluation", visits=1)
    return folder


def shown(capsys: pytest.CaptureFixture[str], run: Path, line: str) -> str:
    assert main([str(run), *line.split()]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "query", "limit"),
    [
        ("", Query(steps=(6, 6)), 5),
        ("--worst 3", Query(order="worst"), 3),
        ("--best", Query(order="best"), 5),
        ("--best 2 --step 4", Query(order="best", steps=(4, 4)), 2),
        ("--problem 7 --limit 8", Query(problem=7), 8),
        ("--status timeout --text WORD", Query(status=("timeout",), text="word"), 5),
        ("--held-out --step 2", Query(phase="evaluation", steps=(2, 2)), 5),
    ],
)
def test_the_completions_asked_for_are_shown(
    run: Path, capsys: pytest.CaptureFixture[str], line: str, query: Query, limit: int
) -> None:
    page = find(run, query, 0, limit)
    assert json.loads(shown(capsys, run, f"{line} --json")) == page.rows
    text = shown(capsys, run, line)
    for row in page.rows:
        assert f"  {row['problem']}\n" in text and f"  {row['text']}\n" in text
    assert text.count("gold: 42\nanswer: 42\n") == len(page.rows)
    more = f"{len(page.rows)} of {page.total} completions: --limit shows more\n"
    assert text.endswith(more) == (page.total > len(page.rows))


def test_the_head_says_verdict_and_reward_by_part(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = find(run, Query(order="best"), 0, 1).rows
    first = shown(capsys, run, "--best 1").splitlines()[0]
    assert first == (
        f"step {row['step']} | problem {row['problem_index']} | sample {row['sample']} | correct | "
        f"reward {row['reward']:.3g} (accuracy 1) | {row['length']:,} tokens"
    )
    assert "<user>how much?<assistant>" in shown(capsys, run, "--best 1 --prompt")


def test_mistakes_are_sentences(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_run(tmp_path / "run")
    for folder, line, said in (
        (run, "--step 9", f"the record in {run} has no step 9: it has 1 to 6"),
        (run, "--problem 99999", "no completion fits: python -m launch.show --help says how to choose others"),
        (run, "--best 0", "--best: must be a whole number of at least 1"),
        (run, "--best 1 --worst 1", "--worst: not allowed with argument --best"),
        (run, "--evaluation", "has no completions: python -m launch.evaluate"),
        (whole, "--evaluation --step 3", "has no completions"),
    ):
        assert main([str(folder), *line.split()]) == 2
        assert said.lower() in capsys.readouterr().err.lower()


def test_completions_of_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, text in (("step-50", "so 4"), ("start-model", "so 5")):
        folder = tmp_path / "evaluation" / "robust" / model
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text("{}")
        rows = [
            {"task": "aime24", "problem_index": 0, "sample": sample, "problem": "2 + 2", "gold": ["4"], "text": text,
             "token_ids": [1, 2], "length": 2, "finish_reason": "length", "status": status, "answer": text[3:],
             "detail": "", "prompt": "<user>2 + 2"}
            for sample, status in enumerate(("wrong", "correct", "timeout"))
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "aime24-000000.parquet")
    text = shown(capsys, tmp_path, "--evaluation step-50 --best 1")
    assert text.startswith("aime24 problem 0 | sample 1 | correct | 2 tokens, cut\nproblem:\n  2 + 2\ngold: 4\n")
    assert "so 4" in text and "1 of 2 completions" in text
    (worst,) = json.loads(shown(capsys, tmp_path, "--evaluation robust/start-model --worst 1 --json"))
    assert (worst["sample"], worst["text"], worst["prompt"]) == (0, "so 5", "<user>2 + 2")
    assert main([str(tmp_path), "--evaluation"]) == 2
    assert "--evaluation takes one of robust/start-model, robust/step-50" in capsys.readouterr().err
    assert main([str(tmp_path), "--evaluation", "other"]) == 2
    assert "No evaluated model is called other" in capsys.readouterr().err


def test_a_completion_does_not_steer_the_terminal() -> None:
    assert printable("a\x1b[2J\u202eb\té\n") == "a\\x1b[2J\\u202eb\té\n"
