"""Optional packages: is one installed, and in which version."""

from importlib import metadata
from importlib.util import find_spec

from openrs_ray.errors import UserError


def require(module: str, extra: str, wanted_for: str) -> None:
    """UserError with the command that installs it, where `module` is missing."""
    if find_spec(module) is None:
        raise UserError(f"{wanted_for} needs the package {extra}: run `bash launch/setup.sh {extra}`")


def version_of(distribution: str) -> str:
    return metadata.version(distribution)
