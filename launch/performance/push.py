"""`python -m launch.performance.push`: seconds and GB/s of a weight push against the bare transfer of the same bytes.

The push is all of it: pausing the engine, packing, digests, transfer, loading, receipts. Bare is a broadcast of the same
buckets through the same group, or over CUDA IPC and shared memory a copy of them, between the same two processes. With two GPUs
the transport is NCCL, with one CUDA IPC (`--nccl`: NCCL nevertheless), on a CPU shared memory. Dry run: `--workload tiny`.
"""

import asyncio
import sys
from argparse import Namespace
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from launch.cli.command import command
from launch.performance.report import Figure, asked, measured, ratios, report
from launch.performance.workload import alternate, load, make_parser, placed
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.preparation.prepared import Prepared, prepare

if TYPE_CHECKING:
    from actors.cluster.placement import Placement


Side = list[tuple[float, ...]]


def nccl_on_one_gpu(shared: "Placement") -> "Placement":
    """Two processes on one GPU: NCCL refuses that within one host, so that each of them is given a name of its own."""
    from actors.cluster.placement import Placement

    def alone(options: dict[str, Any], host: str) -> dict[str, Any]:
        names = {"NCCL_HOSTID": host, "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
        return options | {"runtime_env": {"env_vars": options["runtime_env"]["env_vars"] | names}}

    class OneGpu(Placement):
        def learner_options(self, rank: int) -> dict[str, Any]:
            return alone(super().learner_options(rank), "learner")

        def rollout_options(self, worker: int) -> dict[str, Any]:
            return alone(super().rollout_options(worker), "rollout")

    layout = replace(shared.layout, transport="nccl")
    return OneGpu(**vars(shared) | {"layout": layout})


async def compare(config: RunConfig, prepared: Prepared, placement: "Placement", rounds: int) -> tuple[Side, Side]:
    """(seconds, bytes, extra memory of sender and receiver in GiB) of every push and, without the memory, bare transfer."""
    from actors.learner.group import LearnerGroup, new_ranks
    from actors.loop.push import WeightPush
    from actors.loop.system import probe_batch
    from actors.rollout.pool import EnginePool
    from actors.rollout.settings import EngineSettings
    from launch.performance.raw_push import RawSender, RawWorker

    transport = placement.layout.transport
    learners = LearnerGroup(config, partial(new_ranks, config, placement, prepared.model_path, RawSender))
    settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
    workers = EnginePool(settings, placement, RawWorker)
    push = WeightPush(learners, workers, transport, config.push, probe_batch(prepared.problems))

    async def sender(method: str, *arguments: Any) -> Any:
        return (await learners.each(method, method, *arguments))[0]

    async def receiver(method: str, *arguments: Any) -> Any:
        (worker,) = workers.supervisor.alive
        return await worker.ask(config.push.deadline_s, "in_engine", method, method, *arguments)

    async def ours(version: int) -> tuple[float, ...]:
        await asyncio.gather(sender("mark_memory"), receiver("mark_memory"))
        done = await push.push(version)
        return done.seconds, done.nbytes, await sender("extra_gib"), await receiver("extra_gib")

    async def bare(version: int) -> tuple[float, ...]:
        sizes = [bucket.nbytes for bucket in await sender("push_buckets")]
        sending = [] if transport == "ipc" else [sender("raw_send", sizes)]
        seconds, *_ = await asyncio.gather(receiver("raw_receive", sizes), *sending)
        return seconds, sum(sizes)

    try:
        await learners.start()
        await workers.start()
        await push.push(0)  # the bare copy over IPC needs a buffer that a push has mapped
        return await alternate(rounds, ours, bare)
    finally:
        await workers.stop()


@command
def main(arguments: list[str]) -> int:
    parser = make_parser("push", __doc__, "rounds", 5)
    parser.add_argument("--nccl", action="store_true", help="NCCL between two processes on one GPU")
    return measured(_measure, parser.parse_args(arguments))


def _measure(options: Namespace) -> None:
    import torch

    gpus = torch.cuda.device_count()
    if options.nccl and gpus != 1:
        raise UserError(f"--nccl is for a machine with one GPU, and this one has {gpus}: leave it out")
    config = load(options, f"placement.colocated={'false' if gpus > 1 else 'true'}")
    prepared = prepare(config)
    with placed(config) as reserved:
        placement = nccl_on_one_gpu(reserved) if options.nccl else reserved
        pushes, transfers = asyncio.run(compare(config, prepared, placement, options.rounds))
    seconds, nbytes, *memory = zip(*pushes, strict=True)
    rate, bare_rate = ([size / 1e9 / s for s, size, *_ in side] for side in (pushes, transfers))
    figures = [
        Figure("bare transfer", "s", tuple(s for s, _ in transfers)),
        Figure("push", "s", seconds),
        Figure("bare transfer", "GB/s", tuple(bare_rate)),
        Figure("push", "GB/s", tuple(rate)),
        ratios("push / bare transfer, GB/s", rate, bare_rate),
    ]
    if gpus:
        ends = zip(("sender", "receiver"), memory, strict=True)
        figures += [Figure(f"peak extra memory, {end}", "GiB", values) for end, values in ends]
    title = f"Weight push: {options.workload}, {nbytes[0] / 1e9:.3g} GB over {placement.layout.transport}"
    report(title, asked(options) | {"bytes": nbytes[0]}, figures, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
