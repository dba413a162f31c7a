"""launch/setup.sh chooses the right build, the right index and the right installer, without installing anything here.

A stand-in interpreter notes what it is asked to do; the real installation is how quickstart.sh and test.sh begin.
"""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from places import ROOT

from openrs_ray.config.schema import SinkName

PYTORCH = "https://download.pytorch.org/whl/cpu"

INTERPRETER = """#!/usr/bin/env bash
[[ $1 == -c && $2 == *libcuda* && -v CUDA_OF_DRIVER ]] && { echo "$CUDA_OF_DRIVER"; exit; }
[[ $1 == -c && $2 == *libcuda* ]] && exec "$REAL_PYTHON" "$@"
[[ $1 == -c ]] && { [[ -z ${LACKS:-} || $2 != *"$LACKS"* ]]; exit; }
[[ $1 == --version ]] && { echo "Python ${VERSION:-3.11.9}"; exit 0; }
[[ "$1 $2" == "-m venv" ]] && { mkdir -p .venv/bin && cp "$0" .venv/bin/python; exit 0; }
[[ "$*" == *" config list" ]] && exec "$REAL_PYTHON" -m pip config list
echo "$*" >>"$LOG"
case "$*" in
    "-m uv "*) env >"$LOG.uv"; exit "${UV_EXIT:-0}" ;;
    "-m launch.installed "*) exit "${IMPORTS_EXIT:-0}" ;;
    *"--no-deps torch=="*)
        [[ $TORCH_AT == configured || ($TORCH_AT == pytorch && "$*" == *"--index-url https://download.pytorch.org"*) ]]
        exit
        ;;
esac
exit 0
"""


class Machine:
    """A folder with the project's setup files and stand-ins for the commands that setup.sh calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.commands = folder / "commands"
        (folder / "launch").mkdir()
        self.commands.mkdir()
        for name in ("pyproject.toml", "launch/setup.sh", "launch/installed.py"):
            shutil.copy(ROOT / name, folder / name)
        shutil.copytree(ROOT / "launch/locks", folder / "launch/locks")
        self.command("python3", INTERPRETER)
        self.command("nvidia-smi", "#!/bin/sh\nexit 9\n")

    def command(self, name: str, text: str) -> None:
        (self.commands / name).write_text(text)
        (self.commands / name).chmod(0o755)

    def setup(self, *extras: str, **variables: str) -> tuple[int, str, list[str]]:
        """Exit code, what was said, and what the interpreter was asked to do in this call."""
        self.log.write_text("")
        given = {"LOG": str(self.log), "TORCH_AT": "configured", "PYTHON": "python3", "REAL_PYTHON": sys.executable}
        environment = os.environ | {"PATH": f"{self.commands}:{os.environ['PATH']}"} | given | variables
        command = ["bash", str(self.folder / "launch/setup.sh"), *extras]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        return run.returncode, run.stderr, self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def installs(calls: list[str]) -> list[str]:
    return [call for call in calls if "--editable" in call]


@pytest.mark.parametrize(("lacks", "package"), [("ensurepip", "python3-venv"), ("libnuma", "libnuma1")])
def test_a_missing_system_package_is_named_before_anything_is_installed(
    machine: Machine, lacks: str, package: str
) -> None:
    code, said, calls = machine.setup(OPENRS_BUILD="cpu", LACKS=lacks)
    assert code == 2 and calls == []
    assert said == f"setup: system packages are missing: apt install {package}\n"


def test_installs_once_and_again_only_after_a_change(machine: Machine) -> None:
    code, _, calls = machine.setup(OPENRS_BUILD="cpu")
    assert code == 0
    (install,) = installs(calls)
    assert install.startswith("-m uv pip install") and install.endswith(".[cpu,dev]")
    assert "--excludes launch/locks/cpu-excludes.txt" in install
    assert calls[-1] == "-m launch.installed cpu", "what was installed is tried"

    assert machine.setup(OPENRS_BUILD="cpu") == (0, "", [])

    for name in ("pyproject.toml", "launch/locks/cpu-py311.txt"):
        with (machine.folder / name).open("a") as file:
            file.write("# changed\n")
        assert len(installs(machine.setup(OPENRS_BUILD="cpu")[2])) == 1
    assert installs(machine.setup("smollm2", OPENRS_BUILD="cpu")[2])[0].endswith(".[cpu,dev,smollm2]")
    assert machine.setup(OPENRS_BUILD="cpu") == (0, "", [])  # what was asked for once stays


@pytest.mark.parametrize("build", ["cpu", "gpu"])
@pytest.mark.parametrize("version", ["3.11.7", "3.12.1"])
def test_uv_and_pip_install_what_the_lock_says(machine: Machine, version: str, build: str) -> None:
    with_driver(machine, "580.95.05")
    code, said, calls = machine.setup(OPENRS_BUILD=build, CUDA_OF_DRIVER="13000", UV_EXIT="1", VERSION=version)
    assert code == 0 and "trying again with pip" in said
    lock = f"launch/locks/{build}-py{version[0]}{version[2:4]}.txt"
    with_uv, with_pip, project = [call for call in calls if "--requirement" in call or "--editable" in call]
    assert with_uv.startswith("-m uv") and f"--constraints {lock} --build-constraints {lock}" in with_uv
    assert with_pip.startswith("-m pip") and "--no-deps --require-hashes --requirement .venv/requirements" in with_pip
    assert "--no-deps --editable ." in project
    locked = re.findall(r"^[a-z]\S+", (ROOT / lock).read_text(), re.MULTILINE)
    asked = re.findall(r"^[a-z]\S+", (machine.folder / ".venv/requirements").read_text(), re.MULTILINE)
    compiled = {line for line in locked if line.startswith(("pycosat==", "reasoning-gym=="))}
    assert len(compiled) == 2, "needs a compiler, so it comes where it is asked for"
    assert set(locked) - set(asked) == compiled | ({"torch==2.13.0+cpu"} if build == "cpu" else set())
    assert (machine.folder / ".venv/constraints").read_text().splitlines() == locked


def test_the_adapters_libraries_come_as_extras(machine: Machine) -> None:
    code, said, calls = machine.setup("reasoning-gym", "verifiers", OPENRS_BUILD="cpu", LACKS="Python.h")
    assert (code, calls) == (2, []) and "apt install python3-dev" in said
    code, _, calls = machine.setup("reasoning-gym", "verifiers", OPENRS_BUILD="cpu", UV_EXIT="1")
    assert code == 0
    assert installs(calls)[0].endswith(".[cpu,dev,reasoning-gym,verifiers]")
    assert any(call.endswith("--no-deps verifiers==0.4.0") for call in calls), (
        "its bounds are older than vLLM's packages"
    )
    assert "\npycosat==" in (machine.folder / ".venv/requirements").read_text()


def test_an_environment_that_does_not_import_is_not_called_installed(machine: Machine) -> None:
    code, said, _ = machine.setup(OPENRS_BUILD="cpu", IMPORTS_EXIT="1")
    assert code == 2 and "remove .venv and run this again" in said
    assert len(installs(machine.setup(OPENRS_BUILD="cpu")[2])) == 1


def test_torch_comes_from_where_pip_looks_else_from_the_pytorch_index(machine: Machine) -> None:
    def torch_from(place: str) -> list[bool]:
        """For each attempt to install torch: was the PyTorch index asked?"""
        shutil.rmtree(machine.folder / ".venv", ignore_errors=True)
        code, _, calls = machine.setup(OPENRS_BUILD="cpu", TORCH_AT=place)
        attempts = [call for call in calls if "torch==2.13.0+cpu" in call]
        assert code == 0 and calls.index(attempts[-1]) < calls.index(installs(calls)[0])
        assert PYTORCH not in installs(calls)[0], "everything else comes from PyPI, whose hashes the lock has"
        return [f"--index-url {PYTORCH}" in call for call in attempts]

    assert torch_from("configured") == [False]
    assert torch_from("pytorch") == [False, True]


def test_torch_nowhere_is_one_sentence(machine: Machine) -> None:
    code, said, calls = machine.setup(OPENRS_BUILD="cpu", TORCH_AT="nowhere")
    assert code == 2 and not installs(calls)
    assert "torch==2.13.0+cpu" in said and PYTORCH in said and "PIP_FIND_LINKS" in said
    assert not (machine.folder / ".venv/installed").exists()


def with_driver(machine: Machine, driver: str) -> None:
    """A machine with a GPU, whose nvidia-smi says `driver` when it is asked for the driver's version."""
    machine.command("nvidia-smi", f'#!/bin/sh\n[ "$1" = -L ] && echo \'GPU 0: NVIDIA A40\' || echo "{driver}"\n')
    for compiler in ("g++", "gcc"):
        machine.command(compiler, "#!/bin/sh\n")


@pytest.mark.parametrize(
    ("driver", "cuda", "fits"),
    [
        ("550.54.15", "", False),
        ("580.95.05", "", True),
        ("550.54.15", "12040", False),
        ("580.95.05", "13000", True),
        ("535.261.03", "13010", True),  # with NVIDIA's forward-compatibility libraries
        ("580.95.05", "12080", False),  # an older libcuda comes first
    ],
)
def test_gpu_build_needs_a_driver_for_cuda_13(machine: Machine, driver: str, cuda: str, fits: bool) -> None:
    with_driver(machine, driver)
    code, said, calls = machine.setup(CUDA_OF_DRIVER=cuda)
    if fits:
        (install,) = installs(calls)
        assert code == 0 and install.endswith(".[gpu,dev]") and "--excludes" not in install
        assert "--constraints launch/locks/gpu-py311.txt" in install
        assert calls[-1] == "-m launch.installed gpu"
    else:
        assert code == 2 and not calls and said.count("\n") == 1
        assert driver in said and "580" in said and "cuda-compat" in said and "not tried" in said
        assert not cuda or f"CUDA {cuda[:2]}.{cuda[3]}" in said


@pytest.mark.skipif(shutil.which("gcc") is None, reason="builds a library")
def test_the_driver_is_asked_through_its_library(machine: Machine, tmp_path: Path) -> None:
    source = ROOT / "launch/without_gpu/libcuda.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(source)], check=True)
    with_driver(machine, "535.261.03")
    assert machine.setup(LD_LIBRARY_PATH=str(tmp_path))[0] == 0
    probe = "from openrs_ray.cluster.probes import driver_cuda; print(driver_cuda())"
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    asked = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment)
    assert asked.stdout == "13000\n", asked.stderr


@pytest.mark.parametrize(
    "sentence",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that it is running.",
        "Failed to initialize NVML: Driver/library version mismatch",
        "",
    ],
)
def test_a_sentence_of_nvidia_smi_is_quoted(machine: Machine, sentence: str) -> None:
    with_driver(machine, sentence)
    code, said, calls = machine.setup()
    assert code == 2 and not calls
    assert said.startswith("setup: nvidia-smi names no driver version") and said.count("\n") == 1 and sentence in said


def test_no_suitable_python_is_one_sentence(machine: Machine) -> None:
    code, said, _ = machine.setup(PYTHON="/bin/false")
    assert code == 2
    assert said.startswith("setup: Python 3.11 or 3.12 is needed") and said.count("\n") == 1


def test_uv_gets_what_pip_was_told(machine: Machine, tmp_path: Path) -> None:
    """As pip itself reads a settings file and variables; what uv was told stands."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n    https://a/simple\n    https://b/simple\n"
        "find-links = /from-file\ntrusted-host = mirror\n[install]\nextra-index-url = https://c/simple\n"
    )
    untold = dict.fromkeys(
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_HTTP_TIMEOUT", "SSL_CERT_FILE"), ""
    )
    told = {
        "PIP_CONFIG_FILE": str(file),
        "PIP_FIND_LINKS": "/wheels /more",
        "PIP_CERT": "/ca.pem",
        "PIP_DEFAULT_TIMEOUT": "60",
    }
    assert machine.setup(OPENRS_BUILD="cpu", **untold, **told)[0] == 0
    uv = dict(line.partition("=")[::2] for line in machine.log.with_name("log.uv").read_text().splitlines())
    assert uv["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert uv["UV_INDEX"] == "https://c/simple", "[install] beats [global]"
    assert uv["UV_FIND_LINKS"] == "/wheels,/more", "a variable beats the file"
    assert uv["UV_INSECURE_HOST"] == "mirror"
    assert uv["SSL_CERT_FILE"] == "/ca.pem"
    assert uv["UV_HTTP_TIMEOUT"] == "60"


def test_pyproject_names_every_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    declared = {re.split(r"[\[<>=!]", name)[0].lower() for name in [*project["dependencies"], *extras]}
    declared |= set(re.findall(r"--no-deps ([a-z0-9-]+)==", (ROOT / "launch/setup.sh").read_text()))
    declared |= {*get_args(SinkName)}  # which a user installs who wants one: `run.sinks` says how
    distributions = importlib.metadata.packages_distributions()
    here = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {
        "openrs_ray",
        "actors",
        "launch",
        "openrs",
        "tests",
    }
    here.add("wire")  # beside the scripts that run by themselves in a sandbox
    missing = set()
    for folder in ("openrs_ray", "actors", "launch", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for module in imported(path) - set(sys.stdlib_module_names) - here:
                names = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
                if not names & declared:
                    missing.add((module, str(path.relative_to(ROOT))))
    assert not missing


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
