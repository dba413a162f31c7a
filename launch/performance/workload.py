"""Workload of a measurement: a recipe in workloads/, changed by options, and its place on the cluster.

Also compares two sides: in turn, in one run, after a round that is not counted.
"""

import argparse
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from launch.cli.numbers import positive
from launch.cli.options import Parser
from launch.performance.models import SHAPES, model_path
from launch.performance.report import add_json
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.errors import UserError
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Problem
from openrs_ray.seeds import completion_seed

if TYPE_CHECKING:
    from actors.cluster.placement import Placement
    from actors.rollout.worker import Request

T = TypeVar("T")

_RECIPES = Path(__file__).parent / "workloads"
WORKLOADS = ("random-1.5b", "smollm2", "toy", "tiny")


def make_parser(name: str, description: str | None, repeated: str, times: int) -> Parser:
    """The options that every benchmark with a workload has; `repeated`: what it counts (rounds or steps)."""
    parser = Parser(f"performance.{name}", description)
    parser.add_argument("--workload", choices=WORKLOADS, default=WORKLOADS[0], help=f"default: {WORKLOADS[0]}")
    parser.add_argument("--problems", metavar="FILE", help="problems to sample for (random models: built-in sums)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the recipe")
    parser.add_argument(f"--{repeated}", type=positive, default=times, help=f"counted {repeated} (default: {times})")
    add_json(parser)
    return parser


def load(options: argparse.Namespace, *changes: str) -> RunConfig:
    """The workload's recipe with its model made, then `changes` ("field=value"), then those of the command line."""
    name = options.workload
    if name == "smollm2" and options.problems is None:
        raise UserError("the workload smollm2 needs --problems FILE, a file with columns problem and answer")
    data = [f"data.path={options.problems}"] if options.problems else []
    model = [f"model.path={model_path(name)}"] if name in SHAPES else []
    return load_config(_RECIPES / f"{name}.yaml", [f"--{change}" for change in (*data, *model, *changes, *options.set)])


@contextmanager
def placed(config: RunConfig) -> Iterator["Placement"]:
    """The workload's places on a Ray of our own, or on the cluster of RAY_ADDRESS."""
    from actors.cluster.placement import check_build, check_machine, connection, joins_cluster, place

    if not joins_cluster():
        check_machine(config)
    check_build(config.placement)
    with connection():
        placement = place(config)
        try:
            yield placement
        finally:
            placement.release()


def drawn(config: RunConfig, prepared: Prepared, step: int) -> list[tuple[int, Problem]]:
    """The (position, problem) pairs that a run draws for its step 1, 2, ..."""
    count = config.rollout.problems_per_step
    order, first = Mixture.of(config.run.seed, config.tasks, prepared.sizes), (step - 1) * count
    return [(position, prepared.problems[order.index(position)]) for position in range(first, first + count)]


def requests(config: RunConfig, prepared: Prepared, step: int) -> "list[Request]":
    """Requests of a run for its step 1, 2, ..."""
    from actors.rollout.worker import Request

    rollout, seed, most = config.rollout, config.run.seed, config.rollout.max_completion_tokens
    return [
        Request(p, s, problem.prompt_ids, completion_seed(seed, "train", 0, p, s), rollout.temperature, most)
        for p, problem in drawn(config, prepared, step)
        for s in range(rollout.completions_per_problem)
    ]


async def alternate(
    rounds: int, ours: Callable[[int], Awaitable[T]], theirs: Callable[[int], Awaitable[T]]
) -> tuple[list[T], list[T]]:
    """Results of both sides in rounds 1, 2, ...; each is first every other time. Round 0 warms both up."""
    results: tuple[list[T], list[T]] = ([], [])
    for number in range(rounds + 1):
        for side in (0, 1) if number % 2 else (1, 0):
            result = await (ours, theirs)[side](number)
            if number:
                results[side].append(result)
    return results
