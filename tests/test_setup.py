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

import pytest

from launch.uv_install import pip_settings, uv_options

ROOT = Path(__file__).parent.parent
PYTORCH = "https://download.pytorch.org/whl/cpu"

INTERPRETER = """#!/usr/bin/env bash
[[ $1 == -c ]] && { [[ -z ${LACKS:-} || $2 != *"$LACKS"* ]]; exit; }
[[ $1 == --version ]] && { echo "Python 3.11.9"; exit 0; }
[[ "$1 $2" == "-m venv" ]] && { mkdir -p .venv/bin && cp "$0" .venv/bin/python; exit 0; }
echo "$*" >>"$LOG"
[[ "$*" == *"index versions torch"* ]] || [[ $1 != launch/uv_install.py ]] || exit "${UV_EXIT:-0}"
if [[ "$*" == *"index versions torch"* ]]; then
    echo "Available versions: 2.15.0, 2.13.0"
    if [[ $TORCH_AT == configured || ($TORCH_AT == pytorch && "$*" == *download.pytorch.org*) ]]; then
        echo "Available versions: 2.15.0, 2.13.0+cpu"
    fi
fi
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
        for name in ("pyproject.toml", "launch/setup.sh", "launch/uv_install.py"):
            shutil.copy(ROOT / name, folder / name)
        self.command("python3", INTERPRETER)
        self.command("nvidia-smi", "#!/bin/sh\nexit 9\n")

    def command(self, name: str, text: str) -> None:
        (self.commands / name).write_text(text)
        (self.commands / name).chmod(0o755)

    def setup(self, *extras: str, **variables: str) -> tuple[int, str, list[str]]:
        """Exit code, what was said, and what the interpreter was asked to do in this call."""
        self.log.write_text("")
        given = {"LOG": str(self.log), "TORCH_AT": "configured", "PYTHON": "python3"} | variables
        environment = os.environ | {"PATH": f"{self.commands}:{os.environ['PATH']}"} | given
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
    assert install.startswith("launch/uv_install.py") and install.endswith(".[cpu,dev]") and PYTORCH not in install
    assert (machine.folder / ".venv/unsuited").read_text().split() == ["torchvision", "torchaudio", "torchcodec"]

    assert machine.setup(OPENRS_BUILD="cpu") == (0, "", [])

    with (machine.folder / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert len(installs(machine.setup(OPENRS_BUILD="cpu")[2])) == 1
    assert installs(machine.setup("smollm2", OPENRS_BUILD="cpu")[2])[0].endswith(".[cpu,dev,smollm2]")
    assert machine.setup(OPENRS_BUILD="cpu") == (0, "", [])  # what was asked for once stays


def test_public_indexes_alone_bring_in_the_pytorch_index(machine: Machine) -> None:
    code, _, calls = machine.setup(OPENRS_BUILD="cpu", TORCH_AT="pytorch")
    assert code == 0
    assert f"--extra-index-url={PYTORCH}" in installs(calls)[0].split()


def test_torch_nowhere_is_one_sentence(machine: Machine) -> None:
    code, said, calls = machine.setup(OPENRS_BUILD="cpu", TORCH_AT="nowhere")
    assert code == 2 and not installs(calls)
    assert "torch 2.13.0+cpu" in said and PYTORCH in said and "PIP_FIND_LINKS" in said
    assert not (machine.folder / ".venv/installed").exists()


def test_pip_takes_over_from_uv_and_removes_what_does_not_match(machine: Machine) -> None:
    code, said, calls = machine.setup(OPENRS_BUILD="cpu", UV_EXIT="2")
    assert code == 0 and "trying again with pip" in said
    assert [call.split()[0] for call in installs(calls)] == ["launch/uv_install.py", "-m"]
    assert calls[-2].endswith("uninstall --quiet --yes torchvision torchaudio torchcodec")
    assert calls[-1].startswith("-m compileall"), "what is removed need not be compiled"


@pytest.mark.parametrize(("driver", "code"), [("550.54.15", 2), ("580.95.05", 0)])
def test_gpu_build_needs_a_driver_for_cuda_13(machine: Machine, driver: str, code: int) -> None:
    machine.command("nvidia-smi", f"#!/bin/sh\n[ \"$1\" = -L ] && echo 'GPU 0: NVIDIA A40' || echo {driver}\n")
    for compiler in ("g++", "gcc"):
        machine.command(compiler, "#!/bin/sh\n")
    exit_code, said, calls = machine.setup()
    assert exit_code == code
    if code:
        assert "550.54.15" in said and "580" in said and not calls
    else:
        assert installs(calls)[0].endswith(".[gpu,dev]")
        assert (machine.folder / ".venv/unsuited").read_text().strip() == ""


def test_no_suitable_python_is_one_sentence(machine: Machine) -> None:
    code, said, _ = machine.setup(PYTHON="/bin/false")
    assert code == 2
    assert said.startswith("setup: Python 3.11 or 3.12 is needed") and said.count("\n") == 1


def test_uv_gets_what_pip_was_told(tmp_path: Path) -> None:
    """Against pip's own reading of a settings file and variables."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n    https://a/simple\n    https://b/simple\n"
        "find-links = /from-file\n[install]\nconstraint = /constraints.txt\n"
    )
    environment = os.environ | {"PIP_CONFIG_FILE": str(file), "PIP_FIND_LINKS": "/wheels /more", "PIP_CERT": "/ca.pem"}
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, env=environment
    )
    settings = pip_settings(pip.stdout)
    assert settings["cert"] == "/ca.pem"
    options = uv_options(settings)
    pairs = set(zip(options[::2], options[1::2], strict=True))
    assert pairs >= {
        ("--default-index", "https://mirror/simple"),
        ("--extra-index-url", "https://a/simple"),
        ("--extra-index-url", "https://b/simple"),
        ("--find-links", "/wheels"),
        ("--find-links", "/more"),
        ("--constraint", "/constraints.txt"),
    }
    assert ("--find-links", "/from-file") not in pairs


def test_pyproject_names_every_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    declared = {re.split(r"[\[<>=!]", name)[0].lower() for name in [*project["dependencies"], *extras]}
    distributions = importlib.metadata.packages_distributions()
    here = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"openrs_ray", "actors", "launch", "tests"}
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
