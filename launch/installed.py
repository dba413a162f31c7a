"""`python -m launch.installed BUILD`: imports what setup.sh has installed, before the first run does."""

import importlib
import importlib.metadata
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping

MODULES = {
    "cpu": ("torch", "transformers"),
    # The learner's kernels, vLLM's kernels, its model runner V2, and what it imports while it chooses an attention: they need
    # the driver's libcuda.so.1, but no GPU.
    "gpu": (
        "torch",
        "transformers",
        "liger_kernel.transformers",
        "vllm.platforms.cuda",
        "vllm.v1.worker.gpu.model_runner",
        "flashinfer",
    ),
}
# Distributions that are released in step with each other and share folders.
FAMILIES = re.compile("cuda-|nvidia-|torch|vllm|flashinfer|triton")
NEVER_IMPORTED = {"build_backend.py"}
"""flashinfer-python and torch-c-dlpack-ext each install the script that built them, by mistake."""


def main(build: str) -> None:
    reason = fault(build)
    if reason:
        sys.exit(f"setup: {reason}")


def fault(build: str) -> str | None:
    """The first thing that is wrong with this environment."""
    shared = shared_files(records_of_families())
    if shared:
        path, owners = next(iter(shared.items()))
        return f"{' and '.join(owners)} have overwritten each other's files ({len(shared)}, such as {path})"
    for module in MODULES[build]:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a library raises is the finding
            return f"{module} does not import: {type(error).__name__}: {error}"
    import torch

    if (torch.version.cuda is None) != (build == "cpu"):
        return f"torch {torch.__version__} is not built for a {build.upper()}"
    return None


def shared_files(records: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Files that several distributions have installed, with their owners."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, paths in records.items():
        for path in set(paths):
            owners[path].append(name)
    return {path: sorted(names) for path, names in sorted(owners.items()) if len(names) > 1}


def records_of_families() -> dict[str, list[str]]:
    """Files of the installed distributions of `FAMILIES`."""
    records = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        if FAMILIES.match(name):
            paths = map(str, distribution.files or [])
            records[name] = [path for path in paths if path not in NEVER_IMPORTED and not path.endswith(".pyc")]
    return records


if __name__ == "__main__":
    main(sys.argv[1])
