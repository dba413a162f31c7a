"""`python -m launch.performance.rewards FILE.jsonl`: the reward pool's checks per second against serial math-verify.

FILE has a column of gold answers, as training data does. Each gold is checked against itself and against its neighbour, in
training's form (the last box after the reasoning) by the pool and in math-verify's own form, one after the other in one
process, by the baseline. Every repetition has golds of its own, so that nothing is remembered from the one before. The ideal is
the baseline's speed times the pool's processes. A last part puts a poisoned answer among the others and measures how much
later than without it they are done.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from math_verify import parse, verify

from launch.cli.command import command
from launch.cli.options import Parser
from launch.performance.report import Figure, add_json, measured, ratios, report
from openrs_ray.data.rows import read_rows
from openrs_ray.errors import RunError, UserError
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge import WARM_UP, Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem

POISON = "|x|" * 300
"""The parser tries every bar as an opening and as a closing one."""
DEADLINE_S = 5.0
_RESTART_S = 8.0


def pairs(golds: Sequence[str]) -> list[tuple[str, str]]:
    """(answer, gold): every gold with itself and with its neighbour."""
    return [*zip(golds, golds, strict=True), *zip([*golds[1:], golds[0]], golds, strict=True)]


def rounds_of(golds: Sequence[str], size: int, rounds: int) -> list[list[tuple[str, str]]]:
    """The checks of so many repetitions and of a first one that only warms up, of `size` golds each, or fewer where there are not
    enough."""
    size = min(size, len(golds) // (rounds + 1))
    return [pairs(golds[number * size : (number + 1) * size]) for number in range(rounds + 1)]


def item(answer: str, gold: str) -> JudgeItem:
    return JudgeItem(rf"<think></think> \boxed{{{answer}}}", 20, "stop", (gold,))


def _items(checks: Sequence[tuple[str, str]]) -> list[JudgeItem]:
    return [item(answer, gold) for answer, gold in checks]


def serial(checks: Sequence[tuple[str, str]]) -> list[bool]:
    """math-verify alone, without its time limits (they need the main thread's alarm, and cost time)."""
    return [
        verify(
            parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None
        )
        for answer, gold in checks
    ]


def pooled(pool: CheckPool[JudgeItem, Verdict], items: Sequence[JudgeItem]) -> list[Status]:
    futures = [pool.submit(one) for one in items]
    return [future.result().status for future in futures]


def poisoned(pool: CheckPool[JudgeItem, Verdict], items: Sequence[JudgeItem]) -> float:
    """Seconds until all items are judged when a poisoned one came first; the poisoned one is then waited for, too."""
    started = time.perf_counter()
    poison = pool.submit(item(POISON, r"\sqrt{2}"))
    pooled(pool, items)
    took = time.perf_counter() - started
    if poison.result().status is not Status.TIMEOUT:
        raise RunError(f"the poisoned answer was judged {poison.result().status}: it does not hang on this machine")
    time.sleep(_RESTART_S)  # so that the next round finds all processes ready, as this one did
    return took


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@command
def main(arguments: list[str]) -> int:
    parser = Parser("performance.rewards", __doc__)
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="problems with gold answers (.jsonl, .json or .parquet)"
    )
    parser.add_argument("--column", default="answer", help="the column of gold answers (default: answer)")
    parser.add_argument("--problems", type=int, default=300, help="so many in every repetition (default: 300)")
    parser.add_argument("--processes", type=int, default=2, help="checking processes; at most the CPUs (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions (default: 5)")
    add_json(parser)
    return measured(_measure, parser.parse_args(arguments))


def _measure(options: Namespace) -> None:
    try:
        golds = [str(row[options.column]) for row in read_rows(str(options.file), "train")]
    except (UserError, KeyError) as error:
        raise UserError(f"cannot read {options.file}: {error}") from error
    first, *checks = rounds_of(list(dict.fromkeys(golds)), options.problems, options.rounds)
    if not first:
        raise UserError(f"{options.file} has {len(golds)} rows, too few for {options.rounds} repetitions")
    warm_up, items = _items(first), list(map(_items, checks))
    judge = Judge({"accuracy": 1.0}, "boxed")
    with CheckPool(judge, options.processes, DEADLINE_S, 2.0, WARM_UP) as pool:
        pooled(pool, warm_up), serial(first)  # both with SymPy's caches full
        pairs_s = [
            (seconds(partial(serial, alone)), seconds(partial(pooled, pool, part)))
            for alone, part in zip(checks, items, strict=True)
        ]
        known_s = [seconds(partial(pooled, pool, part)) for part in items]
        poisoned_s = [poisoned(pool, part) for part in items]
    alone, ours = ([len(first) / s for s in taken] for taken in zip(*pairs_s, strict=True))
    later = [with_poison - without for with_poison, without in zip(poisoned_s, known_s, strict=True)]
    figures = [
        Figure("math-verify, one process", "checks/s", tuple(alone)),
        Figure(f"reward pool, {options.processes} processes", "checks/s", tuple(ours)),
        ratios(f"pool / ({options.processes} x math-verify)", ours, alone, ">= 0.9", factor=options.processes),
        Figure("others later by a poisoned answer", "s", tuple(later), f"< {DEADLINE_S:g} (its deadline)"),
    ]
    settings = {"file": str(options.file), "checks": len(first), "processes": options.processes}
    report(f"Reward checks: {len(first)} of {options.file.name}", settings, figures, options.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
