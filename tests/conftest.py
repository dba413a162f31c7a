"""One Ray for the whole test session, ended by its own handle; a small taught-by-nobody model to run the real system on."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import PYTHONPATH

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
for name in ("RAY_ADDRESS", "OPENRS_RUNS"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A GPU build of vLLM has no engine for CPUs: the tests that need one are for the CPU build."""
    import torch

    if torch.version.cuda is not None:
        skip = pytest.mark.skip(reason="needs a vLLM engine on a CPU, and this is the GPU build")
        for item in items:
            if item.get_closest_marker("cpu_engine"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of our own with eight make-believe CPUs, and the GPUs that there are."""
    import ray
    import torch

    # Actors load helper modules of the tests, too. As `runtime_env` it would cost every actor a second.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", PYTHONPATH)
        environment.setenv("RAY_worker_niceness", "0")  # as fast as what runs beside it
        ray.init(
            address="local",
            num_cpus=8,
            num_gpus=torch.cuda.device_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=128 << 20,
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small toy model that has been taught almost nothing."""
    from openrs_ray.models.toy.teach import ToySettings, build_toy

    folder = tmp_path_factory.mktemp("toy-model")
    build_toy(folder, ToySettings(hidden=64, feed_forward=96, layers=2, heads=2, key_value_heads=1, steps=3))
    return folder


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with everything that an audit looks at; tests change copies of it."""
    from audited_run import audited_run

    return audited_run(tmp_path_factory.mktemp("audited") / "runs")


@pytest.fixture
def copied(audited: Path, tmp_path: Path) -> Path:
    """A copy of that run, to tamper with."""
    return Path(shutil.copytree(audited, tmp_path / audited.name))


@pytest.fixture
def recipe(tmp_path: Path, toy_folder: Path) -> Path:
    """A recipe that is right; the tests spoil it by overrides."""
    from commands import write_mistakes

    return write_mistakes(tmp_path, toy_folder)
