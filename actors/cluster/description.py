"""Describes the Ray cluster of a run, for its `environment.json`."""

from typing import Any

import ray


def describe_cluster() -> dict[str, Any]:
    """Example: {"address": "10.0.0.5:6379", "version": "2.60.0", "nodes": [{"host": "head", "address": "10.0.0.5", ...}]}"""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {
        "address": ray.get_runtime_context().gcs_address,
        "version": ray.__version__,
        "nodes": [
            {
                "host": node["NodeManagerHostname"],
                "address": node["NodeManagerAddress"],
                "resources": {
                    name: amount for name, amount in node["Resources"].items() if not name.startswith("node:")
                },
            }
            for node in nodes
        ],
    }
