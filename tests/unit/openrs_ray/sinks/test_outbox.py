"""A service that fails, hangs or loses its network: the run goes on at once, says so once, and says what was not sent."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.sinks.outbox import Outbox
from openrs_ray.sinks.sink import SampleRow, SinkRun, sample_rows
from openrs_ray.sinks.sinks import Sinks


class Service:
    """A fake one; `down` says how it fails."""

    def __init__(self, down: Callable[[str, int], None] = lambda call, step: None) -> None:
        self.down = down
        self.calls: list[tuple[str, int]] = []
        self.figures: dict[int, dict[str, float]] = {}
        self.runs: list[SinkRun] = []
        self.where = "http://service/run-1"
        self.threads: set[str] = set()

    def open(self, run: SinkRun) -> str:
        self.down("open", -1)
        self.runs.append(run)
        return run.remote or "run-1"

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        self.threads.add(threading.current_thread().name)
        self.down("metrics", step)
        self.calls.append(("metrics", step))
        self.figures[step] = dict(figures)

    def samples(self, step: int, phase: str, rows: Sequence[SampleRow]) -> None:
        self.down("samples", step)
        self.calls.append((phase, step))

    def close(self) -> None:
        self.down("close", -1)
        self.calls.append(("close", -1))


class Box:
    def __init__(self, folder: Path, service: Service, most: int = 1000) -> None:
        self.told: list[str] = []
        self.warned: list[str] = []
        run = SinkRun("mine", {"run": {"steps": 3}}, folder, "")
        self.box = Outbox(
            "service", lambda: service, run, self.told.append, self.warned.append, most=most, pause_s=0.01
        )

    def metrics(self, *steps: int) -> None:
        for step in steps:
            self.box.metrics(step, "train", {"train/reward": float(step)})

    def close(self, seconds: float = 5.0) -> str:
        return self.box.close(time.monotonic() + seconds)


def test_everything_arrives_in_order_from_a_thread_of_its_own(tmp_path: Path) -> None:
    service = Service()
    box = Box(tmp_path, service)
    box.metrics(1, 2)
    box.box.samples(2, "evaluation", [])
    box.metrics(3)
    assert box.close() == "" and not box.warned
    assert service.calls == [("metrics", 1), ("metrics", 2), ("evaluation", 2), ("metrics", 3), ("close", -1)]
    assert service.threads == {"sink service"}
    assert box.told == ["service: http://service/run-1"]


def test_a_resumed_run_goes_on_with_the_same_remote_run(tmp_path: Path) -> None:
    first, second = Service(), Service()
    for service in (first, second):
        box = Box(tmp_path, service)
        box.metrics(1)
        assert box.close() == ""
    assert [run.remote for run in (*first.runs, *second.runs)] == ["", "run-1"]


def test_a_network_that_comes_back_gets_all_that_was_left(tmp_path: Path) -> None:
    away = threading.Event()

    def down(call: str, step: int) -> None:
        if away.is_set() and call != "close":
            raise ConnectionError("no route to host")

    service = Service(down)
    box = Box(tmp_path, service)
    box.metrics(1)
    wait_until(lambda: ("metrics", 1) in service.calls)
    away.set()
    began = time.monotonic()
    box.metrics(*range(2, 500))
    assert time.monotonic() - began < 0.5, "nobody waits for it"
    wait_until(lambda: bool(box.warned))
    time.sleep(0.1)
    away.clear()
    assert box.close() == ""
    assert [step for call, step in service.calls if call == "metrics"] == list(range(1, 500))
    assert len(box.warned) == 1 and "no route to host" in box.warned[0]


@pytest.mark.parametrize("away_from", [1, 3])
def test_a_resumed_run_sends_what_the_service_missed_before_a_kill(
    away_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from system import system_config

    def away(call: str, step: int) -> None:
        if away_from == 1 or step >= away_from:
            raise ConnectionError("no route")

    services = [Service(away), Service(), Service()]
    monkeypatch.setattr("openrs_ray.sinks.outbox._NOTE_S", 0.0)
    begun, killed = iter(services), list[Sinks]()
    monkeypatch.setattr("openrs_ray.sinks.sinks.new_sink", lambda name: next(begun))
    config = system_config(tmp_path, Path("/m"), run={"sinks": ["mlflow"]})
    config.run.path.mkdir(parents=True)
    for steps, service, expected in (
        (range(1, 7), services[0], [*range(1, away_from)]),
        (range(5, 8), services[1], [*range(away_from, 8)]),  # killed, and resumed from step 4
        (range(8, 9), services[2], [8]),
    ):
        attempt = start_attempt(config.run.path, steps[0] - 1)
        sinks = Sinks.of(config, attempt, lambda text: None, lambda text: None, steps[0] - 1)
        log = MetricsLog(config.run.path, attempt, sinks)
        for step in steps:
            log.write(step, {"reward": float(attempt)})
        log.close()
        if service is services[0]:
            deadline = time.monotonic() + 20
            while len(service.figures) < len(expected):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            killed.append(sinks)
            continue
        assert sinks.close() == []
        assert sorted(service.figures) == expected
    assert services[1].figures[4] == {"train/reward": 1.0, "train/attempt": 1.0}
    assert services[1].figures[5]["train/reward"] == 2.0, "a step that was trained again is sent as it counts"
    assert all(sinks.close() for sinks in killed)  # only now, so that its thread ends


def test_figures_of_steps_that_the_run_went_back_behind_do_not_count_as_sent(tmp_path: Path) -> None:
    note = tmp_path / "run.json"
    note.write_text('{"remote": "run-1", "sent": {"step": 100, "evaluation": 40}}')
    for from_step in (50, 80):  # back to 50, away from then on, killed, and resumed from 80
        run = SinkRun("mine", {}, tmp_path, "")
        box = Outbox("service", Service, run, lambda text: None, lambda text: None, from_step=from_step)
        assert box.lacks(51, "train") and not box.lacks(50, "train") and not box.lacks(40, "evaluation")
        assert box.close(time.monotonic() + 5) == ""
    assert json.loads(note.read_text())["sent"] == {"step": 50, "evaluation": 40}


def test_what_answers_after_the_end_sends_nothing_more(tmp_path: Path) -> None:
    answer = threading.Event()

    def hang(call: str, step: int) -> None:
        if call == "metrics" and step == 1:
            answer.wait(20)

    service = Service(hang)
    box = Box(tmp_path, service)
    box.metrics(1, 2, 3)
    assert "was not sent 3 steps (1 to 3)" in box.close(0.2)
    answer.set()
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("sink ")])
    assert service.calls == [("metrics", 1)] and json.loads((tmp_path / "run.json").read_text())["sent"] == {}


def test_of_an_older_version_nobody_knows_what_was_sent(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"remote": "run-1"}')
    box = Box(tmp_path, Service())
    assert not box.box.lacks(1, "train")
    box.metrics(1)
    assert box.close() == "" and json.loads((tmp_path / "run.json").read_text()) == {
        "remote": "run-1",
        "sent": {"step": 1},
    }


def test_a_service_that_is_never_there_costs_nothing_and_is_reported_at_the_end(tmp_path: Path) -> None:
    def down(call: str, step: int) -> None:
        raise SystemExit(1) if call == "open" else AssertionError

    box = Box(tmp_path, Service(down))
    box.metrics(48, 49, 50)
    box.box.metrics(50, "evaluation", {"evaluation/accuracy": 0.5})
    said = box.close()
    assert said == (
        "service was not sent 3 steps (48 to 50), 1 evaluation (50): metrics.jsonl and completions/ in the run's folder "
        "have them"
    )
    assert len(box.warned) == 1 and "SystemExit" in box.warned[0]
    assert not (tmp_path / "run.json").exists()


def test_one_message_that_is_refused_does_not_keep_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs_ray.sinks.outbox._TRIES", 3)

    def down(call: str, step: int) -> None:
        if step == 2:
            raise ValueError("no such column")

    service = Service(down)
    box = Box(tmp_path, service)
    box.metrics(1, 2, 3)
    wait_until(lambda: ("metrics", 3) in service.calls)
    assert box.close().startswith("service was not sent 1 step (2):")


def test_a_service_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    ever = threading.Event()
    box = Box(tmp_path, Service(lambda call, step: call == "metrics" and ever.wait(60)))  # type: ignore[arg-type, func-returns-value]
    box.metrics(1, 2)
    began = time.monotonic()
    said = box.close(0.3)
    assert 0.2 < time.monotonic() - began < 2.0
    assert said.startswith("service was not sent 2 steps (1 to 2)")
    ever.set()


def test_one_that_hangs_at_the_end_is_said_not_to_have_confirmed(tmp_path: Path) -> None:
    ever = threading.Event()
    box = Box(tmp_path, Service(lambda call, step: call == "close" and ever.wait(60)))  # type: ignore[arg-type, func-returns-value]
    box.metrics(1)
    assert box.close(0.5) == "service did not confirm in time that everything arrived"
    ever.set()


def test_one_that_fails_at_the_end_is_said_not_to_have_confirmed(tmp_path: Path) -> None:
    def down(call: str, step: int) -> None:
        if call == "close":
            raise TimeoutError("the upload takes too long")

    box = Box(tmp_path, Service(down))
    box.metrics(1)
    assert box.close() == "service did not confirm in time that everything arrived"


def test_the_queue_is_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    go = threading.Event()
    service = Service(lambda call, step: call == "open" and go.wait(10))  # type: ignore[arg-type, func-returns-value]
    box = Box(tmp_path, service, most=10)
    box.metrics(*range(1, 101))
    go.set()
    assert box.close() == (
        "service was not sent 90 steps (2 to 91): metrics.jsonl and completions/ in the run's folder have them"
    )
    assert [step for call, step in service.calls if call == "metrics"] == [1, *range(92, 101)]


def test_secrets_leave_neither_in_the_config_nor_in_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_config: Any = None
) -> None:
    from system import system_config

    service = Service()
    monkeypatch.setattr("openrs_ray.sinks.sinks.new_sink", lambda name: service)
    secret = "hf_" + "x" * 20
    config = system_config(tmp_path, Path("/models/tiny"), run={"sinks": "mlflow"}, data={"suffix": f"token {secret}"})
    sinks = Sinks.of(config, 2, lambda text: None, lambda text: None)
    sinks.metrics(1, "train", {"reward": 1.0, "kl": None, "step_s": 2})
    assert sinks.close() == []
    (run,) = service.runs
    assert secret not in json.dumps(run.config) and run.config["run"]["steps"] == 3 and run.config["attempt"] == 2
    assert service.figures == {1: {"train/reward": 1.0, "train/step_s": 2.0}}


def test_a_secret_within_an_address_leaves_the_rest_of_the_config_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from system import system_config

    service = Service()
    monkeypatch.setattr("openrs_ray.sinks.sinks.new_sink", lambda name: service)
    suffix = " See http://host/v1?api_key=abcdefgh"  # the last word of its field
    config = system_config(tmp_path, Path("/models/tiny"), run={"sinks": "mlflow"}, data={"suffix": suffix})
    assert Sinks.of(config, 0, lambda text: None, lambda text: None).close() == []
    (run,) = service.runs
    assert run.config["data"]["suffix"] == " See http://host/v1?api_key=***"
    assert {**run.config["data"], "suffix": suffix} == config.model_dump(mode="json")["data"]


def test_samples_are_taken_of_evaluations_and_every_tenth_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from system import system_config

    service = Service()
    monkeypatch.setattr("openrs_ray.sinks.sinks.new_sink", lambda name: service)
    sinks = Sinks.of(system_config(tmp_path, Path("/m"), run={"sinks": ["wandb"]}), 0, print, print)
    groups = [group(position) for position in range(20)]
    for step in range(1, 22):
        sinks.samples(step, "train", groups)
    sinks.samples(10, "evaluation", groups)
    assert sinks.close() == []
    assert service.calls[:-1] == [("train", 1), ("train", 11), ("train", 21), ("evaluation", 10)]
    rows = sample_rows(7, "evaluation", groups, 16)
    assert len(rows) == 16 and rows[3] == SampleRow(7, "evaluation", "", "3+1", "4", "it is 4", "correct", 2.0, 1)


def group(position: int) -> Group:
    import numpy as np

    completion = Completion(position, 0, np.array([5]), np.zeros(1), "stop", (VersionSpan(0, 0, 1),), 0)
    problem = Problem(position, f"{position}+1", (1,), (str(position + 1),))
    verdict = Verdict(Status.CORRECT, {"accuracy": 1.0}, 2.0)
    return Group(position, problem, (Rollout.of([completion]),), (verdict,), (f"it is {position + 1}",))


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("sink ")])
