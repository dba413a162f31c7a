"""Trackio: TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL say where; without them it is a database on this machine."""

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import trackio

from openrs_ray.sinks.sink import PROJECT, SampleRow, SinkRun


class TrackioSink:
    where = ""

    def __init__(self) -> None:
        self._ending = secrets.token_hex(3)  # the same for every try to open a new run

    def open(self, run: SinkRun) -> str:
        # It knows runs by name and would go on with the latest of that name.
        remote = run.remote or f"{run.name}-{self._ending}"
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(
            project=project,
            name=remote,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.where = f"run {remote}, to see with `trackio show --project {project}`"
        return remote

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def samples(self, step: int, phase: str, rows: Sequence[SampleRow]) -> None:
        table = trackio.Table(data=[asdict(row) for row in rows])
        self._run.log({f"samples/{phase}": table}, step=step)

    def close(self) -> None:
        self._run.finish()
