"""Several Ray nodes on this machine, each with one make-believe GPU, that come and go like rented ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from ray.cluster_utils import Cluster


class SimulatedCluster:
    """A head without GPUs, for the driver; `add` and `remove` nodes with one."""

    def __init__(self) -> None:
        common = {"object_store_memory": 80 << 20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, **common})
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> Any:
        node = self._cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=80 << 20)
        self.nodes.append(node)
        return node

    def remove(self, node: Any) -> None:
        """At once, with every process on it."""
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of that name on all nodes, the head's too."""
        nodes = [*self.nodes, self._cluster.head_node]
        return [process for node in nodes for process in _named(node, name)]

    def node_of(self, name: str) -> Any:
        """The only node with such a process."""
        (node,) = (node for node in self.nodes if _named(node, name))
        return node

    def close(self) -> None:
        self._cluster.shutdown()


@contextmanager
def simulated_cluster() -> Iterator[SimulatedCluster]:
    cluster = SimulatedCluster()
    try:
        yield cluster
    finally:
        cluster.close()


def _named(node: Any, name: str) -> list[psutil.Process]:
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [process for process in raylet.children(recursive=True) if name in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
