"""An exported policy where it is used: behind `vllm serve`, started and asked as its README says."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from commands import assert_all_gone, descendants, finish, start, tail, write_recipe
from exportable import change_config, evaluated_run
from recorded import logprobs, recorded_gaps
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.cluster.placement import engine_variables
from launch.export import main
from openrs_ray.export.prompting import Prompting
from openrs_ray.export.usage import PROBLEM
from openrs_ray.run.completions import current_rows

ASKS = {"system_prompt": "It's 1+1", "suffix": "=?", "examples": [{"problem": "2+2", "response": "4"}]}
API_SERVER = "vllm.entrypoints.openai.api_server"
SMALL = ["--kv-cache-memory-bytes", str(64 << 20), "--max-num-seqs", "4"]


@dataclass(frozen=True)
class Served:
    folder: Path
    url: str
    request: dict[str, object]
    """Of the README's third line."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    run = evaluated_run(folder / "runs", toy_folder, {0: 0.2, 50: 0.6, 100: 0.5})
    change_config(run, model={"dtype": "bfloat16"}, data=ASKS, rollout={"temperature": 0.7, "max_prompt_tokens": 200})
    assert main([str(run), "--folder", str(folder / "model")]) == 0
    readme = (folder / "model" / "README.md").read_text()
    gpu, cpu = re.findall(r"^```bash\n(.*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    (_, on_gpu, ask), (_, serve) = (map(shlex.split, block.split("\n")) for block in (gpu, cpu))
    assert on_gpu[:3] == ["vllm", "serve", "."] and serve[:5] == ["python", "-m", API_SERVER, "--model", "."]
    assert serve[5 : 5 + len(on_gpu[3:])] == on_gpu[3:], "the same options"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "127.0.0.1:8000" in " ".join(ask)
    command = [sys.executable, *serve[1:], *SMALL, "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder / "model", stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | engine_variables("cpu"),
        )  # fmt: skip
    family = [*descendants(process)]
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while not healthy(url):
            assert process.poll() is None, tail(log)
            assert time.monotonic() < deadline, tail(log)
            time.sleep(0.25)
        family = descendants(process)
        yield Served(folder / "model", url, json.loads(ask[ask.index("-d") + 1]))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert_all_gone(family, 30)


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.cpu_engine
@pytest.mark.timeout(600)
def test_the_three_lines_serve_the_policy_as_it_was_trained(served: Served) -> None:
    """Its prompt is training's, and its log-probabilities are those of transformers."""
    text = json.dumps(served.request).replace(PROBLEM, "17+5")
    asked = json.loads(text) | {"return_token_ids": True, "logprobs": True, "max_tokens": 16, "seed": 1, "n": 4}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=asked, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    tokenizer = AutoTokenizer.from_pretrained(served.folder)
    told = Prompting.read(served.folder)
    assert told is not None
    prompt = tokenizer.apply_chat_template(told.first.messages("17+5"), add_generation_prompt=True)["input_ids"]
    assert content["prompt_token_ids"] == prompt
    model = AutoModelForCausalLM.from_pretrained(served.folder, dtype=torch.bfloat16)
    differences = []
    for choice in content["choices"]:
        found = np.array([token["logprob"] for token in choice["logprobs"]["content"]])
        differences.append(np.abs(found - logprobs(model, prompt, choice["token_ids"])))
    gaps = np.concatenate(differences)
    assert len(gaps) > 8 and gaps.mean() < 0.02 and gaps.max() < 0.15, gaps


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("dtype", "mean", "most"), [("bfloat16", 0.02, 0.2), ("float32", 1e-4, 1e-3)])
def test_a_trained_policy_gives_the_engine_s_recorded_log_probabilities(
    tmp_path: Path, toy_folder: Path, dtype: str, mean: float, most: float
) -> None:
    changes: dict[str, dict[str, object]] = {
        "learner": {"lora": {"rank": 4}} if dtype == "bfloat16" else {},
        "push": {"probe_tolerance": 0.05},
        "evaluation": {"path": "toy-heldout", "problems": 8, "samples": 2, "every_steps": 2, "temperature": 1.0},
        "data": {"system_prompt": "1", "suffix": "="},
    }
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, tmp_path, "run", 4, **changes)
    log = tmp_path / "log"
    assert finish(start([str(recipe), "--model.dtype", dtype], log), log) == 0, tail(log)
    run = tmp_path / "run"
    assert main([str(run), "--step", "2", "--folder", str(tmp_path / "model")]) == 0
    readme = (tmp_path / "model" / "README.md").read_text()
    assert "| accuracy | start model |" in readme and "Difference from the start model: " in readme
    assert (tmp_path / "model" / "adapter").is_dir() == (dtype == "bfloat16")
    rows = [row for row in current_rows(run, "evaluation").to_pylist() if row["step"] == 2]
    gaps = recorded_gaps(tmp_path / "model", rows, getattr(torch, dtype))
    assert gaps.mean() < mean and gaps.max() < most, gaps
    start_gaps = recorded_gaps(toy_folder, rows, getattr(torch, dtype), tmp_path / "model")
    assert start_gaps.mean() > 3 * gaps.mean(), "the start model would be seen"
