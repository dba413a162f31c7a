"""A real run's trace: every process and stage is in it, the stages add up to the step, and a slow reward pool is found out."""

import json
from pathlib import Path
from urllib.request import urlopen

import pytest
from commands import finish, start, tail, wait_until, write_recipe

from launch.trace import diagnosis, main
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.trace import read_trace, steps_of

STEPS = 5
STAGES = {
    "driver": {"take", "admit", "group", "rollout", "judge", "train", "pack", "push", "probe", "write", "save", "step"},
    "engine": {"admit", "queue", "prefill", "decode", "begin_push", "receive_bucket", "load", "end_push", "score"},
    "learner": {"forward_backward", "optimizer", "pack_bucket", "send_bucket", "score", "save", "export"},
    "rewards": {"judge"},
}


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
def test_a_slow_reward_pool_is_found_in_the_trace(
    tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = {"push": {"probe_every": 1, "probe_tolerance": 1e-3}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **sections)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe), "--page"], log, script="slow_rewards.py")
    wait_until(lambda: "page: http" in log.read_text(), 60, process, log)
    address = log.read_text().partition("page: ")[2].split()[0]
    wait_until(lambda: "step 2/5" in log.read_text(), 300, process, log)
    with urlopen(f"{address}data/runs") as answer:
        (shown,) = json.load(answer)["runs"]
    assert shown["state"] == "training" and shown["curves"]["step"][:1] == [1] and shown["faults"] == []
    assert finish(process, log) == 0, tail(log)
    assert address not in (run / "attempts" / "001" / "log.txt").read_text()
    with pytest.raises(OSError):  # the page has gone with the run
        urlopen(address)

    events = read_trace(run)
    for kind, names in STAGES.items():
        assert names <= {event.name for event in events if event.kind == kind}, kind
    steps = steps_of(events)
    assert [step.number for step in steps] == list(range(1, STEPS + 1))
    assert diagnosis(steps).startswith("The reward pool bounds the step: ")
    for step, line in zip(steps, read_metrics(run), strict=True):
        causes = step.causes()
        assert causes["verdicts"] > 1.5 and causes["other"] < 0.05 * step.seconds
        measured = {"take": line["collect_s"], "train": line["train_s"], "push": line["push_s"]}
        for stage, seconds in measured.items():  # the push's figure is without its probe
            assert seconds - 0.05 <= step.stage(stage) <= seconds + (0.5 if stage == "push" else 0.05), stage
        decoded = step.of("decode")
        assert {(event.attributes["position"], event.attributes["sample"]) for event in decoded} == {
            (position, sample) for position in step.positions for sample in range(4)
        }
        (take,) = step.of("take")
        for name in ("queue", "prefill", "decode"):  # an engine's clock is the driver's
            assert all(take.start <= event.start <= event.end <= take.end for event in step.of(name)), name
    assert main([str(run), "--step", "3", "--perfetto", str(tmp_path / "trace.json")]) == 0
    assert "- decode | engine" in capsys.readouterr().out
