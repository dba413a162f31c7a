"""Places the actors: connects to Ray and reserves all places at once, or says what is missing."""

import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.cluster.own_ray import close_token_file, have_token, ray_folder, signals_kept, silence_expected_warnings
from actors.cluster.processes import new_mark
from openrs_ray.cluster.layout import Device, Layout, engines_layout, plan_layout, transport_class
from openrs_ray.common.foreign import why
from openrs_ray.config.placement import EngineSlots, Slots
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError, UserError
from openrs_ray.run.spans import handed_on

_OBJECT_STORE_BYTES = 256 << 20  # of a Ray started here: it holds token ids and log-probabilities only

_REACH_S = 10.0

GPU_SAMPLER = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
"""Without nvcc, FlashInfer would fail to compile its sampler and end the engine."""

_NICENESS = "RAY_worker_niceness"
# Otherwise an image made for another trainer may show an actor all GPUs.
_OWN_GPUS = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "0"}


def _niceness() -> dict[str, str]:
    """Variable for an actor's priority, that of other processes: Ray's niceness of 15 starves it beside any that computes."""
    return {_NICENESS: os.environ.get(_NICENESS, "0")}


def joins_cluster() -> bool:
    """True in a submitted job, or where the user names a cluster."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextmanager
def connection() -> Iterator[None]:
    """Connection to the cluster of RAY_ADDRESS, or to a Ray started here and ended with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    silence_expected_warnings()
    close_token_file()
    with ExitStack() as ending:
        with signals_kept():
            _join_or_start(ending)
        yield


def _join_or_start(ending: ExitStack) -> None:
    if joins_cluster():
        try:
            _reach(os.environ["RAY_ADDRESS"])
            ray.init(log_to_driver=False, logging_level="warning")
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise UserError(
                f"cannot join a Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({why(error)}): start one with "
                "`ray start --head`, set the address as host:port, give its token, or unset RAY_ADDRESS"
            ) from error
    else:
        # "local", since Ray would otherwise join any cluster that happens to run on this machine.
        have_token()
        os.environ.setdefault(_NICENESS, "0")
        folder = ending.enter_context(ray_folder())
        try:
            ray.init(
                address="local",
                log_to_driver=False,
                logging_level="warning",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray raises bare ones when the machine is too busy or full to start it
            raise RunError(f"Ray did not start on this machine: {error}") from error
    ending.callback(ray.shutdown)


def _reach(address: str) -> None:
    """OSError or ValueError when nobody listens at host:port; Ray takes minutes to say that."""
    if address not in ("auto", "local") and "://" not in address:
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


def check_machine(config: RunConfig) -> None:
    """UserError when this machine has less than the run asks for. Starts nothing."""
    has = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    asked = plan_layout(config, _device(config.placement, has["GPU"])).total()
    if any(asked[name] > has[name] for name in asked):
        raise UserError(
            f"the run asks for {_amounts(asked)} but this machine has {_amounts(has)}: lower placement.num_rollout_gpus, "
            "placement.num_learner_gpus or placement.cpus_per_slot, or set RAY_ADDRESS to a cluster that has them"
        )


def check_build(place: Slots) -> None:
    """UserError when torch and vLLM are built for the other kind of device."""
    device = _device(place, float(torch.cuda.device_count()))
    built_for: Device = "cpu" if torch.version.cuda is None else "gpu"
    if device != built_for:
        raise UserError(
            f"the run is placed on a {device.upper()} but the installed torch and vLLM are built for {built_for.upper()}s: set "
            f"placement.device {built_for}, or remove .venv and run OPENRS_BUILD={device} bash launch/setup.sh"
        )


def place(config: RunConfig) -> "Placement":
    """Reserve the run's places; UserError when the cluster lacks them."""
    return reserve(plan_layout(config, _device(config.placement, cluster_gpus())), config.placement.wait_s)


def place_engines(slots: EngineSlots, engine: Engine) -> "Placement":
    """Reserve places for engines alone."""
    gpus = cluster_gpus()
    return reserve(engines_layout(slots, engine, _device(slots, gpus), gpus), slots.wait_s)


def cluster_gpus() -> float:
    return float(ray.cluster_resources().get("GPU", 0.0))


def engine_variables(device: Device) -> dict[str, str]:
    variables = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    if device == "cpu":
        # One process per engine; no thread pinning on small machines; nothing to compile without graphs (compiling a
        # helper of the sampler would cost 25 s and a C++ compiler at the first token).
        variables |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "TORCH_COMPILE_DISABLE": "1",
        }
    else:
        # Attention in float32 is Triton's, whose products would round their factors to TF32: log-probabilities off by 9e-4.
        variables |= GPU_SAMPLER | {"TRITON_F32_DEFAULT": "ieee"}
    return variables


def _device(place: Slots, gpus: float) -> Device:
    if place.device != "auto":
        return place.device
    return "gpu" if gpus else "cpu"


@dataclass(frozen=True)
class Placement:
    """Reserved places, one per actor, and each actor's environment.

    When a node is lost, Ray moves the places of a group only together: all but the learner have their own.
    """

    layout: Layout
    learner_group: PlacementGroup | None
    """On shared GPUs the engines', too."""
    reward_group: PlacementGroup | None
    rollout_groups: dict[int, PlacementGroup]
    """By engine; none on shared GPUs."""
    environment_group: PlacementGroup | None = None
    judge_groups: tuple[PlacementGroup, ...] = ()
    """By server of a judge model."""

    def learner_options(self, rank: int) -> dict[str, Any]:
        variables = self._threads() | self._transport().learner_variables() | handed_on(f"learner-{rank}")
        return self._options(self.learner_group, rank, self.layout.learner[rank], variables)

    def rollout_options(self, worker: int) -> dict[str, Any]:
        variables = self._threads() | engine_variables(self.layout.device) | self._transport().engine_variables()
        variables |= handed_on(f"engine-{worker}")
        if self.layout.colocated:
            return self._options(self.learner_group, worker, self.layout.rollout[worker], variables)
        bundle = self.layout.rollout[0]
        if worker not in self.rollout_groups:
            self.rollout_groups[worker] = placement_group([bundle])
        return self._options(self.rollout_groups[worker], 0, bundle, variables)

    def is_extra(self, worker: int) -> bool:
        return worker >= len(self.layout.rollout)

    def extra_places(self, taken: Collection[int]) -> list[int]:
        """Numbers of further engines that the cluster has room for, except `taken`."""
        fixed = len(self.layout.rollout)
        places = [place for place in range(fixed, fixed + self.layout.extra_rollout) if place not in taken]
        if not places:
            return []
        free = ray.available_resources()
        room = min(free.get(name, 0.0) // amount for name, amount in self.layout.rollout[0].items())
        return places[: int(room)]

    def extra_engines(self) -> int:
        """Placed engines beyond those of the layout."""
        return sum(map(self.is_extra, list(self.rollout_groups)))

    def leave(self, worker: int) -> None:
        if group := self.rollout_groups.pop(worker, None):
            remove_placement_group(group)

    def reward_options(self) -> dict[str, Any]:
        variables = {"CUDA_VISIBLE_DEVICES": ""} | handed_on("rewards")
        return self._options(self.reward_group, 0, {"CPU": self.layout.reward_cpus}, variables)

    def environment_options(self) -> dict[str, Any]:
        variables = {"CUDA_VISIBLE_DEVICES": ""} | handed_on("environments")
        return self._options(self.environment_group, 0, {"CPU": self.layout.environment_cpus}, variables)

    def judge_options(self, number: int) -> dict[str, Any]:
        variables = self._threads() | engine_variables(self.layout.device)
        return self._options(self.judge_groups[number], 0, self.layout.judges[number], variables)

    def _options(
        self, group: PlacementGroup | None, index: int, bundle: dict[str, float], variables: dict[str, str]
    ) -> dict[str, Any]:
        return {
            "num_cpus": bundle["CPU"],
            "num_gpus": bundle.get("GPU", 0),
            "runtime_env": {"env_vars": variables | _OWN_GPUS | _niceness() | new_mark()},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        }

    def _transport(self) -> Any:
        return transport_class(self.layout.transport)()

    def _threads(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(self.layout.threads)} if self.layout.device == "cpu" else {}

    def groups(self) -> list[PlacementGroup]:
        groups = self.learner_group, *self.rollout_groups.values(), *self.judge_groups, self.reward_group
        groups = *groups, self.environment_group
        return [group for group in groups if group is not None]

    def release(self) -> None:
        for group in self.groups():
            remove_placement_group(group)


def reserve(layout: Layout, wait_s: float) -> Placement:
    """Reserve all places, waiting up to `wait_s` for them. UserError when the cluster lacks some."""
    slots = layout.learner
    if layout.colocated:
        slots = tuple({name: 2 * amount for name, amount in bundle.items()} for bundle in layout.learner)
    engines = {} if layout.colocated else dict(enumerate(layout.rollout))
    cpus, environment_cpus = layout.reward_cpus, layout.environment_cpus
    placement = Placement(
        layout,
        # First: it needs one node for all its places.
        learner_group=placement_group(list(slots), strategy="STRICT_PACK") if slots else None,
        rollout_groups={engine: placement_group([bundle]) for engine, bundle in engines.items()},
        reward_group=placement_group([{"CPU": cpus}]) if cpus else None,
        environment_group=placement_group([{"CPU": environment_cpus}]) if environment_cpus else None,
        judge_groups=tuple(placement_group([bundle]) for bundle in layout.judges),
    )
    deadline = time.monotonic() + wait_s
    for group in placement.groups():
        if not group.wait(max(0.1, deadline - time.monotonic())):
            placement.release()
            raise UserError(
                f"the run asks for {_amounts(layout.total())}{' (those of the learner on one node)' * bool(slots)} but the "
                f"cluster has {_amounts(ray.cluster_resources())}, free {_amounts(ray.available_resources())}: lower "
                f"placement.num_rollout_gpus, {'placement.num_learner_gpus ' * bool(slots)}or placement.cpus_per_slot, add "
                f"nodes, or raise placement.wait_s ({wait_s:.0f} s) if nodes are on their way"
            )
    return placement


def _amounts(resources: dict[str, float]) -> str:
    return " and ".join(f"{resources.get(name, 0):g} {name}s" for name in ("GPU", "CPU"))
