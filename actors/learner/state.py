"""A rank's state on disk: DeepSpeed's part of it and the random states."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openrs_ray.common.files import TEMPORARY
from openrs_ray.errors import RunError
from openrs_ray.run.checkpoint_files import STATE
from openrs_ray.run.moments import in_8_bits, to_8_bits
from openrs_ray.run.reshard import convert

_RANDOM = "random_rank_{}.pt"


def save_state(engine: Any, folder: Path, rank: int, *, only_trained: bool = False) -> None:
    """Write one rank's share to `folder/state`; `only_trained` leaves out frozen weights. All ranks call it."""
    engine.save_checkpoint(str(folder), tag=STATE, save_latest=False, exclude_frozen_parameters=only_trained)
    torch.save(random_states(), _random_file(folder, rank))
    torch.distributed.barrier()


def load_state(engine: Any, folder: Path, rank: int, ranks: int, *, only_trained: bool = False) -> None:
    """Restore what `save_state` wrote, also with another number of ranks. All ranks call it."""
    saved_ranks = len(list(folder.glob(f"{STATE}/{_RANDOM.format('*')}")))
    if saved_ranks == ranks:
        _load_engine(engine, folder, rank, only_trained)
    else:
        _load_converted(engine, folder, rank, only_trained)
    # Nothing in a policy draws random numbers; ranks that did not exist before only need some state.
    _restore_random_states(torch.load(_random_file(folder, rank % saved_ranks), weights_only=True))


def _load_engine(engine: Any, folder: Path, rank: int, only_trained: bool) -> None:
    path, _ = engine.load_checkpoint(str(folder), tag=STATE, load_module_strict=not only_trained)
    if path is None:
        raise RunError(f"Learner rank {rank}: the checkpoint in {folder} cannot be loaded.")


def _load_converted(engine: Any, folder: Path, rank: int, only_trained: bool) -> None:
    """Convert in a temporary folder, which `CheckpointStore.sweep` removes after a kill."""
    converted = folder.with_name(f"{folder.name}.universal{TEMPORARY}")
    if rank == 0:
        convert(folder / STATE, converted / STATE)
    torch.distributed.barrier()
    engine._config.load_universal_checkpoint = True
    _load_engine(engine, converted, rank, only_trained)
    engine._config.load_universal_checkpoint = False
    optimizer = engine.optimizer.optimizer
    if in_8_bits(optimizer):
        to_8_bits(optimizer)
    else:
        # DeepSpeed loads one step counter for all parts of a rank, on the CPU: each part's step would advance all of them.
        for part, state in optimizer.state.items():
            state["step"] = state["step"].to(part.device, copy=True)
    torch.distributed.barrier()
    if rank == 0:
        shutil.rmtree(converted)


def _random_file(folder: Path, rank: int) -> Path:
    return folder / STATE / _RANDOM.format(rank)


def random_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()  # plain types, so that `weights_only` can read it
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "python": random.getstate()}


def _restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
