"""`python -m launch.chat`: prompted as in training, piped and in a terminal, and how it ends."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from exportable import change_config, evaluated_run
from places import PYTHONPATH, ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from launch import chat
from launch.chat import main
from openrs_ray.common.files import append_line
from openrs_ray.config.load import load_config
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.export.folder import write_export
from openrs_ray.export.partner import find_partner
from openrs_ray.export.source import Source
from openrs_ray.run.step_settings import Changes, StepSettings

GREEDY = ("--temperature", "0", "--max-tokens", "12")


@pytest.fixture
def run(tmp_path: Path, toy_folder: Path) -> Path:
    folder = evaluated_run(tmp_path / "runs", toy_folder, {0: 0.2, 50: 0.6, 100: 0.5})
    change_config(folder, data={"system_prompt": "12", "suffix": "=?"})
    return folder


def piped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, *arguments: str | Path
) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def expected(policy: Path, prompt: tuple[int, ...], tokens: int) -> str:
    """The likeliest tokens one by one, without a cache."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        AutoTokenizer.from_pretrained(policy),
    )
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            ids.pop()
            break
    return tokenizer.decode(ids[len(prompt) :])


def test_each_piped_line_is_answered_as_in_training(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source.find(run, "best")
    policy = source.checkpoint.policy
    asked = tokenize_prompts(source.config.tasks[0].data, ["1+1", "20+3"], AutoTokenizer.from_pretrained(policy))
    answers = [expected(policy, prompt, 12) for prompt in asked]
    assert piped(monkeypatch, capsys, "1+1\n\n20+3\n", run, *GREEDY) == "".join(f"{answer}\n" for answer in answers)
    write_export(source, run / "shared")
    again = piped(monkeypatch, capsys, "1+1\n20+3", run / "shared", *GREEDY)
    assert again == "".join(f"{answer}\n" for answer in answers), "an exported folder says itself how it is prompted"


def test_a_conversation_goes_on(run: Path) -> None:
    conversation = find_partner(str(run), "best").conversation(None, 0.0, 4)
    said: list[str] = []
    first = conversation.ask("1+1", said.append)
    assert "".join(said) == first
    conversation.ask("2+2", said.append)
    assert conversation.turns[:3] == [
        {"role": "user", "content": "1+1=?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "2+2=?"},
    ]
    assert conversation.fits("3+3") and not conversation.fits("9" * 100_000)
    conversation.begin_anew()
    assert conversation.ask("1+1", said.append) == first


def test_a_policy_of_a_stage_is_talked_to_as_it_was_sampled(run: Path) -> None:
    stages = [{"max_completion_tokens": 8, "temperature": 0.6, "until": {"step": 60}}, {"max_completion_tokens": 24}]
    change_config(run, rollout={"stages": stages, "max_completion_tokens": 24})
    config = load_config(run, [])
    for step, stage in ((50, 0), (100, 1)):
        figures = StepSettings.of(config, Changes(stage=stage)).metrics()
        append_line(run / "metrics.jsonl", {"step": step, "attempt": 1, "phase": "train"} | figures)
    early, late = (find_partner(str(run), step).prompting for step in (50, 100))
    assert (early.temperature, early.max_tokens) == (0.6, 8) and late.max_tokens == 24
    assert late.temperature == config.rollout.temperature
    assert Source.find(run, 50).prompting == early, "as in an export's card"


def test_instructions_before_the_first_turn_are_there_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_config(run, data={"system_as_user": True})
    conversation = find_partner(str(run), "best").conversation(None, 0.0, 4)
    first = conversation.ask("1+1", lambda _: None)
    asked: list[torch.Tensor] = []
    generate = conversation.model.generate

    def recorded(ids: torch.Tensor, **options: object) -> object:
        asked.append(ids)
        return generate(ids, **options)

    monkeypatch.setattr(conversation.model, "generate", recorded)
    conversation.ask("2+2", lambda _: None)
    turns = [
        {"role": "user", "content": "12\n\n1+1=?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "2+2=?"},
    ]
    expected = conversation.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert asked[0][0].tolist() == conversation.tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_which_policy_is_talked_to(run: Path, toy_folder: Path) -> None:
    assert find_partner(str(run), None).name == "sums, step 100"
    assert find_partner(str(run), "best").name == "sums, step 50"
    plain = find_partner(str(toy_folder), None).prompting
    assert plain.first.messages("1+1") == [{"role": "user", "content": "1+1"}] and plain.end_ids


def test_mistakes_are_one_sentence(run: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, sentence in [
        ([run, "--step", "70"], "no policy of step 70: there are 50, 100"),
        ([toy_folder, "--step", "70"], "--step is for a run"),
        ([run, "--task", "letters"], "was trained on no task letters"),
        ([run, "--temperature", "-1"], "--temperature"),
        ([run.parent / "nothing"], "there is no run or model"),
    ]:
        assert main([*map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert sentence in error.replace("There", "there") and error.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_typed_lines_are_one_conversation_until_another_is_begun(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["1+1", "", "2+2", "/new", "1+1"])

    def typed(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None  # Ctrl-D

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr("sys.stdin", Terminal())
    assert main([str(run), "--temperature", "0", "--max-tokens", "4"]) == 0
    out, err = capsys.readouterr()
    again = find_partner(str(run), None).conversation(None, 0.0, 4)
    answers = [again.ask(text, lambda _: None) for text in ("1+1", "2+2")]
    assert out == f"{answers[0]}\n{answers[1]}\n{answers[0]}\n\n"
    assert err == "sums, step 100. /new begins another conversation, Ctrl-D ends.\n"


def test_ctrl_c_ends_it_without_a_word_too_many(run: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.chat", str(run), *GREEDY],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by what a shell has put into the background
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        deadline = time.monotonic() + 150
        while b"> " not in shown:
            assert time.monotonic() < deadline, shown
            shown += os.read(ours, 4096)
        heard = False
        while not heard:  # pressed again, as people do: readline does not see one that comes before it begins to wait
            assert time.monotonic() < deadline, shown
            process.send_signal(signal.SIGINT)
            heard = bool(select.select([ours], [], [], 3)[0])
        assert process.wait(60) == 0
        with suppress(OSError):  # the terminal went with the process
            shown += os.read(ours, 4096)
        assert b"Traceback" not in shown and b"rror" not in shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_terminal_is_not_steered_by_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat._write("\x1b]0;title\x07é\n")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    chat._write("\x1b]0;title\x07é\n")
    assert capsys.readouterr().out == "\x1b]0;title\x07é\n" + "\\x1b]0;title\\x07é\n"


def test_piped_lines_need_not_be_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"1+\xff2\n\n"), encoding="utf-8", errors="surrogateescape")
    )
    chat._answer_each(SimpleNamespace(begin_anew=lambda: None, ask=lambda line, _: asked.append(line)))  # type: ignore[arg-type]
    assert asked == ["1+\ufffd2"]
