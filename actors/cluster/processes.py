"""Ends actors with every process they have started, even when they no longer answer Ray."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.cluster.deadlines import within
from openrs_ray.common.private_folder import MARK, folder_of
from openrs_ray.errors import RunError

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Processes:
    """An actor's process and its descendants, orphans too: all have its mark in their environment."""

    node: str
    """Ray's id of their node."""
    mark: str

    def found(self) -> Iterator[psutil.Process]:
        """The running ones; call it on their node."""
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    yield process
            except (psutil.Error, OSError):  # gone, or not ours
                continue


def new_mark() -> dict[str, str]:
    return {MARK: uuid4().hex}


def own_processes() -> Processes:
    return Processes(ray.get_runtime_context().get_node_id(), os.environ[MARK])


async def end_actor(actor: Any, processes: Processes | None) -> None:
    """Return when the actor's processes are gone, as far as it was placed and its node is there."""
    ray.kill(actor)
    if processes is None:
        return
    there = NodeAffinitySchedulingStrategy(processes.node, soft=False)
    kill = ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    try:
        await within(_DEADLINE_S, f"node {processes.node}", "end the processes of an actor", kill.remote(processes))
    except RunError:
        return  # the node is gone, and they with it, or too busy: then the next one fails to start, and is tried again


def _kill(processes: Processes) -> None:
    found = list(processes.found())
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=_DEADLINE_S / 2)
    shutil.rmtree(folder_of(processes.mark), ignore_errors=True)
