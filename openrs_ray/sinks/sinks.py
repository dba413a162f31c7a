"""The sinks of a run (`run.sinks`): checked before anything starts, sent to beside the loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from openrs_ray.common.redaction import without_secrets
from openrs_ray.errors import UserError
from openrs_ray.records import Group
from openrs_ray.sinks.outbox import Outbox
from openrs_ray.sinks.sink import Sink, SinkRun, sample_rows

if TYPE_CHECKING:
    from openrs_ray.config.schema import RunConfig

_END_S = 10.0
"""For what is left at the end of a run."""
_EVALUATION_ROWS, _TRAINING_ROWS, _EVERY_STEPS = 16, 8, 10
FOLDER = "sinks"


def check_sinks(names: Sequence[str]) -> None:
    """UserError when a package is missing, or its service does not know the user."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"run.sinks has {name}, which is not installed: run `.venv/bin/python -m pip install {name}`, or leave it out"
            )
        if name == "wandb":
            from openrs_ray.sinks.wandb_sink import check_login

            check_login()
        elif name == "mlflow":
            from openrs_ray.sinks.mlflow_sink import check_store

            check_store()


def new_sink(name: str) -> Sink:
    """Imports its package only now."""
    if name == "wandb":
        from openrs_ray.sinks.wandb_sink import WandbSink

        return WandbSink()
    if name == "trackio":
        from openrs_ray.sinks.trackio_sink import TrackioSink

        return TrackioSink()
    from openrs_ray.sinks.mlflow_sink import MlflowSink

    return MlflowSink()


class Sinks:
    """Never waits for a service and never fails, but for `close`, which waits a little."""

    def __init__(self, outboxes: Sequence[Outbox] = ()) -> None:
        self._outboxes = outboxes

    @classmethod
    def of(
        cls,
        config: "RunConfig",
        attempt: int,
        tell: Callable[[str], None],
        warn: Callable[[str], None],
        from_step: int = 0,
    ) -> "Sinks":
        """Open all that the config names, each in its own thread. `from_step`: the attempt trains on from here."""
        shown = without_secrets(config.model_dump(mode="json")) | {"attempt": attempt}
        outboxes = []
        for name in config.run.sinks:
            folder = config.run.path / FOLDER / name
            folder.mkdir(parents=True, exist_ok=True)
            run = SinkRun(config.run.name, shown, folder, "")
            outboxes.append(Outbox(name, partial(new_sink, name), run, tell, warn, from_step=from_step))
        return cls(outboxes)

    def __bool__(self) -> bool:
        return bool(self._outboxes)

    def metrics(self, step: int, phase: str, figures: Mapping[str, Any]) -> None:
        """Figures of a line of metrics.jsonl; those that are null are left out."""
        for outbox in self._outboxes:
            outbox.metrics(step, phase, _named(phase, figures))

    def catch_up(self, step: int, phase: str, figures: Mapping[str, Any]) -> None:
        """Figures of an earlier attempt, for every service that did not get them before it ended."""
        for outbox in self._outboxes:
            if outbox.lacks(step, phase):
                outbox.metrics(step, phase, _named(phase, figures))

    def samples(self, step: int, phase: str, groups: Sequence[Group]) -> None:
        """Some completions of every evaluation, and of every tenth step."""
        if not self._outboxes or (phase == "train" and step % _EVERY_STEPS != 1):
            return
        rows = sample_rows(step, phase, groups, _TRAINING_ROWS if phase == "train" else _EVALUATION_ROWS)
        for outbox in self._outboxes:
            outbox.samples(step, phase, rows)

    def close(self) -> list[str]:
        """Sentences about what was not sent."""
        deadline = time.monotonic() + _END_S
        return [told for outbox in self._outboxes if (told := outbox.close(deadline))]


def _named(phase: str, figures: Mapping[str, Any]) -> dict[str, float]:
    return {f"{phase}/{name}": float(value) for name, value in figures.items() if value is not None}
