"""`python -m launch.benchmarks.rollout`: tokens per second of a rollout worker against raw `vllm.LLM.generate`.

Both engines live on the same GPU, each with 0.4 of its memory, load the same weights and sample the same requests in turn:
same prompts, seeds and temperature, log-probabilities of the sampled tokens. The worker's time runs from handing out the
requests to holding the last completion in the driver; raw vLLM's covers `generate` alone. Dry run: `--workload tiny`.
"""

import asyncio
import sys
import time

from launch.benchmarks.report import Figure, ratios, report
from launch.benchmarks.workload import alternate, command, load, make_parser, placed, positive, requests
from openrs_ray.prepared import prepare


def measure(arguments: list[str]) -> None:
    parser = make_parser("rollout", __doc__)
    parser.add_argument("--rounds", type=positive, default=5, help="repetitions (default: 5)")
    options = parser.parse_args(arguments)
    config = load(options, "rollout.gpu_memory_fraction=0.4")
    prepared = prepare(config)
    from actors.rollouts import RolloutWorkers
    from launch.benchmarks.parts import LoadedWorker, start_raw

    with placed(config) as placement:
        workers = RolloutWorkers(config, placement, prepared.model_path, prepared.eos_ids, LoadedWorker)

        async def ours(number: int) -> tuple[float, int]:
            asked, tokens, started = requests(config, prepared, number + 1), 0, time.perf_counter()
            async for batch in workers.generate(asked, version=0):
                tokens += sum(len(completion.token_ids) for completion in batch)
            return time.perf_counter() - started, tokens

        async def run() -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
            await workers.start()  # one after the other: each looks how much of the GPU is free
            raw = await start_raw(config, prepared, placement)

            async def theirs(number: int) -> tuple[float, int]:
                seconds, sequences = await raw.call("sample", requests(config, prepared, number + 1))
                return seconds, sum(len(sequence.completion_ids) for sequence in sequences)

            try:
                return await alternate(options.rounds, ours, theirs)
            finally:
                await asyncio.gather(raw.call("stop"), workers.stop())

        worker, raw = asyncio.run(run())
    ours_speed, raw_speed = ([tokens / seconds for seconds, tokens in side] for side in (worker, raw))
    figures = [
        Figure("raw vLLM", "tokens/s", tuple(raw_speed)),
        Figure("rollout worker", "tokens/s", tuple(ours_speed)),
        ratios("rollout worker / raw vLLM", ours_speed, raw_speed, ">= 0.97"),
        Figure("sampled by raw vLLM", "tokens", tuple(float(tokens) for _, tokens in raw)),
        Figure("sampled by the worker", "tokens", tuple(float(tokens) for _, tokens in worker)),
    ]
    settings = {"workload": options.workload, "changes": options.changes, "completions": config.completions_per_step}
    report(f"Rollouts: {options.workload}", settings, figures, options.json)


def main(arguments: list[str]) -> int:
    return command(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
