"""`python -m launch.audit`: a table and exit code 0 for a whole run, 1 with what was found, 2 for a mistake of the user."""

import json
from pathlib import Path

import pytest
from tampering import remade, row

from launch.audit import main
from openrs_ray.common.files import write_json
from openrs_ray.run.completion_files import current_files, write_file
from openrs_ray.run.ledger import read_head


def test_a_whole_run(audited: Path, capfd: pytest.CaptureFixture[str]) -> None:
    head = read_head(audited)
    assert head is not None
    assert main([str(audited), "--head", head.digest]) == 0
    said = capfd.readouterr().out
    assert (
        said.count("| whole |") == 6
        and said.count(": whole\n") == 6
        and f"head {head.digest}" in said
        and "FOUND" not in said
    )
    assert "Not shown: that the sampling happened at that time on that machine" in said


def test_a_changed_run_is_named_even_where_its_chain_was_made_anew(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row(copied, 2, "status", lambda status: "wrong" if status == "correct" else "correct")
    remade(copied)
    assert main([str(copied), "--score", "0", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    outcomes = {check["check"]: check["outcome"] for check in document["checks"]}
    assert document["outcome"] == "finding" and outcomes["chain of digests"] == "whole"
    assert outcomes["verdicts, judged again"] == outcomes["figures, computed again"] == "finding"
    found = [each for check in document["checks"] for each in check["findings"]]
    assert {each["step"] for each in found if each["file"].startswith("completions/train")} == {2}


def test_damaged_files_are_findings_and_not_errors(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (copied / "config.json").write_text("{")
    assert main([str(copied), "--score", "0"]) == 1
    said = capfd.readouterr().out
    assert "FOUND config.json: its SHA-256 begins with" in said and "config.json is damaged" in said


def test_a_ledger_with_lines_of_other_types_stops_no_check(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (copied / "ledger").open("a") as ledger:
        ledger.write('{"entry": 40, "before": "", "about": "step", "files": {"a": 1}, "lines": {"metrics.jsonl": 7}}\n')
    write_json(copied / "problems.json", {"problems": 7})
    assert main([str(copied), "--score", "0"]) == 1
    assert "FOUND problems.json: its SHA-256 begins with" in capfd.readouterr().out


def test_an_error_of_a_library_ends_its_check_alone(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*given: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr("openrs_ray.audit.statistics.check_statistics", broken)
    assert main([str(copied), "--score", "0", "--json"]) == 1
    checks = {check["check"]: check for check in json.loads(capfd.readouterr().out)["checks"]}
    (finding,) = checks["figures, computed again"]["findings"]
    assert finding["what"] == "this check cannot go on: AttributeError: no such thing"
    assert checks["verdicts, judged again"]["outcome"] == "whole"


def test_without_a_chain_nothing_is_said_to_be_whole(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A run of an older version, with neither a ledger nor what came with it."""
    (copied / "ledger").unlink()
    (copied / "attempts" / "001" / "config.json").unlink()
    lines = [json.loads(text) for text in (copied / "metrics.jsonl").read_text().splitlines()]
    old = [{name: value for name, value in line.items() if not name.startswith("setting/")} for line in lines]
    (copied / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in old))
    for file in [*current_files(copied, "train"), *current_files(copied, "evaluation")]:
        table = file.read().drop_columns(["learner_logprobs", "reference_logprobs", "entropies"])
        file.path.unlink()
        write_file(copied, file.phase, file.step, file.attempt, table)
    assert main([str(copied), "--score", "0", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["outcome"] == "not checked"
    assert "whole" in {check["outcome"] for check in document["checks"]}


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


def test_a_chain_that_cannot_be_read_is_said_before_the_checks(copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As that of another user may be; here it is a folder, which nobody can read as a file."""
    (copied / "ledger").unlink()
    (copied / "ledger").mkdir()
    assert main([str(copied)]) == 2
    out, error = capfd.readouterr()
    assert not out and error.startswith("error: Cannot read the chain of digests ") and error.count("\n") == 1
