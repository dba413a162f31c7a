"""`python -m launch.verify FILE.jsonl [--kind KIND] [--answer.FIELD VALUE]`: check answers from a file with the reward pool.

Reads lines with `pred` (a model's output), `gold` (the accepted answer, or a list of them) and the columns that the fields of
`answer` name; writes one JSON verdict per line to stdout, in order, and a summary to stderr. The file is read twice, to find bad
lines first.
"""

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, get_args

from launch.cli.command import command
from launch.cli.options import Parser
from openrs_ray.common.foreign import parse_json, why
from openrs_ray.config.answer import Answer, AnswerKind
from openrs_ray.config.load import checked
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.section import Section
from openrs_ray.data.answers import cell_texts
from openrs_ray.data.columns import CellError, kind
from openrs_ray.errors import UserError
from openrs_ray.records import Verdict
from openrs_ray.rewards.answers.kinds import check_kind, warm_up
from openrs_ray.rewards.judge import WARM_UP, Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import Extraction, JudgeItem

_LINES_PER_PROCESS = 64
"""Read ahead for each process: enough work behind one slow check."""
_MEMORY_GIB = 2.0
_KINDS = [kind for kind in get_args(AnswerKind) if kind != "none"]


class _Fields(Section):
    answer: Answer = Answer()


@command
def main(arguments: list[str]) -> None:
    parser = _parser()
    options, fields = parser.parse_with_fields(arguments)
    answer = checked(_Fields, {"answer": {"kind": options.kind}}, fields, "--kind", flags=parser.flags).answer
    check_kind(answer, Rewards.model_validate({"extraction": options.extraction}))
    counted: Counter[str] = Counter()
    for verdict in verdicts(options.file, options.extraction, options.processes, options.deadline, answer):
        counted[verdict.status] += 1
        line = json.dumps(_as_json(verdict), ensure_ascii=False)
        # A lone surrogate, which JSON may hold, is no text that can be written but by its escape.
        sys.stdout.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()
    found = ", ".join(f"{count} {status}" for status, count in counted.most_common())
    sys.stderr.write(f"{counted.total()} checked: {found or 'nothing'}\n")


def verdicts(
    path: Path, extraction: Extraction, processes: int, deadline_s: float, answer: Answer
) -> Iterator[Verdict]:
    """In order. UserError for any bad line, before the first verdict."""
    for _ in read_items(path):
        pass
    waiting: deque[Future[Verdict]] = deque()
    check = Judge({"accuracy": 1.0}, extraction, answer=answer)
    with CheckPool(check, processes, deadline_s, _MEMORY_GIB, warm_up(answer) or WARM_UP) as pool:
        for item in read_items(path):
            waiting.append(pool.submit(item))
            if len(waiting) == processes * _LINES_PER_PROCESS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_items(path: Path) -> Iterator[JudgeItem]:
    """UserError with the number of a bad line."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_item(line, f"{path}, line {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"the file {path} is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {why(error)}") from error


def _read_item(line: str, where: str) -> JudgeItem:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON") from error
    if not isinstance(row, dict) or "pred" not in row or "gold" not in row:
        raise UserError(f"{where} must be an object with the keys pred and gold")
    if not isinstance(row["pred"], str | int | float) or isinstance(row["pred"], bool):
        raise UserError(f"{where}: pred must be a string or a number, not {kind(row['pred'])}")
    try:
        # A missing gold (null) is no bad line: its verdict is unparseable_gold.
        return JudgeItem(str(row["pred"]), 0, "stop", tuple(cell_texts(row["gold"])), row=row)
    except CellError as error:
        raise UserError(f"{where}, gold: {error}") from error


def _as_json(verdict: Verdict) -> dict[str, Any]:
    line = {"status": verdict.status.value, "answer": verdict.answer, "seconds": round(verdict.seconds, 4)}
    return line | ({"detail": verdict.detail} if verdict.detail else {})


def _parser() -> Parser:
    fields = "Fields of a recipe's section answer: --answer.tolerance 0.05 --answer.choices options (docs/answers.md)."
    parser = Parser("verify", "Check answers from a file.", fields)
    file = "JSONL with the keys pred and gold (a string or a list)"
    parser.add_argument("file", metavar="FILE", type=Path, help=file)
    where = "boxed: the last \\boxed{} only, as training does; any: anywhere, as math-verify does (default: boxed)"
    parser.add_argument("--kind", choices=_KINDS, default="math", help="answer.kind of a recipe (default: math)")
    parser.add_argument("--extraction", choices=("boxed", "any"), default="boxed", help=where)
    parser.add_argument("--processes", type=_positive(int), default=os.cpu_count() or 1, help="default: one per CPU")
    parser.add_argument("--deadline", type=_positive(float), default=5.0, metavar="S", help="seconds (default: 5)")
    return parser


def _positive(kind: type[int] | type[float]) -> Any:
    def read(text: str) -> float:
        value = kind(text)
        if not 0 < value <= 1_000_000:
            raise ValueError(text)
        return value

    read.__name__ = f"positive {kind.__name__}"  # argparse puts it into its message
    return read


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
