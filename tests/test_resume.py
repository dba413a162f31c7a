"""Kill it anywhere, resume it, and end with the same bits: the real command, really killed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from commands import assert_all_gone, descendants, finish, result, start, steps_done, tail, wait_until, write_recipe
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrs_ray.attempts import read_attempts
from openrs_ray.checkpoints import CheckpointStore
from openrs_ray.metrics import read_metrics
from openrs_ray.record import check_accounting, current_rows

STEPS = 6


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = CheckpointStore(run / "checkpoints").checkpoints()[-1]
    assert checkpoint.step == STEPS
    return load_file(checkpoint.policy / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    recipe = write_recipe(folder / "recipe.yaml", toy_folder, folder, "run", STEPS)
    log = folder / "log"
    assert finish(start([str(recipe)], log), log) == 0, tail(log)
    return folder / "run"


def assert_same_as(unbroken: Path, run: Path) -> None:
    expected, found = final_weights(unbroken), final_weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    accounting = check_accounting(run, problems_per_step=4, completions_per_problem=4)
    assert accounting.exact and accounting.steps == STEPS and accounting.completions == STEPS * 16


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_driver_killed_in_the_middle_of_a_push(unbroken: Path, tmp_path: Path, toy_folder: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(["5", str(recipe)], log, script="killed_in_push.py")  # push 5 brings version 4: step 3 is done
    wait_until(lambda: steps_done(run) == 3, 300, process, log)
    family = descendants(process)
    assert finish(process, log) == -signal.SIGKILL
    assert_all_gone(family)

    process = start([str(recipe), "--resume"], log)
    assert finish(process, log) == 0, tail(log)
    assert read_attempts(run) == {1: 0, 2: 2}
    assert_same_as(unbroken, run)


def kill(process: subprocess.Popen[bytes], victim: str) -> None:
    """SIGKILL to the run's process of that name."""
    family = descendants(process)
    named = [member for member in family if victim in " ".join(member.cmdline())]
    assert named, f"no {victim} among {[member.name() for member in family]}"
    named[0].kill()


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_killed_learner_rank_costs_no_bit(unbroken: Path, tmp_path: Path, toy_folder: Path) -> None:
    """Killed before the first checkpoint, and between two: rebuilt from there, the steps since trained again from the record."""
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    for after in (1, 5):
        wait_until(lambda after=after: steps_done(run) >= after, 300, process, log)  # type: ignore[misc]
        kill(process, "SendingRank")
    assert finish(process, log) == 0, tail(log)
    assert tail(log).count("the learner is lost and is rebuilt") == 2 and read_attempts(run) == {1: 0}
    assert_same_as(unbroken, run)


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("staleness", [0, 1])
def test_every_actor_killed_in_turn_and_then_asked_to_stop(tmp_path: Path, toy_folder: Path, staleness: int) -> None:
    steps = 10
    changes = {"rollout": {"staleness": staleness}, "push": {"deadline_s": 30}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", steps, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    for after, victim in enumerate(("EngineCore", "SendingRank", "RolloutWorker", "RewardPool"), start=1):
        wait_until(lambda after=after: steps_done(run) >= after, 300, process, log)  # type: ignore[misc]
        kill(process, victim)
    wait_until(lambda: steps_done(run) >= 6, 300, process, log)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal: to the driver and everything it started
    assert finish(process, log) == 128 + signal.SIGINT, tail(log)
    assert "stopped after step" in tail(log) and "Traceback" not in tail(log)

    assert finish(start([str(recipe), "--resume"], log), log) == 0, tail(log)
    assert set(read_attempts(run)) == {1, 2}
    accounting = check_accounting(run, problems_per_step=4, completions_per_problem=4, staleness=staleness)
    assert accounting.exact and accounting.steps == steps and accounting.completions == steps * 16, accounting


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    unbroken: Path, tmp_path: Path, toy_folder: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS)
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(unbroken, run)
    (run / "result.json").unlink()
    newest = CheckpointStore(run / "checkpoints").checkpoints()[-1]
    victim = max((newest.folder / "state").rglob("*.pt"), key=lambda file: file.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert finish(start([str(recipe), "--resume"], log), log) == 0, tail(log)
    assert "step-000006 is damaged" in tail(log) and victim.name in tail(log)
    assert read_attempts(run) == {1: 0, 2: 4}
    assert_same_as(unbroken, run)


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_a_run_whose_push_gets_lost_stops_there(tmp_path: Path, toy_folder: Path) -> None:
    changes = {"learner": {"learning_rate": 1e-6, "warmup_share": 0.0, "schedule": "constant"}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    log = tmp_path / "log"
    assert finish(start([str(recipe)], log, script="lost_push.py"), log) == 1
    assert "the push of policy version 1 did not arrive" in tail(log) and "Traceback" not in tail(log)
    assert steps_done(tmp_path / "run") == 0


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_engines_that_sleep_while_the_learner_works_change_nothing(
    unbroken: Path, tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over a resume: the engines forget their weights in every sleep and get them back by the push that follows."""
    monkeypatch.setenv("ENGINES_ASLEEP", str(tmp_path / "asleep"))
    changes = {"placement": {"colocated": True}, "rollout": {"sleep_while_learning": True}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    run, log, script = tmp_path / "run", tmp_path / "log", "forgetful_engines.py"
    process = start([str(recipe)], log, script=script)
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    family = descendants(process)
    process.kill()
    assert_all_gone(family)
    (tmp_path / "asleep").unlink(missing_ok=True)
    assert finish(start([str(recipe), "--resume"], log, script=script), log) == 0, tail(log)
    assert_same_as(unbroken, run)


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
@pytest.mark.parametrize("resumed_staleness", [2, 0])
def test_an_asynchronous_run_counts_everything_once(tmp_path: Path, toy_folder: Path, resumed_staleness: int) -> None:
    """Killed in the middle, resumed as it was or synchronous: every position is trained on once, no token was too old."""
    steps, changes = (
        8,
        {"rollout": {"staleness": 2}, "placement": {"num_rollout_gpus": 2}, "checkpoint": {"every_steps": 1}},
    )
    changes["rollout"]["replace_uniform_groups"] = 1
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", steps, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    wait_until(lambda: steps_done(run) >= 4, 300, process, log)
    family = descendants(process)
    process.kill()
    assert_all_gone(family)
    again = [str(recipe), "--resume", "--rollout.staleness", str(resumed_staleness)]
    assert finish(start(again, log), log) == 0, tail(log)
    accounting = check_accounting(run, problems_per_step=4, completions_per_problem=4)
    assert accounting.exact and accounting.steps == steps and accounting.completions == steps * 16
    assert accounting.replaced > 0
    rows = current_rows(run, columns=["step", "versions"]).to_pylist()
    ages = [row["step"] - 1 - span["version"] for row in rows for span in row["versions"]]
    assert max(ages) == 2 and min(ages) == 0


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_the_same_groups_are_replaced_after_a_kill(tmp_path: Path, toy_folder: Path) -> None:
    """A learner rank killed, whose steps are trained again from the record, then the driver: no bit differs, all is counted."""
    changes, log = {"rollout": {"replace_uniform_groups": 2}}, tmp_path / "log"
    recipes = [
        write_recipe(tmp_path / name, toy_folder, tmp_path, name.removesuffix(".yaml"), STEPS, **changes)
        for name in ("unbroken.yaml", "killed.yaml")
    ]
    assert finish(start([str(recipes[0])], log), log) == 0, tail(log)
    run = tmp_path / "killed"
    process = start([str(recipes[1])], log)
    wait_until(lambda: steps_done(run) >= 1, 300, process, log)
    kill(process, "SendingRank")
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    family = descendants(process)
    process.kill()
    assert_all_gone(family)
    assert finish(start([str(recipes[1]), "--resume"], log), log) == 0, tail(log)

    assert_same_as(tmp_path / "unbroken", run)
    columns = ["step", "position", "sample", "token_ids", "reward", "advantage"]
    replaced, expected = (
        current_rows(folder, "replaced", columns).to_pylist() for folder in (run, tmp_path / "unbroken")
    )
    assert replaced == expected and {row["advantage"] for row in replaced} == {None}
    groups = {
        row["position"]: {other["reward"] for other in replaced if other["position"] == row["position"]}
        for row in replaced
    }
    assert groups and all(len(rewards) == 1 for rewards in groups.values())
    found = [line["replaced_groups"] for line in read_metrics(tmp_path / "unbroken") if "replaced_groups" in line]
    assert len(found) == STEPS and sum(found) == len(groups) and min(found) < 8, (
        "in some step, there were enough with spread"
    )


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_the_exported_policy_is_a_plain_transformers_model(unbroken: Path, toy_folder: Path) -> None:
    folder = CheckpointStore(unbroken / "checkpoints").checkpoints()[-1].policy
    trained, untrained = AutoModelForCausalLM.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(toy_folder)
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), untrained.parameters(), strict=True)), (
        "training must have changed the weights"
    )
    ours, theirs = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(toy_folder)
    assert ours.get_vocab() == theirs.get_vocab() and ours.chat_template == theirs.chat_template
    assert result(unbroken)["step"] == STEPS
