"""What the README says of one's own data does what it says, with the toy in the place of the model."""

import re
from pathlib import Path

import pytest
from places import ROOT

from launch.train import main


def block(language: str) -> str:
    """The block of code below "Your own data"."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Your own data")[2]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_recipe_and_the_reward_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(block("yaml"))
    (tmp_path / "my_rewards.py").write_text(block("python"))
    for name, first in (("problems.csv", 10), ("held_out.csv", 60)):
        rows = "".join(f"{n}+1,{n + 1}\n" for n in range(first, first + 40))
        (tmp_path / name).write_text(f"question,answer\n{rows}")
    toy = ["--model.path", "toy", "--placement.device", "cpu", "--rollout.max_prompt_tokens", "120"]
    toy += ["--rollout.max_completion_tokens", "64", "--run.folder", str(tmp_path / "runs")]
    assert main(["mine.yaml", *toy, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "40 of 40 problems" in said and "0.5 x my_rewards.py:brevity" in said
