"""`python -m launch.audit`: a table and exit code 0 for a whole run, 1 with what was found, 2 for a mistake of the user."""

import json
from pathlib import Path

import pytest
from tampering import remade, row

from launch.audit import main
from openrs_ray.run.ledger import read_head


def test_a_whole_run(audited: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head = read_head(audited)
    assert head is not None
    assert main([str(audited), "--head", head.digest]) == 0
    said = capfd.readouterr().out
    assert said.count("| whole |") == 6 and f"head {head.digest}" in said and "FOUND" not in said
    assert "Not shown: that the sampling happened at that time on that machine" in said


def test_a_changed_run_is_named_even_where_its_chain_was_made_anew(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row(copied, 2, "status", lambda status: "wrong" if status == "correct" else "correct")
    remade(copied)
    assert main([str(copied), "--score", "0", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    outcomes = {check["check"]: check["outcome"] for check in document["checks"]}
    assert not document["whole"] and outcomes["chain of digests"] == "whole"
    assert outcomes["verdicts, judged again"] == outcomes["figures, computed again"] == "finding"
    found = [each for check in document["checks"] for each in check["findings"]]
    assert {each["step"] for each in found if each["file"].startswith("completions/train")} == {2}


def test_damaged_files_are_findings_and_not_errors(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (copied / "config.json").write_text("{")
    assert main([str(copied), "--score", "0"]) == 1
    said = capfd.readouterr().out
    assert "FOUND config.json: its SHA-256 begins with" in said and "config.json is damaged" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["{}"], "is no run: it has neither config.json nor ledger"), (["{}", "--head", "no digest"], "argument --head")],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    assert sentence.removeprefix("argument ") in error
