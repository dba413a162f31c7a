"""A trace with known times: the table says them, the planted slow stage is named, and Perfetto's file holds every span."""

import json
from pathlib import Path

import pytest
from made_up_trace import EPOCH, MadeUp, made_up_run

from launch.trace import main
from openrs_ray.run.trace import Event, Step, chrome_trace, covered, read_trace, steps_of


def rows(text: str) -> dict[str, list[str]]:
    """The table's lines by stage and kind of process."""
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.count("|") == 5]
    return {f"{stage} {kind}": rest for stage, kind, *rest in cells}


def test_every_stage_with_its_seconds_share_and_slowest_span(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(made_up_run(tmp_path / "run"))]) == 0
    text = capsys.readouterr().out
    found = rows(text)
    assert text.startswith("Steps 3 to 8 of run")
    assert found["step driver"][:2] == ["9.950 (9.950 to 9.950)", "100.0%"]
    assert found["take driver"][:3] == ["7.300 (7.300 to 7.300)", "73.4%", "1"]
    assert found["- waits for completions driver"][:2] == ["6.300 (6.300 to 6.300)", "63.3%"]
    assert found["- waits for verdicts driver"][:2] == ["1.000 (1.000 to 1.000)", "10.1%"]
    assert found["- decode engine"][:3] == ["6.000 (6.000 to 6.000)", "60.3%", "4"]
    assert (
        found["- forward_backward learner"][0].startswith("1.800")
        and "learner-1" in found["- forward_backward learner"][3]
    )
    assert "bucket 3" in found["- send_bucket learner"][3] and found["other driver"][0].startswith("0.050")
    assert "Nothing to do: engine-0 57% of a step, engine-1 37% of a step." in text
    assert "Nothing to do: learner-0 80% of a step, learner-1 82% of a step." in text


@pytest.mark.parametrize(
    ("slow", "said"),
    [
        ({}, "Sampling bounds the step: 63% of it waits for completions; the last completion of step"),
        ({"decode": 45.0}, ", sample 1, tokens 128) ended 41 s after the median one"),
        ({"queue": 9.0}, "requests wait 66% of their time for a place in an engine (engine.max_sequences)."),
        (
            {"judge": 30.0},
            "The reward pool bounds the step: 77% of it waits for verdicts when all completions have ended;",
        ),
        ({"train": 20.0}, "The learner bounds the step: 72% of it goes to train, and 90% of that to forward_backward"),
        ({"send": 20.0}, "The weight push bounds the step: 68% of it goes to push, and 100% of that to send_bucket"),
        ({"write": 20.0}, "Writing the record bounds the step: 67% of it goes to write."),
        ({"other": 20.0}, "None of the stages bounds the step: 67% of it is in the driver between them"),
    ],
)
def test_the_planted_slow_stage_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], slow: dict[str, float], said: str
) -> None:
    assert main([str(made_up_run(tmp_path / "run", **slow))]) == 0
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_a_checkpoint_counts_to_the_step_that_it_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up_run(tmp_path / "run", save=30.0)
    assert main([str(run), "--step", "4"]) == 0
    assert "Saving checkpoints bounds the step: 86% of it goes to save." in capsys.readouterr().out
    assert main([str(run), "--step", "5"]) == 0
    assert "Sampling bounds the step" in capsys.readouterr().out


def test_completions_of_later_steps_do_not_hide_the_reward_pool(tmp_path: Path) -> None:
    """Sampling ahead, engines are busy all the time; what a step waits for is its own groups."""
    run = made_up_run(tmp_path / "run", judge=30.0)
    trace = run / "attempts" / "001" / "trace"
    with (trace / "engine-0.jsonl").open("a") as file:
        for position in range(100, 200):
            event = {"name": "decode", "ts": 1e6 * EPOCH, "dur": 1e9, "pid": 7, "args": {"position": position}}
            file.write(json.dumps(event) + "\n")
    with (trace / "driver.jsonl").open("a") as file:
        event = {"name": "judge", "ts": 1e6 * (EPOCH + 36), "dur": 2e5, "pid": 7, "args": {"positions": [150]}}
        file.write(json.dumps(event) + "\n")
    first = steps_of(read_trace(run))[0].causes()
    assert first["verdicts"] == pytest.approx(30.0, abs=1e-3) and first["completions"] == pytest.approx(6.3, abs=1e-3)


def test_causes_add_up_to_the_step(tmp_path: Path) -> None:
    for step in steps_of(read_trace(made_up_run(tmp_path / "run", save=1.0))):
        assert sum(step.causes().values()) == pytest.approx(step.seconds, rel=1e-6)


def test_the_newest_attempt_that_has_spans_or_the_one_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_up_run(tmp_path / "run", steps=3)
    made_up_run(run, attempt=2, steps=5)
    (run / "attempts" / "003" / "trace").mkdir(parents=True)
    assert main([str(run)]) == 0 and "Steps 3 to 5" in capsys.readouterr().out
    assert main([str(run), "--attempt", "1"]) == 0 and "Step 3 of" in capsys.readouterr().out
    assert main([str(run), "--attempt", "9"]) == 2 and "has no trace of attempt 9" in capsys.readouterr().err
    assert main([str(run), "--step", "9"]) == 2
    assert "No step 9 to show: the trace has steps 1 to 5" in capsys.readouterr().err


def test_lines_that_are_torn_or_nobody_wrote_are_left_out(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", steps=3)
    file = run / "attempts" / "001" / "trace" / "driver.jsonl"
    before = len(read_trace(run))
    with file.open("ab") as out:
        out.write(b'{"name": "step", "ts": "x", "dur": 1, "args": {}}\n[1]\n\xff\xfe\n{"name": "step", "ts": 17')
    assert len(read_trace(run)) == before


def test_a_run_before_its_first_step_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    MadeUp(run / "attempts" / "001" / "trace").add("driver", "push", EPOCH, 1.0)
    assert main([str(run)]) == 2
    assert "no step has been finished yet" in capsys.readouterr().err


def test_perfetto_gets_every_span_in_lanes_where_spans_only_nest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = made_up_run(tmp_path / "run"), tmp_path / "trace.json"
    assert main([str(run), "--perfetto", str(file)]) == 0
    assert "ui.perfetto.dev" in capsys.readouterr().out
    written = json.loads(file.read_text())["traceEvents"]
    names = {event["args"]["name"] for event in written if event["ph"] == "M"}
    assert names == {
        f"{process} (pid 7)" for process in ("driver", "engine-0", "engine-1", "learner-0", "learner-1", "rewards")
    }
    spans = [event for event in written if event["ph"] == "X"]
    assert len(spans) == len(read_trace(run))
    for a in spans:
        for b in spans:
            same = a is not b and (a["pid"], a["tid"]) == (b["pid"], b["tid"])
            if same and (a["ts"], -a["dur"]) <= (b["ts"], -b["dur"]) and b["ts"] < a["ts"] + a["dur"] - 1:
                assert b["ts"] + b["dur"] <= a["ts"] + a["dur"] + 1, (a, b)
    assert main([str(run), "--perfetto", str(tmp_path / "gone" / "x.json")]) == 2


def test_the_union_of_intervals_is_that_of_a_fine_grid() -> None:
    intervals = [(0.0, 0.3), (0.1, 0.2), (0.25, 0.5), (0.7, 0.9), (0.8, 0.85), (0.95, 0.9)]
    grid = sum(any(a <= (i + 0.5) / 1000 < b for a, b in intervals) for i in range(1000)) / 1000
    assert covered(intervals) == pytest.approx(grid)


def test_spans_of_one_process_that_overlap_are_in_lanes_of_their_own() -> None:
    events = [Event("decode", "engine-0", 1, start, start + 10, {}) for start in (0.0, 1.0, 2.0, 10.5)]
    lanes = [event["tid"] for event in chrome_trace(events)["traceEvents"] if event["ph"] == "X"]
    assert lanes == [0, 1, 2, 0]


def test_a_process_is_idle_when_it_has_no_span() -> None:
    step = Step(
        1, 0.0, 10.0, (Event("decode", "engine-0", 1, -5.0, 2.0, {}), Event("load", "engine-0", 1, 1.0, 4.0, {}))
    )
    assert step.idle("engine-0") == pytest.approx(0.6) and step.idle("engine-1") == 1.0
