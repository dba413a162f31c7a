"""The servers of judge models as actors, on GPUs of their own: dead or silent, a server is replaced; it ends with its actor."""

import asyncio
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray
from pydantic import SecretStr

from actors.cluster.deadlines import within
from actors.cluster.placement import Placement
from actors.cluster.processes import Processes, end_actor, own_processes
from actors.rollout.engine_log import OwnLog
from openrs_ray.config.judge_model import JudgeModel
from openrs_ray.config.schema import RunConfig
from openrs_ray.preparation.judges import served_path
from openrs_ray.rewards.judge_model.server import STARTS, ServedModel, Server

_PLACE_S = 120.0


class JudgeServer:
    """Life cycle: url() starts it and waits; an actor that Ray has restarted ends what its predecessor left."""

    def __init__(self, model: ServedModel, key: SecretStr) -> None:
        self._log = OwnLog()
        self._server = Server(
            model.command,
            ray.util.get_node_ip_address(),
            model.start_deadline_s,
            key.get_secret_value(),
            _kill_others,
            self._log.newest,
        )

    async def processes(self) -> Processes:
        return own_processes()

    async def url(self) -> str:
        """Waits for the server. RunError when it could not be started, several times in a row."""
        return await self._server.url()


def _kill_others() -> None:
    """End all processes of this actor but itself."""
    for process in own_processes().found():
        if process.pid != os.getpid():
            with suppress(psutil.NoSuchProcess):
                process.kill()


@dataclass
class JudgeServers:
    """All servers of a run. Life cycle: start(), end()."""

    config: RunConfig
    placement: Placement
    key: SecretStr = field(default_factory=lambda: SecretStr(secrets.token_hex(32)))
    """Of the servers: other users of the machine are refused."""
    _actors: dict[str, Any] = field(default_factory=dict, init=False)
    """By model."""
    _names: dict[str, str] = field(default_factory=dict, init=False)
    _processes: dict[str, Processes] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for number, judge in enumerate(self.config.served_judges):
            options = self.placement.judge_options(number)
            model = served_model(judge, self.placement.layout.device)
            self._names[model.name] = f"judge-{secrets.token_hex(8)}"
            actor = ray.remote(JudgeServer).options(**options, max_restarts=-1, name=self._names[model.name])
            self._actors[model.name] = actor.remote(model, self.key)

    def by_task(self) -> dict[str, str]:
        """Names of the actors."""
        return {name: self._names[judge.model or ""] for name, judge in self.config.judges.items() if judge.served}

    async def start(self) -> None:
        """RunError when one does not start."""
        await asyncio.gather(*(self._start(judge) for judge in self.config.served_judges))

    async def _start(self, judge: JudgeModel) -> None:
        actor, who = self._actors[judge.model or ""], f"the server of judge model {judge.model}"
        self._processes[judge.model or ""] = await within(_PLACE_S, who, "be placed", actor.processes.remote())
        await within(STARTS * (judge.serve.start_deadline_s + 60), who, "start", actor.url.remote())

    async def end(self) -> None:
        await asyncio.gather(*(end_actor(actor, self._processes.get(name)) for name, actor in self._actors.items()))


def served_model(judge: JudgeModel, device: Any) -> ServedModel:
    serve = judge.serve
    return ServedModel(
        judge.model or "",
        served_path(judge),
        device,
        serve.gpus,
        serve.dtype,
        serve.max_model_tokens,
        serve.gpu_memory_fraction,
        serve.cpu_cache_gib,
        judge.concurrency,
        serve.start_deadline_s,
    )
