"""Liger's fused kernels, run by Triton's interpreter on a CPU, against plain transformers in float64."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from places import PYTHONPATH, SUPPORT
from tiny import make_sequences, naive_logprobs, naive_model

FAMILIES = ("qwen2", "llama")
KERNELS = {
    f"_{name}_{way}_kernel" for name in ("rms_norm", "swiglu") for way in ("forward", "backward")
} | {"_triton_rope"}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is not installed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("liger")
    paths = os.pathsep.join([PYTHONPATH, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SUPPORT / "liger_worker.py"), str(folder), *FAMILIES]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(params=FAMILIES)
def outcomes(folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    return torch.load(folder / f"{request.param}.pt") | {"reference": reference(folder / request.param)}


def reference(model: Path) -> dict[str, Any]:
    precise = naive_model(model)
    rows = [naive_logprobs(precise, s.prompt_ids, s.completion_ids, 0.7) for s in make_sequences(4)]
    logprobs = torch.cat(rows)
    (logprobs * torch.linspace(-1, 1, len(logprobs), dtype=torch.float64)).sum().backward()
    return {"logprobs": logprobs.detach(), "gradients": {name: p.grad for name, p in precise.named_parameters()}}


@pytest.mark.parametrize("which", ["fused", "fused, with recomputation", "copied"])
def test_a_fused_model_computes_the_same(outcomes: dict[str, Any], which: str):
    got, expected = outcomes[which], outcomes["reference"]
    assert got["kernels"] >= KERNELS  # a kernel that is not called proves nothing
    assert (got["logprobs"] - expected["logprobs"]).abs().max() < 2e-5
    assert got["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in got["gradients"].items():
        precise = expected["gradients"][name]
        assert (gradient - precise).norm() / precise.norm().clamp(min=1e-6) < 1e-5, name


@pytest.mark.parametrize("which", ["plain, made earlier", "plain, made later"])
def test_fusing_one_model_leaves_all_others_as_they_are(outcomes: dict[str, Any], which: str):
    plain = outcomes[which]
    assert not plain["kernels"]
    assert (plain["logprobs"] - outcomes["reference"]["logprobs"]).abs().max() < 2e-5


def test_adapters_learn_the_same_in_a_fused_model(outcomes: dict[str, Any]):
    got, expected = outcomes["fused, with adapters"], outcomes["plain, with adapters"]
    assert got["kernels"] >= KERNELS and not expected["kernels"]
    assert (got["logprobs"] - expected["logprobs"]).abs().max() < 2e-5
    assert (got["logprobs"] - outcomes["fused"]["logprobs"]).abs().max() > 0.01
    assert got["gradients"].keys() == expected["gradients"].keys() and len(got["gradients"]) == 2 * 2 * 7
    for name, gradient in got["gradients"].items():
        assert (gradient - expected["gradients"][name]).norm() / expected["gradients"][name].norm() < 1e-5, name
