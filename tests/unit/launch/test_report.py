"""Mistakes at `launch.report`."""

import json
from pathlib import Path

import pytest
from made_run import made_run

from launch.report import main


def test_a_folder_that_is_no_run_gets_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_name_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "\x1b[31mrun"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    assert main([str(run)]) == 0
    assert "\\x1b[31mrun" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "sentence"), [
    (["--serve", "--output", "page.html"], "--serve writes no file"), (["--port", "8000"], "--port is for --serve"),
])  # fmt: skip
def test_an_option_that_would_do_nothing_is_refused(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_figures_that_end_before_the_completions_are_told_where_the_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path / "run", 6, recorded=(1, 2, 6))
    assert main([str(run)]) == 0 and "warning" not in capsys.readouterr().out
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= 3]
    (run / "metrics.jsonl").write_text("".join(kept))
    assert main([str(run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: run: record: metrics.jsonl ends with step 3 and the completions with step 6" in said
