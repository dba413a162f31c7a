"""What the page and the headline show of a run's own decisions."""

from pathlib import Path

from made_run import made_run

from openrs_ray.report.decided import counts
from openrs_ray.report.summary import summary
from openrs_ray.run.decisions import Decision, note_decision


def decision(action: str, to_step: int | None = None) -> Decision:
    changes = {"learning_rate_factor": (1.0, 0.5)} if to_step is not None else {}
    return Decision(30, 1, "guard", action, changes, {"rule": "entropy_rise"}, f"the sentence of {action}", to_step)


def test_a_run_without_decisions(tmp_path: Path) -> None:
    found = summary(made_run(tmp_path / "run"))
    assert found["decisions"] == [] and found["faults"] == []
    assert found["headline"]["rollbacks"] == 0 and found["headline"]["guard_stop"] is None


def test_warnings_and_rollbacks_are_counted_and_a_stop_is_told(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    note_decision(run, Decision(10, 1, "stage", "next stage", {"stage": (0, 1)}, {}, "few are cut"))
    for each in (decision("warn"), decision("warn"), decision("roll back", 20)):
        note_decision(run, each)
    found = summary(run)
    assert found["headline"] | {"guard_warnings": 2, "rollbacks": 1, "guard_stop": None} == found["headline"]
    assert [(one["by"], one["to_step"]) for one in found["decisions"]][-1] == ("guard", 20) and len(
        found["decisions"]
    ) == 4
    note_decision(run, decision("stop"))
    assert counts(run)["guard_stop"] == "the sentence of stop"


def test_a_damaged_file_hides_nothing_else(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    (run / "decisions.jsonl").write_text('{"step": "soon"}\n')
    found = summary(run)
    assert any("decisions.jsonl is damaged" in fault for fault in found["faults"]) and found["curves"]["step"]
