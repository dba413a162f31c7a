"""`python -m launch.performance.rollout`: tokens per second of a rollout worker against raw `vllm.LLM.generate`.

Both engines live on the same GPU, each with 0.4 of its memory, load the same weights and sample the same requests in turn:
same prompts, seeds and temperature, log-probabilities of the sampled tokens. The worker's time runs from handing out the
requests to holding the last completion in the driver; raw vLLM's covers `generate` alone. Dry run: `--workload tiny`.
"""

import asyncio
import sys
import time
from argparse import Namespace

from launch.cli.command import command
from launch.performance.report import Figure, asked, measured, ratios, report
from launch.performance.workload import alternate, load, make_parser, placed, requests
from openrs_ray.preparation.prepared import prepare


@command
def main(arguments: list[str]) -> int:
    return measured(_measure, make_parser("rollout", __doc__, "rounds", 5).parse_args(arguments))


def _measure(options: Namespace) -> None:
    config = load(options, "engine.gpu_memory_fraction=0.4")
    prepared = prepare(config)
    from actors.rollout.loaded import LoadedWorker
    from actors.rollout.pool import EnginePool
    from actors.rollout.settings import EngineSettings
    from launch.performance.parts import start_raw

    async def run() -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
        settings = EngineSettings.of_run(config, prepared.model_path, prepared.eos_ids)
        workers = EnginePool(settings, placement, LoadedWorker)
        await workers.start()  # one after the other: each looks how much of the GPU is free
        raw = await start_raw(config, prepared, placement)

        async def ours(number: int) -> tuple[float, int]:
            wanted, tokens, started = requests(config, prepared, number + 1), 0, time.perf_counter()
            async for completion in workers.completions(wanted):
                tokens += len(completion.token_ids)
            return time.perf_counter() - started, tokens

        async def theirs(number: int) -> tuple[float, int]:
            seconds, sequences = await raw.call("sample", requests(config, prepared, number + 1))
            return seconds, sum(len(sequence.completion_ids) for sequence in sequences)

        try:
            return await alternate(options.rounds, ours, theirs)
        finally:
            await asyncio.gather(raw.call("stop"), workers.stop())

    with placed(config) as placement:
        sides = asyncio.run(run())
    ours, raw = ([tokens / seconds for seconds, tokens in side] for side in sides)
    figures = [
        Figure("raw vLLM", "tokens/s", tuple(raw)),
        Figure("rollout worker", "tokens/s", tuple(ours)),
        ratios("rollout worker / raw vLLM", ours, raw, ">= 0.97"),
        Figure("sampled by raw vLLM", "tokens", tuple(float(tokens) for _, tokens in sides[1])),
        Figure("sampled by the worker", "tokens", tuple(float(tokens) for _, tokens in sides[0])),
    ]
    report(f"Rollouts: {options.workload}", asked(options), figures, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
