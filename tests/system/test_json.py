"""`--json`: every command that prints a table writes it to stdout as one document, and the rest to stderr."""

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from audited_run import audited_run
from made_up_trace import made_up_run
from whole_run import STEPS, write_run

from launch.main import COMMANDS, main
from launch.performance.gpu_suite import __main__ as gpu_suite
from launch.performance.gpu_suite.rows import noted
from launch.performance.gpu_suite.runner import Part, Suite
from launch.performance.report import Figure, asked, report

WITHOUT_A_TABLE = {"chat", "export", "report", "shapes"}
SUITE = "performance.gpu_suite"
MEASURED = sorted(name for name in COMMANDS if name.startswith("performance.") and name != SUITE)


def train(folder: Path) -> list[str]:
    """A run that has been finished: its end is shown again."""
    return [str(write_run(folder / "runs" / "mine")), "--resume"]


def dry_run(folder: Path) -> list[str]:
    place = ["--placement.device", "gpu", "--placement.gpu_memory_gib", "48", "--placement.gpu_name", "A40"]
    return ["quickstart", "--run.folder", str(folder), *place, "--cost.price_per_gpu_hour", "0.5", "--dry-run"]


def benchmark(folder: Path) -> list[str]:
    (folder / "sums.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "2+1", "answer": "3"}\n')
    return ["--benchmarks", "sums", "--data", f"sums={folder}/sums.jsonl", "--max-tokens", "24", "--dry-run"]


def evaluate(folder: Path) -> list[str]:
    return ["toy", "--start", "toy", "--prompt", "plain", "--folder", str(folder / "out"), *benchmark(folder)]


def reproduce(folder: Path) -> list[str]:
    return ["quickstart", "--run.folder", str(folder), *benchmark(folder)]


def curate(folder: Path) -> list[str]:
    rows = [{"problem": f"{n}+1", "answer": str(n + 1)} for n in range(20)]
    (folder / "sums.json").write_text(json.dumps(rows))
    recipe = {
        "name": "sums",
        "folder": str(folder / "data"),
        "sources": {"own": {"path": str(folder / "sums.json")}},
        "stages": {"mixed": {"kind": "mix", "counts": {"own": 5}}},
    }
    (folder / "sums.yaml").write_text(yaml.safe_dump(recipe))
    return [str(folder / "sums.yaml")]


def probe(folder: Path) -> list[str]:
    return ["quickstart", "--run.folder", str(folder), "--placement.device", "cpu"]


def coverage(folder: Path) -> list[str]:
    return [str(write_run(folder / "run"))]


def audit(folder: Path) -> list[str]:
    with redirect_stdout(sys.stderr):  # DeepSpeed says something when it is imported
        return [str(audited_run(folder))]


def trace(folder: Path) -> list[str]:
    return [str(made_up_run(folder / "run"))]


def verify(folder: Path) -> list[str]:
    lines = [r'{"pred": "\\boxed{4}", "gold": "4"}', r'{"pred": "\\boxed{\ud800}", "gold": "4"}']
    (folder / "answers.jsonl").write_text("\n".join(lines))
    return [str(folder / "answers.jsonl"), "--processes", "1", "--rewards", "accuracy"]


CASES: dict[str, tuple[Callable[[Path], list[str]], dict[str, Any]]] = {
    "train": (
        train,
        {
            "run": "mine",
            "steps": STEPS,
            "ended_by": "steps",
            "gpu_hours": pytest.approx(3.0, rel=1e-3),
            "dollars": None,
        },
    ),
    "train --dry-run": (dry_run, {"steps": 50, "warnings": [], "gpus": 2, "completions_per_step": 256}),
    "evaluate --dry-run": (evaluate, {"completions": 64, "samples_per_problem": 16, "dollars": None}),
    "evaluate --dry-run --until-decided": (
        lambda folder: [*evaluate(folder), "--until-decided"],
        {"completions": 64, "samples_per_problem": 16},
    ),
    "reproduce --dry-run": (reproduce, {}),
    "curate": (curate, {"name": "sums"}),
    "curate --dry-run": (lambda folder: [*curate(folder), "--dry-run"], {"rows": 20, "rows_by_source": {"own": 20}}),
    "probe": (probe, {"run": "quickstart"}),
    "coverage": (coverage, {"holds": True, "steps": STEPS, "groups_replaced": 1, "rows_checked": 84}),
    "audit": (audit, {"outcome": "whole"}),
    "show": (lambda folder: [*coverage(folder), "--best", "3"], {}),
    "trace": (trace, {"steps": [3, 4, 5, 6, 7, 8]}),
    "verify": (verify, {"checked": 2, "statuses": {"correct": 1, "wrong": 1}}),
    "fields": (lambda folder: [], {}),
}
"""Command line, and a part of what it must find."""


def document(name: str, arguments: list[str], capfd: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    assert main([name, *arguments, "--json"]) == code
    captured = capfd.readouterr()
    found: dict[str, Any] = json.loads(captured.out, parse_constant=pytest.fail)
    assert captured.out[:2] + captured.out[-2:] in ("{\n}\n", "[\n]\n")
    return found


def test_no_command_with_a_table_is_left_out() -> None:
    tried = {case.partition(" ")[0] for case in CASES}
    assert tried | {*MEASURED, SUITE} | WITHOUT_A_TABLE == {*COMMANDS}


@pytest.mark.parametrize("case", CASES)
def test_stdout_is_one_document(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, expected = CASES[case]
    found = document(case.partition(" ")[0], make(tmp_path), capfd, code=0)
    assert {name: found[name] for name in expected} == expected


def test_the_documents_hold_the_figures_of_the_tables(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stages = {stage["name"]: stage for stage in document("trace", trace(tmp_path), capfd)["stages"]}
    assert stages["step"]["seconds"] == pytest.approx(9.95) and stages["take"]["share"] == pytest.approx(7.3 / 9.95)
    parts = {part["name"]: part for part in stages["take"]["parts"]}
    assert parts["decode"]["seconds"] == pytest.approx(6.0) and parts["decode"]["spans_per_step"] == 4
    plan = document("train", dry_run(tmp_path), capfd)
    assert [one["role"] for one in plan["memory"]] == ["learner", "rollout"]
    for one in plan["memory"]:
        assert one["peak_bytes"] == pytest.approx(sum(one["parts_bytes"].values())) and one["fits"]
    best, worst = plan["forecast"]["dollars"]
    assert 0 < best < worst and best == pytest.approx(plan["forecast"]["hours"][0] * 2 * 0.5)
    rows = {row["what"]: row for row in document("probe", probe(tmp_path), capfd)["rows"]}
    assert rows["memory"]["figures"]["free_bytes"] > rows["memory"]["figures"]["needed_bytes"] > 0
    fields = {field["field"]: field for field in document("fields", [], capfd)["run"]}
    assert fields["rollout.staleness"]["default"] == 0 and fields["run.name"]["required"]
    (kept,) = document("curate", curate(tmp_path), capfd)["stages"][1:]
    assert (kept["entered"], kept["kept"]) == (20, 5)


def test_an_error_is_a_sentence_on_stderr_and_no_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in (["coverage", str(tmp_path)], ["train", "quickstart", "--run.stepz", "3"], ["fields", "x", "y"]):
        assert main([*line, "--json"]) == 2
        captured = capfd.readouterr()
        assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1


def measure(options: Namespace) -> None:
    """In the place of a measurement, which takes minutes."""
    report("Speeds", asked(options), [Figure("speed", "tokens/s", (1.0, 3.0, 2.0))], options.json)


@pytest.mark.parametrize("name", MEASURED)
def test_measurements_write_to_a_file_or_to_stdout(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(f"launch.{name}"), "_measure", measure)
    needed = ["problems.jsonl"] if name == "performance.rewards" else []
    file = tmp_path / "figures.json"
    assert main([name, *needed, "--json", str(file)]) == 0
    assert "Speeds" in capfd.readouterr().out, "with a file the table is shown as well"
    found = document(name, needed, capfd)
    assert found == json.loads(file.read_text())
    assert found["figures"][0]["median"] == 2.0 and "json" not in found["settings"]


def test_the_gpu_suite_writes_to_a_folder_or_to_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = noted("speed", 1234.5, "tokens/s")
    result = {"state": "passed", "reason": "", "rows": [{"what": row.what, "figure": row.figure, "value": row.value}]}
    script = f"import json, sys; json.dump({result}, open(sys.argv[1], 'w')); print('a line')"
    part = Part("good", "speed", 0, 60)
    monkeypatch.setattr(gpu_suite, "PARTS", [part])

    def suite(folder: Path, size: str) -> Suite:
        return Suite([part], lambda _, file: ["python3", "-c", script, str(file)], folder, {"size": size}, {})

    monkeypatch.setattr(gpu_suite, "suite", suite)
    assert main([SUITE, "--size", "tiny", "--json", str(tmp_path / "one")]) == 0
    assert "| good | speed | 1,234 tokens/s |" in capfd.readouterr().out.replace("  ", " ")
    assert (tmp_path / "one" / "good.json").exists()
    found = document(SUITE, ["--size", "tiny", "--folder", str(tmp_path / "two")], capfd)
    assert found["parts"]["good"]["rows"][0]["value"] == 1234.5 and found["folder"] == str(tmp_path / "two")
