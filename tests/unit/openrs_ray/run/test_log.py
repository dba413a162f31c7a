"""The log and the environment that each start writes: every line that was shown, never a secret."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from commands import ROOT, finish, start, tail, write_recipe
from rich.console import Console
from rich.table import Table

from openrs_ray.common import redaction
from openrs_ray.common.redaction import hide_secrets
from openrs_ray.errors import RunError
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.display import RunDisplay
from openrs_ray.run.environment import ROOT as CHECKOUT
from openrs_ray.run.environment import checkout, code_digest, describe
from openrs_ray.run.log import RunLog, append_lines, attempt_folder, newest_log


def lines(folder: Path) -> list[str]:
    """The lines of a log without their times, each of which must be valid."""
    found = (folder / "log.txt").read_text().splitlines()
    assert all(line[:4].isdigit() and line[19:].startswith(".") and "+00:00 " in line for line in found), found
    return [line.partition(" ")[2] for line in found]


@pytest.mark.parametrize("terminal", [False, True])
def test_all_that_is_shown_is_written(
    tmp_path: Path, terminal: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Lines of a live screen, which prints nothing, and logs and warnings of libraries are written, too."""
    caplog.set_level(logging.WARNING, logger="ray")  # an earlier test's Ray may have set another
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, highlight=False)
    with RunLog(tmp_path / "001", console) as log:
        console.print("data: 12 [problems] of a file with a name that is longer than the screen is wide", markup=False)
        with RunDisplay("mine", 10, console, lambda: "$ 1.00", log.write) as display:
            display.status("starting")
            display.warn("an engine is lost")
            display.note("saved")
        table = Table("a", "b")
        table.add_row("steps", "12")
        console.print(table)
        logging.getLogger("ray").warning("no %s", "space")
        logging.getLogger("somebody").error("broken")
        logging.getLogger("ray").info("not shown")
        warnings.warn("deprecated", stacklevel=1)
    found = lines(tmp_path / "001")
    assert found[0] == "data: 12 [problems] of a file with a name that is longer than the screen is wide"
    assert found[1:4] == [f"[mine, $ 1.00] {text}" for text in ("starting", "WARNING: An engine is lost.", "saved")]
    assert any("steps" in line and "12" in line for line in found[4:])
    assert [line for line in found if "space" in line or "broken" in line or "not shown" in line] == [
        "WARNING ray: no space",
        "ERROR somebody: broken",
    ]
    assert found[-1] == "UserWarning: deprecated"
    assert "\x1b" not in "".join(found) and "data: 12" in out.getvalue()
    console.print("after the end")
    assert lines(tmp_path / "001") == found


def test_the_error_that_ends_a_start_is_written(tmp_path: Path) -> None:
    with pytest.raises(RunError), RunLog(tmp_path / "001", Console(file=io.StringIO())):
        raise RunError("Ray did not start")
    assert lines(tmp_path / "001") == ["error: Ray did not start"]


def test_a_kill_loses_nothing_that_was_shown(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from rich.console import Console\n"
        "from openrs_ray.run.log import RunLog\n"
        "with RunLog(Path(sys.argv[1]), console := Console()):\n"
        "    for step in range(100): console.print(f'step {step}')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "001")], cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert lines(tmp_path / "001") == [f"step {step}" for step in range(100)]


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with RunLog(tmp_path / "001", console := Console(file=out, width=200)) as log:
        (tmp_path / "001").rmdir()
        log.write("lost")
        console.print("step 2")
    assert "WARNING: log.txt has no more lines from here on" in out.getvalue() and "step 2" in out.getvalue()


def test_every_attempt_has_a_folder_and_a_start_that_failed_shares_the_next_one_s(tmp_path: Path) -> None:
    assert newest_log(tmp_path) is None
    for number in (1, 2):
        folder = attempt_folder(tmp_path)
        assert folder == tmp_path / "attempts" / f"00{number}" == attempt_folder(tmp_path)
        folder.mkdir(parents=True)
        append_lines(folder / "log.txt", "failed")
        append_lines(folder / "log.txt", "two\nlines")
        assert newest_log(tmp_path) == folder / "log.txt" and lines(folder) == ["failed", "two", "lines"]
        assert start_attempt(tmp_path, 0) == number


SECRETS = {
    "HF_TOKEN": "hf_abcdefghijklmnop",
    "WANDB_API_KEY": "0123456789abcdef0123",
    "MY_PASSWORD": "correct horse battery",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Secrets in the environment and in Ray's token file."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "token").write_text("ray-cluster-token-1\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-for-once")
    redaction._known.cache_clear()
    yield [*SECRETS.values(), "ray-cluster-token-1"]  # type: ignore[misc]
    redaction._known.cache_clear()


def test_no_secret_is_written(secrets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaky = [
        *(f"with {secret}, and on" for secret in secrets),
        "https://me:pa55word@host/model?token=abc123&x=1",
        "hf_QWERTYUIOPASDFGHJK sk-proj-0123456789abcdef ghp_0123456789abcdefghij AKIAIOSFODNN7EXAMPLE",
        "--hub.token abc123 --password=abc123",
    ]
    console = Console(file=io.StringIO())
    with RunLog(tmp_path / "001", console):
        for text in leaky:
            console.print(text, markup=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "launch.train", "r.yaml", *" ".join(leaky).split()])
    monkeypatch.setenv("RAY_ADDRESS", "ray://me:pa55word@head:10001")
    written = (tmp_path / "001" / "log.txt").read_text() + json.dumps(describe())
    for secret in (*secrets[:2], secrets[3], "pa55word", "abc123", "QWERTY", "0123456789abcdef", "ghp_0", "AKIA"):
        assert secret not in written, secret
    assert secrets[2] not in (tmp_path / "001" / "log.txt").read_text()
    assert written.count("***") >= 20 and "ray://***@head:10001" in written


def test_what_is_no_secret_stays(secrets: list[str]) -> None:
    for text in (
        "python -m launch.train open-rs3.yaml --rollout.max_completion_tokens 4096 --learner.micro_batch_tokens 16384",
        "step 1/3  reward 0.188  truncated 50.0 %  tokens/s 943",
        "stop tokens (<|im_end|>, </s>)",
        "token authentication is enabled, false-for-once",
        "https://huggingface.co/org/model",
    ):
        assert hide_secrets(text) == text


def git(folder: Path, *arguments: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True)


def test_the_commit_is_named_and_whether_it_was_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    assert checkout(tmp_path)["commit"] is None and "not a git repository" in checkout(tmp_path)["reason"]
    git(tmp_path, "init")
    (tmp_path / "inner" / "file.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = checkout(tmp_path)
    assert len(clean.pop("commit")) == 40 and clean == {"clean": True, "changed": []}
    (tmp_path / "inner" / "file.py").write_text("2")
    assert checkout(tmp_path)["clean"] is False and checkout(tmp_path)["changed"] == [" M inner/file.py"]
    assert checkout(tmp_path / "inner") == {"commit": None, "reason": "not a git checkout"}, "somebody else's"
    monkeypatch.setenv("PATH", "")
    assert checkout(tmp_path) == {"commit": None, "reason": "no git on this machine"}


def test_the_digest_is_that_of_the_code(tmp_path: Path) -> None:
    for name in ("openrs_ray", "actors", "launch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("1")
    digest = code_digest(tmp_path)
    (tmp_path / "launch" / "notes.txt").write_text("of no account")
    assert code_digest(tmp_path) == digest
    (tmp_path / "launch" / "a.py").write_text("2")
    assert code_digest(tmp_path) != digest


def test_the_environment_says_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs_ray.run.environment.gpus", list)
    found = describe()
    assert found["git"] == checkout(CHECKOUT) and found["code_sha256"] == code_digest(CHECKOUT)
    assert found["python"] == sys.version and found["pid"] == os.getpid() and found["gpus"] == []
    assert {"torch", "ray", "transformers", "deepspeed"} <= found["packages"].keys()
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_a_run_that_cannot_learn_ends_with_its_cause_and_leaves_all_that_it_said(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    changes = {"rollout": {"max_uniform_steps": 6}, "rewards": {"weights": {"accuracy": 1.0}}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 30, **changes)
    run, out = tmp_path / "run", tmp_path / "out"
    command = [str(recipe), "--checkpoint.every_steps", "1000"]
    assert finish(start(command, out), out) == 1, tail(out)
    said = out.read_text()
    assert "  spread 0/4  " in said and "  length " in said
    assert "WARNING: Nothing was learned in the last 5 steps" in said
    assert "error: Nothing was learned in 6 steps in a row, as many as rollout.max_uniform_steps allows" in said
    assert "Continue with" not in said and "Traceback" not in said
    assert [checkpoint.step for checkpoint in CheckpointStore(run / "checkpoints").checkpoints()] == [6]
    written = lines(run / "attempts" / "001")
    assert written[0].startswith("started on ") and written[0].endswith("--checkpoint.every_steps 1000")
    ours = [line for line in said.splitlines() if line.startswith(("[run]", "data: ", "error: "))]
    assert len(ours) > 8 and [line for line in written if line in ours] == ours
    environment = json.loads((run / "attempts" / "001" / "environment.json").read_text())
    assert environment["git"] == checkout(CHECKOUT)
    assert environment["ray"]["address"].count(":") and environment["ray"]["nodes"][0]["resources"]["CPU"] >= 1
    assert SECRETS["HF_TOKEN"] not in json.dumps(environment)
