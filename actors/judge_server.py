"""The judge model's server as an actor, on GPUs of its own: dead or silent, it is replaced; it ends with its actor."""

import os
from contextlib import suppress

import psutil
import ray
from pydantic import SecretStr

from actors.cluster.processes import Processes, own_processes
from actors.rollout.engine_log import OwnLog
from openrs_ray.rewards.judge_model.server import ServedModel, Server


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

    async def close(self) -> None:
        await self._server.close()


def _kill_others() -> None:
    """End all processes of this actor but itself."""
    for process in own_processes().found():
        if process.pid != os.getpid():
            with suppress(psutil.NoSuchProcess):
                process.kill()
