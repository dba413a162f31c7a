"""`python -m launch.verify` as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

from launch.verify import main


def run(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.verify", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)


def test_one_verdict_per_line_in_order(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    rows = [
        {"pred": r"so \boxed{4}", "gold": "4", "note": "other keys are ignored"},
        {"pred": r"so \boxed{5}", "gold": ["4", "6"]},
        {"pred": "so 4", "gold": 4},
        {"pred": r"\boxed{4}", "gold": None},
        {"pred": rf"\boxed{{x{'^b' * 200}}}", "gold": "4"},  # the parser's time doubles with every exponent
        *({"pred": rf"\boxed{{{number}}}", "gold": ["-1", str(number - number % 3)]} for number in range(300)),
    ]
    file.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    done = run(str(file), "--processes", "2", "--deadline", "1.5")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    statuses = [verdict["status"] for verdict in verdicts]
    assert statuses[:5] == ["correct", "wrong", "no_answer", "unparseable_gold", "timeout"]
    assert statuses[5:] == ["correct", "wrong", "wrong"] * 100
    assert [verdict["answer"] for verdict in verdicts[5:]] == [str(number) for number in range(300)]
    assert "1.5 s" in verdicts[4]["detail"]
    assert done.stderr.splitlines()[-1].startswith("305 checked: 201 wrong, 101 correct")


def test_any_reads_answers_without_a_box(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    file.write_text(json.dumps({"pred": "The answer is 4", "gold": "4"}) + "\n")
    assert json.loads(run(str(file), "--extraction", "any", "--processes", "1").stdout)["status"] == "correct"


def test_kinds_of_answers_with_their_settings(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    row = {"pred": r"so \boxed{Paris}", "gold": "B", "options": ["Rome", "Paris"]}
    rows = [row, row | {"pred": "The answer is A"}, row | {"pred": "I think"}, row | {"gold": "Oslo"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    done = run(str(file), "--kind", "choice", "--answer.choices", "options", "--processes", "1")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [verdict["status"] for verdict in verdicts] == ["correct", "wrong", "no_answer", "unparseable_gold"]
    assert [verdict["answer"] for verdict in verdicts] == ["B", "A", None, None]
    refused = run(str(file), "--kind", "choice", "--answer.tolerance", "0.1")
    assert refused.returncode == 2 and "answer.tolerance is for answer.kind number, not choice" in refused.stderr
    refused = run(str(file), "--kind", "choice", "--extraction", "any")
    assert refused.returncode == 2 and "rewards.extraction is for answer.kind math" in refused.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ('{"pred": "1", "gold": "1"}\n{"pred": "1", "gold"', "line 2 is not JSON"),
        ('{"pred": "1", "gold": "1"}\n\n{"pred": "1"}\n', "line 3 must be an object with the keys pred and gold"),
        ("[1]\n", "line 1 must be an object"),
        ('{"pred": ["1"], "gold": "1"}\n', "pred must be a string"),
        ('{"pred": "1", "gold": "1"}\n{"pred": "1", "gold": true}\n', "line 2, gold: an answer is text"),
        ('{"pred": "1", "gold": NaN}\n', "line 1, gold: an answer is text or a finite number, not float (nan)"),
        ('{"pred": "1", "gold": [["1"]]}\n', "line 1, gold: an answer is text"),
        ('{"pred": "1", "gold": {"value": 1}}\n', "line 1, gold: an answer is text"),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes | None, message: str
) -> None:
    file = tmp_path / "outputs.jsonl"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([str(file)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and message in error and len(error.splitlines()) == 1


def test_a_mistake_ends_the_process_with_its_code(tmp_path: Path) -> None:
    done = run(str(tmp_path / "nothing.jsonl"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such file" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_reader_that_stops_early_is_no_crash(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    file.write_text((json.dumps({"pred": r"\boxed{4}", "gold": "4"}) + "\n") * 20_000)
    command = f"{sys.executable} -m launch.verify {file} --processes 1 | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["status"] == "correct"
    assert "Traceback" not in done.stderr


def test_a_byte_order_mark_and_a_lone_surrogate_are_no_crash(tmp_path: Path) -> None:
    file = tmp_path / "outputs.jsonl"
    rows = [
        {"pred": r"\boxed{4}", "gold": "4"},
        {"pred": "\\boxed{\ud800}", "gold": "4"},
        {"pred": "\\boxed{é}", "gold": "é"},
    ]
    file.write_bytes(b"\xef\xbb\xbf" + "\n".join(map(json.dumps, rows)).encode())
    done = run(str(file), "--processes", "1")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [verdict["status"] for verdict in verdicts] == ["correct", "wrong", "correct"]
    assert [verdict["answer"] for verdict in verdicts] == ["4", "\ud800", "é"]


def test_own_rewards_are_tried_on_a_file_without_training(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "support" / "my_rewards.py", tmp_path)
    rows = [
        {"pred": r"so \boxed{4}", "gold": "4", "problem": "2 + 2", "token_count": 8},
        {"pred": r"so \boxed{5}", "gold": "4", "problem": "2 + 2", "token_count": 16},
        {"pred": r"raise \boxed{6}", "gold": "6", "problem": "3 + 3"},
    ]
    (tmp_path / "tried.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ("accuracy", "my_rewards.py:moody", "my_rewards.py:brevity", "my_rewards.py:spread")
    asked = [part for name in names for part in ("--rewards", name)]
    done = run("tried.jsonl", *asked, "--parameters", "{brevity: {scale: 4}}", "--processes", "1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert first["rewards"] == dict(zip(names, (1.0, 0.5, 0.5, -0.5), strict=True))
    assert second["rewards"] == dict(zip(names, (0.0, 0.5, 0.25, -1.0), strict=True))
    assert third["status"] == "error" and third["rewards"] == {}
    assert third["detail"].startswith("my_rewards.py:moody raised KeyError: 'a key' (my_rewards.py, line")
    assert "3 checked: 1 correct, 1 wrong, 1 error" in done.stderr
    assert "my_rewards.py:spread: mean -0.75, from -1 to -0.5, 2 judged" in done.stderr
    assert "my_rewards.py:brevity: 16 tokens" in done.stderr, "what it printed"


def test_own_rewards_alone_need_no_gold(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "support" / "my_rewards.py", tmp_path)
    (tmp_path / "tried.jsonl").write_text(json.dumps({"pred": "three short words"}) + "\n")
    done = run("tried.jsonl", "--kind", "none", "--rewards", "my_rewards.py:brevity", folder=tmp_path)
    assert json.loads(done.stdout)["rewards"] == {"my_rewards.py:brevity": 1 / 3}, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rewards", "my_rewards.py:nothing"], "There is no nothing in "),
        (["--rewards", "other.py:f"], "There is no file other.py"),
        (["--rewards", "acuracy"], "names unknown rewards (acuracy)"),
        (
            ["--rewards", "my_rewards.py:brevity", "--parameters", "{brevity: {scale: long}}"],
            "input should be a valid number",
        ),
        (["--rewards", "my_rewards.py:brevity", "--parameters", "[1"], "--parameters is not YAML"),
    ],
)
def test_a_reward_that_cannot_be_used_is_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    shutil.copy(ROOT / "tests" / "support" / "my_rewards.py", tmp_path)
    (tmp_path / "tried.jsonl").write_text('{"pred": "1", "gold": "1"}\n')
    done = run("tried.jsonl", *arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
