"""Events are read from the logs of all attempts, as these grow."""

from pathlib import Path

from openrs_ray.report.events import MOST_EVENTS, EventLog


def log(run: Path, attempt: int, *lines: str) -> None:
    path = run / "attempts" / f"{attempt:03d}" / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(f"2026-01-01T00:00:00.{number:03d}+00:00 {line}\n" for number, line in enumerate(lines)))


def test_kinds_steps_and_attempts(tmp_path: Path) -> None:
    log(
        tmp_path,
        1,
        "started on here (commit: abc): python -m launch.train mine.yaml",
        "WARNING transformers.generation: flags are ignored",
        "warning: nothing asks for a box",
        "[run, $ 1.20 (forecast 3.00)] held-out accuracy after 0 steps: 40.0 % [30.0, 50.0]",
        "[run] step 7/50  reward 2.7",
        "[run] WARNING: The learner is lost and is rebuilt from the last checkpoint: rank 0 died.",
        "error: the disk is full",
    )
    log(
        tmp_path,
        2,
        "[run] resuming from step 4",
        "[run] starting the engines",
        "[run] WARNING: Step 5: 3 were not judged.",
        "[run] WARNING: Guard: the entropy was 3 over steps 4 to 5: the run goes back to the checkpoint of step 4.",
    )
    events = EventLog(tmp_path)
    events.update()
    found = [(event.kind, event.attempt, event.step) for event in events.events]
    kinds = ["start", "library", "warning", "evaluation", "loss", "error", "start", "warning", "decision"]
    assert found == list(zip(kinds, [1] * 6 + [2] * 3, [0, 0, 0, 0, 7, 7, 4, 4, 4], strict=True))
    assert events.events[4].text == "The learner is lost and is rebuilt from the last checkpoint: rank 0 died."


def test_a_growing_log_is_read_on_and_a_torn_line_waits(tmp_path: Path) -> None:
    log(tmp_path, 1, "error: one")
    path = tmp_path / "attempts" / "001" / "log.txt"
    events = EventLog(tmp_path)
    events.update()
    with path.open("a") as file:
        file.write("2026-01-01T00:00:09.000+00:00 error: t")
    events.update()
    assert [event.text for event in events.events] == ["one"]
    with path.open("a") as file:
        file.write("wo\n")
    events.update()
    events.update()
    assert [event.text for event in events.events] == ["one", "two"]


def test_lines_of_one_message_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "attempts" / "001" / "log.txt"
    path.parent.mkdir(parents=True)
    path.write_text("2026-01-01T00:00:01.000+00:00 [run] WARNING: one\n2026-01-01T00:00:01.000+00:00   and more\n")
    events = EventLog(tmp_path)
    events.update()
    assert [event.text for event in events.events] == ["one\n  and more"]


def test_the_newest_events_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    log(tmp_path, 1, *(f"error: {number}" for number in range(MOST_EVENTS + 20)))
    events = EventLog(tmp_path)
    events.update()
    assert events.as_json()["left_out"] == 20 and len(events.events) == MOST_EVENTS
    assert events.events[-1].text == str(MOST_EVENTS + 19)
