"""The cluster files pass Ray's own checks, and those checks would catch a mistake in them."""

from typing import Any

import jsonschema
import pytest
import yaml
from places import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

FILES = ("cluster.yaml", "launch/clusters/aws.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    prepared = prepare_config(read(name))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", FILES)
def test_ray_refuses_a_misspelt_key(name: str) -> None:
    config = read(name)
    config["idle_timeout_minute"] = config.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(config))


def test_ray_refuses_an_unknown_head_node_type() -> None:
    config = read("launch/clusters/aws.yaml")
    config["head_node_type"] = "haed"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("name", FILES)
def test_every_node_installs_and_starts_ray_from_the_environment(name: str) -> None:
    config = read(name)
    assert any(command.endswith("launch/setup.sh") for command in config["setup_commands"])
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        assert command.startswith("source ~/openrs-ray/.venv/bin/activate && ")
    assert all(
        "RAY_JOB_STOP_WAIT_TIME_S=1800" in config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")
    )
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    assert all("RAY_AUTH_MODE=token" in command and "ulimit -n" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_all_own_machines_join() -> None:
    prepared = prepare_config(read("cluster.yaml"))
    assert prepared["max_workers"] == len(read("cluster.yaml")["provider"]["worker_ips"])
