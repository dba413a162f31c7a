"""Metrics survive a torn line and superseded attempts; TensorBoard shows each step once."""

import math
from pathlib import Path

from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.metrics import MetricsLog, read_metrics


def log(run: Path, attempt: int, steps: range) -> None:
    metrics = MetricsLog(run, attempt)
    for step in steps:
        metrics.write(step, {"reward": 10.0 * attempt + step})
    metrics.close()


def test_metrics_of_three_attempts_read_as_one_run(tmp_path: Path) -> None:
    log(tmp_path, start_attempt(tmp_path, 0), range(1, 5))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "attempt": 1, "rew')  # killed while writing
    log(tmp_path, start_attempt(tmp_path, 2), range(3, 4))
    log(tmp_path, start_attempt(tmp_path, 3), range(4, 6))
    rewards = {line["step"]: line["reward"] for line in read_metrics(tmp_path)}
    assert rewards == {1: 11.0, 2: 12.0, 3: 23.0, 4: 34.0, 5: 35.0}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = {event.step: event.value for event in events.Scalars("train/reward")}
    assert curve == rewards
    assert len(events.Scalars("train/reward")) == 5


def test_what_json_cannot_say_is_null_and_phases_are_apart(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    metrics = MetricsLog(tmp_path, 1)
    metrics.write(1, {"kl": math.nan, "ratio": math.inf, "reference_kl": None, "tokens": 12})
    metrics.write(1, {"accuracy": 0.25}, phase="evaluation")
    metrics.write(1, {"accuracy": 0.5}, phase="evaluation")
    metrics.close()
    (line,) = read_metrics(tmp_path)
    assert (line["kl"], line["ratio"], line["reference_kl"], line["tokens"]) == (None, None, None, 12)
    assert [line["accuracy"] for line in read_metrics(tmp_path, "evaluation")] == [0.5]


def test_no_metrics_yet(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
