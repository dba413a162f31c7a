"""A run that is killed at any point and resumed ends with the same bits: the real command, really killed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from commands import (
    assert_all_gone,
    descendants,
    finish,
    named,
    power_cut,
    result,
    start,
    steps_done,
    tail,
    wait_until,
    write_recipe,
)
from peft import PeftModel
from recorded import recorded_gaps
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from launch.audit import main as audit
from launch.coverage import main as prove
from launch.export import main as export
from openrs_ray.cluster.disk import checkpoint_parts
from openrs_ray.config.schema import RunConfig
from openrs_ray.run.attempts import AttemptSettings, read_attempts, read_settings_of_attempts
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completions import current_rows
from openrs_ray.run.coverage import check_coverage
from openrs_ray.run.metrics import read_metrics

STEPS = 6
UNWRITABLE = '{"do_sample": false, "temperature": 0.6, "eos_token_id": 1}'
"""A generation config that transformers reads, but would refuse to write with an exported policy."""


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = CheckpointStore(run / "checkpoints").checkpoints()[-1]
    assert checkpoint.step == STEPS
    return load_file(checkpoint.policy / "model.safetensors")


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("start") / "model"
    shutil.copytree(toy_folder, folder)
    (folder / "generation_config.json").write_text(UNWRITABLE)
    return folder


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    recipe = write_recipe(folder / "recipe.yaml", toy_folder, folder, "run", STEPS)
    log = folder / "log"
    assert finish(start([str(recipe)], log), log) == 0, tail(log)
    assert "warning: nothing in the prompts asks for \\boxed{}" in log.read_text()
    return folder / "run"


def assert_same_as(unbroken: Path, run: Path) -> None:
    expected, found = final_weights(unbroken), final_weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    coverage = check_coverage(run, problems_per_step=4, completions_per_problem=4)
    assert coverage.exact and coverage.steps == STEPS and coverage.completions == STEPS * 16
    assert prove([str(run)]) == 0, "and every row can be true"
    assert audit([str(run)]) == 0, "and follows from the others, in a chain that no kill has broken"


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_driver_killed_in_the_middle_of_a_push(unbroken: Path, tmp_path: Path, toy_folder: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(["5", str(recipe)], log, script="killed_in_push.py")  # push 5 brings version 4: step 3 is done
    wait_until(lambda: steps_done(run) >= 2, 300, process, log)
    family = descendants(process)
    assert finish(process, log) == -signal.SIGKILL
    assert_all_gone(family)

    process = start([str(recipe), "--resume"], log)
    assert finish(process, log) == 0, tail(log)
    assert read_attempts(run) == {1: 0, 2: 2}
    assert_same_as(unbroken, run)


def kill(process: subprocess.Popen[bytes], victim: str) -> None:
    """SIGKILL to the run's process of that name."""
    named(process, victim).kill()


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_killed_learner_rank_costs_no_bit(unbroken: Path, tmp_path: Path, toy_folder: Path) -> None:
    """Killed before the first checkpoint, and between two: rebuilt from there, the steps since trained again from the record."""
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    for after in (1, 5):
        wait_until(lambda after=after: steps_done(run) >= after, 300, process, log)  # type: ignore[misc]
        kill(process, "LearnerRank")
    assert finish(process, log) == 0, tail(log)
    assert log.read_text().count("The learner is lost and is rebuilt") == 2 and read_attempts(run) == {1: 0}
    assert_same_as(unbroken, run)


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(1500)
def test_every_process_killed_in_turn_and_then_asked_to_stop(tmp_path: Path, toy_folder: Path) -> None:
    """One of two learner ranks and the driver among them; the command goes on by itself until somebody wants it to end.

    The optimizer and the reference are in the host's memory.
    """
    steps = 12
    changes = {
        "placement": {"num_learner_gpus": 2},
        "push": {"deadline_s": 30},
        "checkpoint": {"every_steps": 1},
        "learner": {"optimizer": "adamw_offload", "offload_reference": True},
        "loss": {"kl_beta": 0.001},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", steps, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe), "--restart"], log)
    for victim in ("EngineCore", "LearnerRank", "RolloutWorker", "RewardPool", "launch.train"):
        before = steps_done(run)
        wait_until(lambda before=before: steps_done(run) > before, 300, process, log)  # type: ignore[misc]
        kill(process, victim)
    wait_until(lambda: len(read_attempts(run)) == 2 and steps_done(run) >= 7, 300, process, log)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process, log) == 128 + signal.SIGINT, tail(log)
    said = log.read_text()
    assert "stopped after step" in said and "Traceback" not in said

    assert finish(start([str(recipe), "--resume"], log), log) == 0, tail(log)
    assert set(read_attempts(run)) == {1, 2, 3}
    coverage = check_coverage(run, problems_per_step=4, completions_per_problem=4)
    assert coverage.exact and coverage.steps == steps and coverage.completions == steps * 16, coverage


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_a_run_goes_on_with_another_number_of_learner_ranks(tmp_path: Path, toy_folder: Path) -> None:
    """With 8-bit moments, which are rounded anew."""
    changes = {"learner": {"optimizer": "adamw_8bit"}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    process = start([str(recipe)], log)
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    power_cut(process)

    process = start([str(recipe), "--resume", "--placement.num_learner_gpus", "2"], log)
    assert finish(process, log) == 0, tail(log)
    assert set(read_attempts(run)) == {1, 2} and read_attempts(run)[2] >= 2
    coverage = check_coverage(run, problems_per_step=4, completions_per_problem=4)
    assert coverage.exact and coverage.steps == STEPS and coverage.completions == STEPS * 16
    newest = CheckpointStore(run / "checkpoints").checkpoints()[-1]
    assert newest.step == STEPS and sum("optim_states" in file.path for file in newest.files) == 2
    assert not list((run / "checkpoints").glob("*.tmp"))


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
    said = log.read_text()
    assert "step-000006 is damaged" in said and victim.name in said
    assert read_attempts(run) == {1: 0, 2: 4}
    assert_same_as(unbroken, run)


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_a_run_whose_push_gets_lost_stops_there(tmp_path: Path, toy_folder: Path) -> None:
    changes = {"learner": {"learning_rate": 1e-6, "warmup_share": 0.0, "schedule": "constant"}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    log = tmp_path / "log"
    assert finish(start([str(recipe)], log, script="lost_push.py"), log) == 1
    said = log.read_text()
    assert "The push of policy version 1 did not arrive" in said and "Traceback" not in said
    assert steps_done(tmp_path / "run") == 0


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_engines_that_sleep_while_the_learner_works_change_nothing(
    unbroken: Path, tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engines forget all they know in every sleep, and get it back by the push that follows; a rank and the driver die."""
    monkeypatch.setenv("ENGINES_ASLEEP", str(tmp_path / "asleep"))
    changes = {"placement": {"colocated": True}, "rollout": {"sleep_while_learning": True}}
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", STEPS, **changes)
    run, log, script = tmp_path / "run", tmp_path / "log", "forgetful_engines.py"
    process = start([str(recipe)], log, script=script)
    wait_until(lambda: steps_done(run) >= 1, 300, process, log)
    kill(process, "AloneRank")
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    assert "The learner is lost and is rebuilt" in log.read_text()
    power_cut(process)
    (tmp_path / "asleep").unlink(missing_ok=True)
    assert finish(start([str(recipe), "--resume"], log, script=script), log) == 0, tail(log)
    assert_same_as(unbroken, run)


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_an_asynchronous_run_counts_everything_once(tmp_path: Path, toy_folder: Path) -> None:
    """Killed twice, resumed as it was and then synchronous: every position is trained on once, no token was too old."""
    steps, changes = (
        10,
        {"rollout": {"staleness": 2}, "placement": {"num_rollout_gpus": 2}, "checkpoint": {"every_steps": 1}},
    )
    changes["rollout"]["replace_uniform_groups"] = 1
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", steps, **changes)
    run, log = tmp_path / "run", tmp_path / "log"
    for enough, more in ((4, []), (7, ["--resume"])):
        process = start([str(recipe), *more], log)
        wait_until(lambda enough=enough: steps_done(run) >= enough, 300, process, log)  # type: ignore[misc]
        power_cut(process)
    assert finish(start([str(recipe), "--resume", "--rollout.staleness", "0"], log), log) == 0, tail(log)
    coverage = check_coverage(run, problems_per_step=4, completions_per_problem=4)
    assert coverage.exact and coverage.steps == steps and coverage.completions == steps * 16
    assert coverage.replaced > 0
    noted = read_settings_of_attempts(run, AttemptSettings(99, 0, likelihoods=True, without_truncated=False))
    assert [noted[attempt].staleness for attempt in (1, 2, 3)] == [2, 2, 0]
    assert prove([str(run)]) == 0, "each row by what its own attempt allowed"
    rows = current_rows(run, columns=["step", "versions"]).to_pylist()
    ages = [row["step"] - 1 - span["version"] for row in rows for span in row["versions"]]
    assert max(ages) == 2 and min(ages) == 0


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
def test_adapters_and_replaced_groups_are_the_same_after_a_kill(tmp_path: Path, toy_folder: Path) -> None:
    """A learner rank killed, whose steps are trained again from the record, then the driver: no bit differs, all is counted."""
    lora = {"lora": {"rank": 8}, "learning_rate": 1e-3, "zero_stage": 2}
    changes, log = (
        {"rollout": {"replace_uniform_groups": 2}, "learner": lora, "loss": {"kl_beta": 0.01}},
        tmp_path / "log",
    )
    recipes = [
        write_recipe(tmp_path / name, toy_folder, tmp_path, name.removesuffix(".yaml"), STEPS, **changes)
        for name in ("unbroken.yaml", "killed.yaml")
    ]
    assert finish(start([str(recipes[0])], log), log) == 0, tail(log)
    run = tmp_path / "killed"
    process = start([str(recipes[1])], log)
    wait_until(lambda: steps_done(run) >= 1, 300, process, log)
    kill(process, "LearnerRank")
    wait_until(lambda: steps_done(run) >= 3, 300, process, log)
    power_cut(process)
    assert finish(start([str(recipes[1]), "--resume"], log), log) == 0, tail(log)

    assert_same_as(tmp_path / "unbroken", run)
    assert_adapted(run, toy_folder)
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


def assert_adapted(run: Path, start_model: Path) -> None:
    """The policy is the start model with its adapter, by peft; what resumes it is small."""
    checkpoint = CheckpointStore(run / "checkpoints").checkpoints()[-1]
    start, policy = load_file(start_model / "model.safetensors"), load_file(checkpoint.policy / "model.safetensors")
    by_peft = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(start_model, dtype=torch.float64), checkpoint.folder / "adapter",
        autocast_adapter_dtype=False,
    ).merge_and_unload()  # fmt: skip
    for name, weight in by_peft.named_parameters():
        torch.testing.assert_close(policy[name].double(), weight, rtol=0, atol=1e-6)
    moved = {name for name in policy if not torch.equal(policy[name], start[name])}
    assert len(moved) == 7 * by_peft.config.num_hidden_layers and all("_proj.weight" in name for name in moved)
    sizes = {
        part: sum(file.size for file in checkpoint.files if file.path.startswith(part))
        for part in ("policy", "state", "adapter")
    }
    assert sizes["state"] < 4 * sizes["adapter"] + sizes["policy"] / 2, "adapters, master weights, two moments; no base"


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_the_exported_policy_is_a_plain_transformers_model(unbroken: Path, toy_folder: Path) -> None:
    folder = CheckpointStore(unbroken / "checkpoints").checkpoints()[-1].policy
    trained, untrained = AutoModelForCausalLM.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(toy_folder)
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), untrained.parameters(), strict=True)), (
        "training must have changed the weights"
    )
    ours, theirs = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(toy_folder)
    assert (folder / "generation_config.json").read_text() == UNWRITABLE
    assert ours.get_vocab() == theirs.get_vocab() and ours.chat_template == theirs.chat_template
    assert result(unbroken)["step"] == STEPS


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_an_export_gives_the_log_probabilities_that_the_engine_recorded(unbroken: Path, tmp_path: Path) -> None:
    """The completions of step 5 were sampled by the policy of step 4."""
    assert export([str(unbroken), "--step", "4", "--folder", str(tmp_path / "model")]) == 0
    readme = CheckpointStore(unbroken / "checkpoints").checkpoints()[-1].policy / "README.md"
    assert "How to prompt it" in readme.read_text()
    rows = [row for row in current_rows(unbroken).to_pylist() if row["step"] == 5]
    gaps = recorded_gaps(tmp_path / "model", rows, torch.float32)
    assert len(rows) == 16 and gaps.max() < 1e-3
    other = CheckpointStore(unbroken / "checkpoints").checkpoints()[-1].policy
    assert recorded_gaps(other, rows, torch.float32).max() > 10 * gaps.max(), "another step's policy would be seen"


@pytest.mark.slow
@pytest.mark.cpu_engine
def test_a_checkpoint_takes_the_room_that_was_planned_and_all_may_read_it(unbroken: Path) -> None:
    checkpoint = CheckpointStore(unbroken / "checkpoints").checkpoints()[-1]
    config = RunConfig.model_validate_json((unbroken / "config.json").read_text())
    parameters = sum(tensor.numel() for tensor in load_file(checkpoint.policy / "model.safetensors").values())
    planned = checkpoint_parts(config, parameters)["one being written"]
    assert planned == pytest.approx(checkpoint.size, rel=0.25), "state and policy; the rest is of a toy's size"
    umask = (unbroken / "config.json").stat().st_mode & 0o666
    files = [path for path in unbroken.rglob("*") if path.is_file()]
    assert files and all(path.stat().st_mode & 0o666 == umask for path in files)
