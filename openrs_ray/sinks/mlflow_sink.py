"""MLflow: MLFLOW_TRACKING_URI says where; without it, a database beside the runs."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from openrs_ray.errors import UserError
from openrs_ray.sinks.sink import PROJECT, SampleRow, SinkRun

_MOST_PARAMS = 100
"""In one call."""
_NOT_ALLOWED = re.compile(r"[^\w\-. /:]")


def check_store() -> None:
    """UserError where MLflow has no place for its figures."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and find_spec("sqlalchemy") is None:
        raise UserError(
            "run.sinks has mlflow without a place for its figures: set MLFLOW_TRACKING_URI to a server, or install mlflow "
            "instead of mlflow-skinny, which has no database"
        )


class MlflowSink:
    where = ""

    def __init__(self) -> None:
        self._remote = ""  # kept when a later call of `open` fails, which is tried again

    def open(self, run: SinkRun) -> str:
        runs = run.folder.parents[2]
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs / 'mlflow.db'}")
        remote = self._remote or run.remote
        if remote:
            self._client.update_run(remote, status="RUNNING")
        else:
            created = self._client.create_run(self._experiment(runs), run_name=run.name)
            self._remote = remote = str(created.info.run_id)
        if not run.remote:
            self._log_parameters(remote, run.config)
        self._remote = remote
        self._client.log_dict(remote, dict(run.config), f"config-{run.config['attempt']}.json")
        self.where = f"run {remote} in {self._client.tracking_uri}"
        return remote

    def _experiment(self, runs: Any) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        # Without a server, files would go to the working directory, which of a Ray job is a temporary one.
        beside = None if os.environ.get("MLFLOW_TRACKING_URI") else (runs / "mlflow-files").as_uri()
        return str(self._client.create_experiment(name, artifact_location=beside))

    def _log_parameters(self, remote: str, config: Mapping[str, Any]) -> None:
        """Once: MLflow lets none of them change, and a resumed run may have another learning rate."""
        flat = [Param(_allowed(name), str(value)) for name, value in _flat(config)]
        for start in range(0, len(flat), _MOST_PARAMS):
            self._client.log_batch(remote, params=flat[start : start + _MOST_PARAMS])

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._remote, metrics=metrics)

    def samples(self, step: int, phase: str, rows: Sequence[SampleRow]) -> None:
        table = {"samples": [asdict(row) for row in rows]}
        self._client.log_dict(self._remote, table, f"samples/{phase}-{step:06d}.json")

    def close(self) -> None:
        self._client.set_terminated(self._remote)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _allowed(name: str) -> str:
    return _NOT_ALLOWED.sub("_", name)
