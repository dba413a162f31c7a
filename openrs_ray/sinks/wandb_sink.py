"""Weights & Biases: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and the like are its own settings."""

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from openrs_ray.errors import UserError
from openrs_ray.sinks.sink import PROJECT, SampleRow, SinkRun, as_columns

_KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
_START_S, _FINISH_S = 15.0, 8.0
"""For the first answer, since W&B lets no process end before (it is asked again); and for uploads at the end, of which W&B keeps
the rest in the run's folder, for `wandb sync`."""


def check_login() -> None:
    """UserError where W&B would ask for a key in the middle of the run."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared") or any(map(os.environ.get, _KEYS)):
        return
    from wandb.sdk.lib.wbauth import read_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if read_netrc_auth(host=host) is None:
        raise UserError(
            "run.sinks has wandb, but nobody is logged in to it: run `wandb login`, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline to keep its files in the run's folder until `wandb sync`"
        )


class WandbSink:
    where = ""

    def __init__(self) -> None:
        self._id = secrets.token_hex(4)  # the same for every try to open a new run

    def open(self, run: SinkRun) -> str:
        remote = run.remote or self._id
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=remote,
            resume="allow",
            reinit="create_new",  # a reward of the user's own may have a run, too
            dir=run.folder,
            config=dict(run.config),
            allow_val_change=True,
            # Its console capture would garble the screen; what it collects of the machine has the command with all words.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_meta=True,
                init_timeout=_START_S, finish_timeout=_FINISH_S,
            ),
        )  # fmt: skip
        # Steps are a figure of their own: W&B's may never go back, and those of a resumed run do.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        offline = f"offline, for `wandb sync {os.path.dirname(self._run.dir)}`"
        self.where = offline if self._run.offline else self._run.url
        return remote

    def metrics(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"step": step, **figures})

    def samples(self, step: int, phase: str, rows: Sequence[SampleRow]) -> None:
        columns = as_columns(rows)
        table: Any = wandb.Table(columns=[*columns], data=[list(row) for row in zip(*columns.values(), strict=True)])
        self._run.log({"step": step, f"samples/{phase}": table})

    def close(self) -> None:
        self._run.finish()
