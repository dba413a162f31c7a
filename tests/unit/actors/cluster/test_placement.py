"""What a run's actors find in their environment, on a Ray with make-believe GPUs."""

import json
import os
import subprocess
import sys

import pytest
from places import PYTHONPATH, SUPPORT

Environments = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> list[Environments]:
    """Of every actor by its role: apart, and colocated."""
    user = {
        "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:512,expandable_segments:True",
        "PYTHONPATH": PYTHONPATH,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    without = {name: value for name, value in os.environ.items() if name != "RAY_worker_niceness"}
    command = [sys.executable, str(SUPPORT / "gpu_assignment.py"), str(tmp_path_factory.mktemp("placement"))]
    done = subprocess.run(command, env=without | user, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[Environments] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("colocated", [False, True])
def test_every_actor_sees_the_gpu_that_ray_gave_it(environments: list[Environments], colocated: bool) -> None:
    """Also where the environment tells Ray not to choose, which would put every rank on the first GPU."""
    found = environments[colocated]
    gpus = {role: [each.get("CUDA_VISIBLE_DEVICES") for each in own] for role, own in found.items()}
    if colocated:
        assert sorted(gpus["learner"]) == ["0", "1"] and gpus["learner"] == gpus["rollout"]
        # Memory of expandable segments has another kind of handle than the one that the engine opens.
        assert found["learner"][0]["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:512,expandable_segments:False"
    else:
        assert sorted(gpus["learner"] + gpus["rollout"]) == ["0", "1"]


def test_no_actor_waits_for_every_other_process_of_its_machine(environments: list[Environments]) -> None:
    """Ray gives its workers the niceness 15: beside one busy process a step took three times as long."""
    own = str(os.nice(0))
    assert {each["niceness"] for found in environments for role in found.values() for each in role} == {own}
