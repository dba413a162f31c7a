"""launch.probe finds what is missing, and nothing it tries outlives its deadline."""

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import save_file

from launch import probe as check_module
from launch.probe import (
    disk_needed,
    gpu_row,
    hub_ids,
    main,
    memory_needed,
    parameters_of,
    sandbox_row,
    sharing_rows,
    token_row,
    torch_row,
)
from openrs_ray.cluster import probes as machine
from openrs_ray.cluster.probes import Gpu, ProbeError
from openrs_ray.common.formatting import GIB
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.sandbox.records import Strength

# nvidia-smi --query-gpu=index,name,driver_version,memory.total,memory.used --format=csv,noheader,nounits
SMI = """0, NVIDIA A40, 580.95.05, 46068, 4
1, NVIDIA A40, 580.95.05, 46068, 4
2, NVIDIA A40, 580.95.05, 46068, 30117
3, NVIDIA A40, 580.95.05, 46068, 4
"""


def config(**sections: dict[str, object]) -> RunConfig:
    content: dict[str, object] = {
        "run": {"name": "r", "steps": 100, "folder": "/runs"},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 8, "completions_per_problem": 4, "max_completion_tokens": 64},
    }
    return RunConfig.model_validate(content | sections)


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.probe", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=150, env=os.environ | {"COLUMNS": "200"}
    )


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="says what a machine without GPUs lacks")
def test_the_command_on_a_machine_without_gpus() -> None:
    good = check("launch/recipes/quickstart.yaml")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "2 processes, equal bytes" in good.stdout  # a real broadcast

    bad = check("launch/recipes/quickstart.yaml", "--placement.device", "gpu")
    assert bad.returncode == 1
    assert "0 of 0 free" in bad.stdout and "missing" in bad.stdout


def test_bad_input_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no/such/recipe.yaml"]) == 2
    assert main([str(ROOT / "launch/recipes/quickstart.yaml"), "--run.stepz", "3"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_every_rank_on_a_gpu_loads_the_weights_by_way_of_the_host() -> None:
    """open-rs3: three ranks of 3.3 GiB each, all at the same time, beside four processes of 4 GiB."""
    recipe = load_config(ROOT / "launch/recipes/open-rs3.yaml", [])
    assert memory_needed(recipe, "gpu", 1_777_088_000) / GIB == pytest.approx(4 * 4 + 3 * 3.31, abs=0.01)
    assert memory_needed(recipe, "gpu", None) == 16 * GIB


def test_gpus_taken_by_others_do_not_count() -> None:
    gpus = machine.parse_gpus(SMI)
    assert gpus[2] == Gpu(2, "NVIDIA A40", "580.95.05", 46068, 30117)
    row = gpu_row(gpus, config())  # 1 + 3
    assert row.verdict == "missing" and "3 of 4 free" in row.found and "GPU 2: 30,117 of 46,068 MiB" in row.found
    assert gpu_row(gpus, config(placement={"num_learner_gpus": 2})).verdict == "ok"
    shared = {"colocated": True, "num_learner_gpus": 3, "num_rollout_gpus": 3}
    rollout = {
        "problems_per_step": 8,
        "completions_per_problem": 4,
        "max_completion_tokens": 64,
    }
    assert gpu_row(gpus, config(placement=shared, rollout=rollout, engine={"gpu_memory_fraction": 0.4})).verdict == "ok"


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what torch without GPUs finds")
def test_gpus_that_torch_does_not_see_are_missing_where_they_are_tried() -> None:
    row = check_module._peer_row(machine.parse_gpus(SMI))
    assert row.verdict == "missing" and "torch sees 0 of the 4 GPUs" in row.found
    assert check_module._broadcast_row(machine.parse_gpus(SMI), "gpu").verdict == "missing"


@pytest.mark.parametrize(
    ("driver", "cuda", "offered", "verdict"),
    [
        ("580.95.05", "13.0", None, "ok"),
        ("570.10", "13.0", None, "missing"),
        ("570.10", "12.8", None, "ok"),
        ("580.95.05", None, None, "missing"),
        ("570.10", "13.0", 12080, "missing"),
        ("570.10", "13.0", 13000, "ok"),  # forward-compatibility libraries
    ],
)
def test_driver_against_torch(driver: str, cuda: str | None, offered: int | None, verdict: str) -> None:
    assert torch_row([Gpu(0, "NVIDIA A40", driver, 46068, 4)], "gpu", "2.13.0", cuda, offered).verdict == verdict


@pytest.mark.parametrize(
    ("mode", "token", "cluster", "verdict"),
    [
        (None, None, False, "ok"),
        (None, "/t", False, "note"),
        ("token", "/t", True, "ok"),
        ("token", None, True, "missing"),
        ("disabled", None, True, "note"),
    ],
)
def test_token(mode: str | None, token: str | None, cluster: bool, verdict: str) -> None:
    assert token_row(mode, token, cluster).verdict == verdict


def test_a_token_that_others_can_read_and_sessions_they_can_write_to() -> None:
    """Both on a path that is open down to the files, as /tmp and a home often are."""
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        session, token = root / "ray" / "session_1", root / "auth_token"
        session.mkdir(parents=True)
        token.write_text("0" * 64)
        for path, mode in ((root, 0o755), (root / "ray", 0o777), (session, 0o777), (token, 0o644)):
            path.chmod(mode)
        readable, writable = sharing_rows(str(token), [session])
        assert readable.verdict == writable.verdict == "note"
        assert readable.mend == f"chmod 600 {token}" and writable.mend == f"chmod 700 {root / 'ray'}"
        (root / "ray").chmod(0o700)  # what it says
        token.chmod(0o600)
        assert not list(sharing_rows(str(token), [session]))
        assert not list(sharing_rows("RAY_AUTH_TOKEN", [])), "a token in the environment is nobody else's to read"
    finally:
        shutil.rmtree(root)


def test_disk_for_a_models_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for part in range(2):
        save_file(
            {f"{part}": torch.zeros(300, 1000, dtype=torch.bfloat16), "b": torch.zeros(7)},
            folder / f"{part}.safetensors",
        )
    parameters = 2 * (300 * 1000 + 7)
    assert machine.count_parameters(folder) == parameters
    saving = {"every_steps": 10, "keep_last": 3}
    # 3 kept, 1 for resuming and 1 being written of 2 + 12 bytes each, and 10 exported policies of 2 bytes.
    assert disk_needed(config(checkpoint=saving), parameters) == parameters * (14 * 5 + 2 * 10)
    assert disk_needed(config(), parameters_of(config(model={"path": "owner/name"}))) is None


def test_a_model_file_that_is_only_a_pointer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    assert main([str(ROOT / "launch/recipes/quickstart.yaml"), "--model.path", str(tmp_path)]) == 1
    assert "git lfs pull" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_only_hub_ids_are_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    mine = config(model={"path": "models/mine"}, data={"path": "data/train.jsonl"}, evaluation={"path": "toy-heldout"})
    assert hub_ids(mine) == []
    for file in ("data/train.csv", "data/train.tsv", "data/train.jsonl.gz", "data/train.json", "data/train.parquet"):
        assert hub_ids(config(model={"path": "models/mine"}, data={"path": file})) == []
    hub = config(
        model={"path": "Qwen/Qwen2.5-0.5B"}, data={"path": "openai/gsm8k"}, evaluation={"path": "openai/gsm8k"}
    )
    assert hub_ids(hub) == [("Qwen/Qwen2.5-0.5B", "model"), ("openai/gsm8k", "dataset")]


def test_a_probe_that_hangs_is_ended_with_its_companions(tmp_path: Path) -> None:
    started = time.monotonic()
    note = tmp_path / "pid"

    def hang() -> None:
        note.write_text(json.dumps(os.getpid()))
        time.sleep(60)

    with pytest.raises(ProbeError, match="no answer within 1 s"):
        machine.together(1.0, [hang, partial(time.sleep, 0)])
    assert time.monotonic() - started < 10
    assert not Path(f"/proc/{json.loads(note.read_text())}").exists()
    assert not multiprocessing.active_children()


def test_a_probe_that_fails_or_dies_says_so() -> None:
    with pytest.raises(ProbeError, match="invalid literal"):
        machine.within(10, lambda: int("x"))
    with pytest.raises(ProbeError, match="died"):
        machine.within(10, partial(os._exit, 3))


def test_the_walls_around_programs() -> None:
    assert sandbox_row(Strength("user", ["namespaces", "other_user", "landlock", "seccomp"])).verdict == "ok"
    weaker = sandbox_row(Strength("process", ["seccomp"]))
    assert (weaker.verdict, weaker.found) == ("note", "seccomp")


def test_ports() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert machine.listening(server.getsockname()[1])
    assert not machine.listening(machine.free_port())
