"""Ending an actor for good: also one that no longer hears Ray, with every process it has started."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.waiting import within
from openrs_ray.errors import RunError

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Processes:
    """An actor's process and those it has started, on one node.

    Example: Processes(node="8f0c...", born=((4711, 1764054417.2), (4730, 1764054425.9)))
    """

    node: str
    born: tuple[tuple[int, float], ...]
    """Process id and time of creation, which tells it from a later process of the same id."""


def own_processes() -> Processes:
    """Of the actor that calls this."""
    family = [psutil.Process(os.getpid())]
    family += family[0].children(recursive=True)
    return Processes(ray.get_runtime_context().get_node_id(), tuple((p.pid, p.create_time()) for p in family))


async def end_actor(actor: Any, processes: Processes | None) -> None:
    """Return when the actor is killed and, if they are known and their node is there, its processes are gone."""
    ray.kill(actor)
    if processes is None:
        return
    there = NodeAffinitySchedulingStrategy(processes.node, soft=False)
    kill = ray.remote(_kill).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    try:
        await within(
            _DEADLINE_S, f"node {processes.node}", "end the processes of an actor", kill.remote(processes.born)
        )
    except RunError:
        return  # the node is gone, and they with it


def _kill(born: Sequence[tuple[int, float]]) -> None:
    found = []
    for pid, created in born:
        try:
            process = psutil.Process(pid)
            if process.create_time() == created:
                process.kill()
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=_DEADLINE_S / 2)
