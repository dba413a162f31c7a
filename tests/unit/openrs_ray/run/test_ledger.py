"""The ledger: a chain that survives kills, several processes, and files that come, change and go."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openrs_ray.common.files import append_line, write_json
from openrs_ray.run.ledger import FILE, Ledger, head_beside, note_beside, note_evaluation, read_head, read_ledger


def entries(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / FILE).read_text().splitlines() if line.startswith('{"entry"')]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def record(run: Path, name: str, content: bytes = b"rows") -> str:
    path = run / "completions" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return sha(content)


def test_an_entry_names_the_line_before_it_and_what_is_new(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    write_json(tmp_path / "config.json", {"seed": 1})
    append_line(tmp_path / "attempts.jsonl", {"attempt": 1})
    ledger.note("attempt", attempt=1)
    digest = record(tmp_path, "train-1.parquet")
    append_line(tmp_path / "metrics.jsonl", {"step": 1})
    head = ledger.note("step", step=1, attempt=1)
    first, second = (tmp_path / FILE).read_bytes().splitlines()
    assert second.startswith(b'{"entry": 1, "before": "' + sha(first).encode())
    assert head is not None and head.digest == sha(second) and head.entries == 2 and read_head(tmp_path) == head
    attempt, step = entries(tmp_path)
    assert attempt["before"] == "" and attempt["files"] == {"config.json": sha((tmp_path / "config.json").read_bytes())}
    assert attempt["lines"] == {"attempts.jsonl": [sha(b'{"attempt": 1}')]}
    assert step["files"] == {"completions/train-1.parquet": digest} and step["step"] == 1
    assert step["lines"] == {"metrics.jsonl": [sha(b'{"step": 1}')]}


def test_what_changes_or_goes_is_noted_and_what_stays_is_not(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"seed": 1})
    write_json(tmp_path / "result.json", {"step": 1})
    Ledger(tmp_path).note("attempt")
    (tmp_path / "result.json").unlink()
    write_json(tmp_path / "config.json", {"seed": 2})
    Ledger(tmp_path).note("attempt")
    Ledger(tmp_path).note("step")
    _, changed, same = entries(tmp_path)
    assert changed["files"] == {"config.json": sha((tmp_path / "config.json").read_bytes()), "result.json": None}
    assert "files" not in same and "lines" not in same


def test_an_end_without_news_is_no_entry(tmp_path: Path) -> None:
    append_line(tmp_path / "metrics.jsonl", {"step": 1})
    head = Ledger(tmp_path).note("step")
    assert Ledger(tmp_path).note("stop", only_news=True) == head and len(entries(tmp_path)) == 1
    append_line(tmp_path / "decisions.jsonl", {"action": "stop"})
    Ledger(tmp_path).note("stop", only_news=True)
    assert entries(tmp_path)[1]["lines"].keys() == {"decisions.jsonl"}


def test_a_checkpoint_is_noted_without_the_state_and_again_where_it_was_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-000001"
    for name in ("policy/model.safetensors", "adapter/adapter.safetensors", "state/rank-0.pt", "trainer.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_json(tmp_path / "checkpoints" / "manifest.json", {"checkpoints": [{"folder": folder.name, "step": 1}]})
    Ledger(tmp_path).note("checkpoint")
    names = {
        f"checkpoints/step-000001/{name}"
        for name in ("policy/model.safetensors", "adapter/adapter.safetensors", "trainer.json")
    }
    assert entries(tmp_path)[0]["files"].keys() == names | {"checkpoints/manifest.json"}
    (folder / "policy" / "model.safetensors").write_bytes(b"other weights")
    Ledger(tmp_path).note("step")
    Ledger(tmp_path).note("checkpoint", folders=["checkpoints/step-000001/policy"])
    _, step, again = entries(tmp_path)
    assert "files" not in step  # looked at when it is written, and not in every step
    assert again["files"] == {"checkpoints/step-000001/policy/model.safetensors": sha(b"other weights")}


def test_a_torn_entry_is_none_and_the_next_one_follows_the_last_whole_one(tmp_path: Path) -> None:
    for torn in (b'{"entry": 1, "bef', b""):
        run = tmp_path / str(len(torn))
        run.mkdir()
        Ledger(run).note("attempt")
        whole = (run / FILE).read_bytes()
        (run / FILE).write_bytes(whole + torn if torn else whole.rstrip(b"\n"))  # even the end alone may be missing
        Ledger(run).note("attempt")
        known = read_ledger(run)
        assert known is not None and len(known.entries) == 2 and len(known.torn) == bool(torn)
        assert known.entries[1].content["before"] == known.entries[0].digest == sha(whole.rstrip(b"\n"))


def test_a_torn_line_of_figures_is_noted_when_it_is_ended(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    append_line(tmp_path / "metrics.jsonl", {"step": 1})
    (tmp_path / "metrics.jsonl").open("ab").write(b'{"step": 2, "rew')
    ledger.note("step")
    append_line(tmp_path / "metrics.jsonl", {"step": 2})
    Ledger(tmp_path).note("step")
    append_line(tmp_path / "metrics.jsonl", {"step": 3})
    ledger.note("step")  # which has not seen that the other one noted
    assert [entry["lines"]["metrics.jsonl"] for entry in entries(tmp_path)] == [
        [sha(b'{"step": 1}')],
        [sha(b'{"step": 2, "rew'), sha(b'{"step": 2}')],
        [sha(b'{"step": 3}')],
    ]


def test_processes_take_turns(tmp_path: Path) -> None:
    script = "import sys, pathlib; from openrs_ray.run.ledger import Ledger; l = Ledger(pathlib.Path(sys.argv[1]));"
    script += "[l.note('report', number=n) for n in range(20)]"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    known = read_ledger(tmp_path)
    assert known is not None and [entry.number for entry in known.entries] == [*range(40)]
    assert [entry.content["before"] for entry in known.entries[1:]] == [entry.digest for entry in known.entries[:-1]]


def test_what_lies_in_a_run_is_noted_there_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "evaluation").mkdir(parents=True)
    assert note_beside(run / "evaluation", "report") is None and head_beside(run / "evaluation") is None
    Ledger(run).note("attempt")
    (run / "evaluation" / "report.json").write_text("{}")
    assert note_beside(tmp_path / "report.html", "page") is None
    assert note_beside(run / "evaluation", "report") == head_beside(run / "evaluation") == read_head(run)
    assert entries(run)[-1]["files"] == {"evaluation/report.json": sha(b"{}")}


def evaluation(run: Path, name: str = "robust") -> Path:
    """A folder as `launch.evaluate` leaves it."""
    folder = run / "evaluation" / name
    (folder / "model").mkdir(parents=True)
    names = ("report.json", "driver.lock", "model/cost.json", "model/settings.json", "model/sums-000000.parquet")
    for each in (*names, "model/until_decided.json"):
        (folder / each).write_text(each)
    return folder


def test_an_evaluation_is_noted_without_what_its_next_sitting_writes_anew_in_every_run_that_it_is_of(
    tmp_path: Path,
) -> None:
    runs = [tmp_path / "one", tmp_path / "other"]
    for run in runs:
        run.mkdir()
        Ledger(run).note("attempt")
    note_evaluation([evaluation(run) for run in runs] + [tmp_path])
    names = {
        f"evaluation/robust/{name}" for name in ("report.json", "model/sums-000000.parquet", "model/until_decided.json")
    }
    assert [entries(run)[-1]["files"].keys() for run in runs] == [names, names]
    assert [entry["about"] for entry in entries(runs[0])] == ["attempt", "report"]


def test_the_first_entry_notes_what_an_older_version_has_made_of_the_run(tmp_path: Path) -> None:
    evaluation(tmp_path)
    (tmp_path / "export" / "step-1").mkdir(parents=True)
    for made in ("report.html", "export/step-1/README.md", "export/step-1/model.safetensors"):
        (tmp_path / made).write_text(made)
    Ledger(tmp_path).note("start", only_news=True)
    found = {name.rpartition("/")[2] for name in entries(tmp_path)[0]["files"]}
    assert found == {"report.json", "sums-000000.parquet", "until_decided.json", "report.html", "README.md"}
    (tmp_path / "report.html").write_text("another")
    Ledger(tmp_path).note("attempt")
    assert "files" not in entries(tmp_path)[1]  # from now on the commands note what they make


def test_files_of_a_start_that_failed_are_noted_again_when_the_attempt_begins(tmp_path: Path) -> None:
    (tmp_path / "attempts" / "002").mkdir(parents=True)
    write_json(tmp_path / "attempts" / "002" / "environment.json", {"started": "first"})
    Ledger(tmp_path).note("start")
    write_json(tmp_path / "attempts" / "002" / "environment.json", {"started": "again"})
    Ledger(tmp_path).note("attempt", attempt=2)
    assert [entry["files"].keys() for entry in entries(tmp_path)] == [{"attempts/002/environment.json"}] * 2


def test_a_discarded_checkpoint_is_noted_as_gone(tmp_path: Path) -> None:
    folder, manifest = tmp_path / "checkpoints" / "step-000002", tmp_path / "checkpoints" / "manifest.json"
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "model.safetensors").write_bytes(b"weights")
    write_json(manifest, {"checkpoints": [{"folder": folder.name, "step": 2}]})
    Ledger(tmp_path).note("checkpoint", step=2)
    write_json(manifest, {"checkpoints": []})
    (folder / "policy" / "model.safetensors").unlink()
    Ledger(tmp_path).note("start", only_news=True)
    assert entries(tmp_path)[1]["files"]["checkpoints/step-000002/policy/model.safetensors"] is None


@pytest.mark.parametrize(
    "content",
    [
        {"files": {"a": 1}},
        {"files": {"a": ["b"]}},
        {"lines": {"metrics.jsonl": "abc"}},
        {"lines": {"metrics.jsonl": [1]}},
        {"step": "three"},
        {"entry": True},
        {"files": None},
    ],
)
def test_a_line_that_no_version_writes_is_no_entry_and_stops_no_training(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    write_json(tmp_path / "config.json", {"seed": 1})
    Ledger(tmp_path).note("attempt")
    append_line(tmp_path / FILE, {"entry": 1, "before": "", "about": "step"} | content)
    Ledger(tmp_path).note("step", step=1)
    known = read_ledger(tmp_path)
    assert known is not None and known.torn == [2] and [entry.number for entry in known.entries] == [0, 1]
