"""The files that `ray job submit --working-dir .` uploads, by Ray's own packaging."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
from commands import ROOT
from ray._private.runtime_env.packaging import create_package

_HUGE = 128 << 20
STAYS = (
    *("model/pytorch_model.bin", "model/weights.pt", "model.safetensors", "mine/model.safetensors", "train.parquet"),
    *("wandb/run-1/files/output.log", "outputs/step.bin", "checkpoints/step-1/state", "runs/r/completions/1.parquet"),
    *(
        "tests/system/test_upload.py",
        "notes.ipynb",
        "openrs_ray/__pycache__/x.pyc",
        ".venv-gpu/lib/huge",
        ".git/objects/pack",
    ),
    *("mine/__pycache__/x.pyc", "data/big.jsonl", "core.1234"),
)
"""In a working folder, more than 2 GB together."""
TRAVELS = (
    "recipe.yaml",
    "my_rewards.py",
    "problems.jsonl",
    "problems.json",
    "problems.tsv",
    "template.jinja",
    "mine/data/train.parquet",
    "mine/recipe.yaml",
    "mine/rewards.py",
)


@pytest.fixture
def uploaded(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in filter(lambda name: (ROOT / name).is_file(), tracked):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    for name in (*STAYS, *TRAVELS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name in STAYS:
        os.truncate(folder / name, _HUGE)  # no block of it is written
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=True)
    return package


def test_the_project_and_the_users_own_files_travel_and_nothing_else(uploaded: Path) -> None:
    assert uploaded.stat().st_size < 20 << 20
    names = {name for name in zipfile.ZipFile(uploaded).namelist() if not name.endswith("/")}
    assert set(TRAVELS) <= names
    assert not names & set(STAYS)
    own = names - set(TRAVELS)
    parts = {name.split("/")[0] for name in own}
    assert parts == {"actors", "launch", "openrs_ray", "openrs.py", "cluster.yaml"}, (
        "another part of the project wants to travel?"
    )
    code = {f"{part}/{file.relative_to(ROOT / part)}" for part in parts for file in (ROOT / part).rglob("*.py")}
    assert code <= own and "launch/recipes/open-rs3.yaml" in own
    assert "openrs_ray/evaluation/published.json" in own
