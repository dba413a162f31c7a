"""launch/clusters/Dockerfile copies what setup.sh and the packages need, and its context holds nothing else."""

import re
import tomllib

from places import ROOT

DOCKERFILE = ROOT / "launch" / "clusters" / "Dockerfile"


def copied() -> set[str]:
    """Paths in the repository, without the last word of each COPY: where they go."""
    return {
        path for line in re.findall(r"^COPY (.*)", DOCKERFILE.read_text(), re.MULTILINE) for path in line.split()[:-1]
    }


def test_everything_that_is_copied_is_there_and_in_the_context() -> None:
    context = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().split()
    assert context[0] == "*" and {line[1:] for line in context if line.startswith("!")} == copied()
    assert all((ROOT / path).exists() for path in copied())


def test_the_packages_and_what_pyproject_names_are_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    assert packages | files | {"pyproject.toml"} == copied()


def test_it_installs_by_the_locks_with_the_stand_ins_that_exist() -> None:
    text = DOCKERFILE.read_text()
    assert 'OPENRS_BUILD="$BUILD"' in text and "bash launch/setup.sh" in text
    named = re.findall(r"launch/without_gpu/[\w.-]+", text)
    assert len(named) == 2 and all((ROOT / path).is_file() for path in named)
