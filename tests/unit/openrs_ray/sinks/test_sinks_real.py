"""W&B offline, MLflow's and Trackio's local stores: what two attempts of a run sent, read back by the library itself.

Skipped where a library is not installed: none is among the project's dependencies.
"""

import importlib.util
import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from system import system_config

from openrs_ray.errors import UserError
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.sinks.sinks import Sinks, check_sinks

SECRET = "hf_" + "q" * 20


def group(position: int) -> Group:
    completion = Completion(position, 0, np.array([5]), np.zeros(1), "stop", (VersionSpan(0, 0, 1),), 0)
    problem = Problem(position, f"{position}+1", (1,), (str(position + 1),))
    verdict = Verdict(Status.WRONG, {"accuracy": 0.0}, 0.5)
    return Group(position, problem, (Rollout.of([completion]),), (verdict,), (f"it is {position}",))


def two_attempts(folder: Path, name: str) -> list[str]:
    """Steps 1 to 3, then, after a kill, 3 and 4 with another learning rate; returns what was told."""
    told: list[str] = []
    for attempt, steps in enumerate(((1, 2, 3), (3, 4))):
        rate = {"learning_rate": 1e-3 / (1 + attempt)}
        config = system_config(
            folder, Path("/models/tiny"), run={"name": "mine", "sinks": name}, data={"suffix": SECRET}, learner=rate
        )
        sinks = Sinks.of(config, attempt, told.append, told.append)
        for step in steps:
            figures = {"reward": step / 2, "reward_my_rewards.py:brevity": 0.25, "kl": None, "attempt": attempt}
            sinks.metrics(step, "train", figures)
        sinks.metrics(steps[-1], "evaluation", {"accuracy": 0.1 * steps[-1]})
        sinks.samples(steps[-1], "evaluation", [group(position) for position in range(3)])
        told += sinks.close()
    return told


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for variable in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def no_secret_in(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_wandb(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_sinks(["wandb"])
    told = two_attempts(offline, "wandb")
    assert len(told) == 2 and all(line.startswith("wandb: offline, for `wandb sync ") for line in told)
    folders = sorted((offline / "mine" / "sinks" / "wandb" / "wandb").glob("offline-run-*"))
    ids = {folder.name.rpartition("-")[2] for folder in folders}
    assert len(folders) == 2 and len(ids) == 1, "two parts of one remote run"
    history = [row for folder in folders for row in wandb_history(folder)]
    rewards = [(row["step"], row["train/reward"]) for row in history if "train/reward" in row]
    assert rewards == [(1, 0.5), (2, 1.0), (3, 1.5), (3, 1.5), (4, 2.0)]
    assert [row["step"] for row in history if "evaluation/accuracy" in row] == [3, 4]
    assert [row["samples/evaluation/nrows"] for row in history if "samples/evaluation/nrows" in row] == [3, 3], history
    (table,) = folders[0].glob("files/media/table/samples/*.json")
    content = json.loads(table.read_text())
    assert dict(zip(content["columns"], content["data"][1], strict=True))["text"] == "it is 1"
    no_secret_in(offline)


def wandb_history(folder: Path) -> list[dict[str, Any]]:
    """Rows of an offline run, from the file that `wandb sync` reads."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("*.wandb")
    rows = []
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def log_records(content: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format: blocks of 32 KiB of pieces, each with checksum, length and kind before it."""
    place, record = 7, b""  # after W&B's own header
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield record
            record = b""


def test_wandb_without_a_login_is_refused_before_anything_starts(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("NETRC", str(offline / "none"))
    with pytest.raises(UserError, match="nobody is logged in to it: run `wandb login`"):
        check_sinks(["wandb"])


def test_mlflow(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (offline / "store").as_uri())
    check_sinks(["mlflow"])
    told = two_attempts(offline, "mlflow")
    assert len(told) == 2 and told[0] == told[1]
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("openrs_ray").experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert run.data.params["learner.learning_rate"] == "0.001", "as it began; the files have both"
    history = client.get_metric_history(run.info.run_id, "train/reward")
    assert [(each.step, each.value) for each in history] == [(1, 0.5), (2, 1.0), (3, 1.5), (3, 1.5), (4, 2.0)]
    assert run.data.metrics["train/reward_my_rewards.py:brevity"] == 0.25
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert {"config-0.json", "config-1.json", "samples"} <= files
    path = client.download_artifacts(run.info.run_id, "samples/evaluation-000004.json", str(offline))
    assert json.loads(Path(path).read_text())["samples"][2]["text"] == "it is 2"
    no_secret_in(offline)


def test_mlflow_without_a_place_is_refused(offline: Path) -> None:
    pytest.importorskip("mlflow")
    if importlib.util.find_spec("sqlalchemy") is None:  # of mlflow, not of mlflow-skinny
        with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI to a server"):
            check_sinks(["mlflow"])


def test_trackio(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    for module in (utils, sqlite_storage):
        for name in ("TRACKIO_DIR", "MEDIA_DIR"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, offline / "trackio" / ("media" * (name == "MEDIA_DIR")))
    check_sinks(["trackio"])
    told = two_attempts(offline, "trackio")
    assert len(told) == 2 and told[0] == told[1], told
    storage = sqlite_storage.SQLiteStorage
    (name,) = storage.get_runs("openrs_ray")
    assert name.startswith("mine-")
    logs = storage.get_logs("openrs_ray", name)
    assert [(each["step"], each["train/reward"]) for each in logs if "train/reward" in each] == [
        (1, 0.5), (2, 1.0), (3, 1.5), (3, 1.5), (4, 2.0)
    ]  # fmt: skip
    tables = [each["samples/evaluation"] for each in logs if "samples/evaluation" in each]
    assert len(tables) == 2 and math.isclose(tables[0]["_value"][1]["reward"], 0.5)
    no_secret_in(offline)
