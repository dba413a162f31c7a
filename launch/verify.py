"""`python -m launch.verify FILE.jsonl [--kind KIND] [--rewards NAME ...]`: judge answers from a file with the reward pool.

Reads lines with `pred` (a model's output), `gold` (the accepted answer, or a list of them) and the columns that the fields of
`answer` name; writes one JSON verdict per line to stdout, in order, and a summary to stderr. The file is read twice, to find bad
lines first. With `--rewards` each verdict has its rewards, those of the user's own too: a line is the row that these see.
"""

import json
import os
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import yaml

from launch.cli.command import command
from launch.cli.numbers import number, whole
from launch.cli.options import Parser
from openrs_ray.common.console import json_output
from openrs_ray.common.foreign import parse_json, why
from openrs_ray.config.answer import Answer, AnswerKind
from openrs_ray.config.load import checked
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.section import Section
from openrs_ray.config.yaml_text import parsed, yaml_problem
from openrs_ray.data.answers import cell_texts
from openrs_ray.data.columns import CellError, kind
from openrs_ray.errors import UserError
from openrs_ray.records import Verdict
from openrs_ray.rewards.answers.kinds import check_kind, warm_up
from openrs_ray.rewards.judge import WARM_UP, Judge, Judges, group_item, judge_group, with_own_group_rewards
from openrs_ray.rewards.own import OF_ALL, OwnReward
from openrs_ray.rewards.own_functions import own_rewards
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import Extraction, GroupItem, GroupRewards, JudgeItem
from openrs_ray.rewards.registry import GROUP, SINGLE, check_reward_names
from openrs_ray.user_code.reference import UserCode

_LINES_PER_PROCESS = 64
"""Read ahead for each process: enough work behind one slow check."""
_MEMORY_GIB = 2.0


class _Fields(Section):
    answer: Answer = Answer()


Pool = CheckPool[JudgeItem | GroupItem, Verdict | GroupRewards]


@dataclass(frozen=True)
class Asked:
    """Rewards to compute. Example: Asked(("accuracy", "my_rewards.py:brevity"), {"my_rewards.py:brevity": OwnReward(...)})"""

    names: tuple[str, ...] = ("accuracy",)
    own: Mapping[str, OwnReward] = field(default_factory=dict)
    answer: Answer = field(default_factory=Answer)

    @classmethod
    def of(cls, names: Sequence[str], parameters: str, answer: Answer) -> "Asked":
        """UserError for a reward that does not exist or cannot be used."""
        check_reward_names(dict.fromkeys(names, 1.0))
        if served := [name for name in names if name not in (SINGLE | GROUP) and ".py:" not in name]:
            raise UserError(f"--rewards {served[0]} is a judge model's, which runs only in a training")
        own = own_rewards(names, _mapping(parameters), partial(UserCode.read, folders=[Path.cwd()]), _MEMORY_GIB)
        return cls(tuple(names) or cls.names, own, answer)

    def judges(self, extraction: Extraction) -> Judges:
        return Judges({"": Judge(self.weights, extraction, answer=self.answer, own=self.own)})

    @property
    def unchecked(self) -> bool:
        return self.answer.kind == "none"

    @property
    def weights(self) -> dict[str, float]:
        return dict.fromkeys(self.names, 1.0)

    @property
    def of_groups(self) -> bool:
        return any(name in GROUP for name in self.names) or any(one.judges == OF_ALL for one in self.own.values())


@command
def main(arguments: list[str]) -> None:
    parser = _parser()
    options, fields = parser.parse_with_fields(arguments)
    answer = checked(_Fields, {"answer": {"kind": options.kind}}, fields, "--kind", flags=parser.flags).answer
    asked = Asked.of(options.rewards, options.parameters, answer)
    section = {"extraction": options.extraction, "weights": asked.weights}
    check_kind(answer, Rewards.model_validate(section))
    counted: Counter[str] = Counter()
    sums: defaultdict[str, list[float]] = defaultdict(list)
    lines: list[dict[str, Any]] = []
    with json_output(options.json) as document:
        for verdict in verdicts(options.file, options.extraction, options.processes, options.deadline, asked):
            counted[verdict.status.value] += 1
            for name, value in verdict.rewards.items() if options.rewards else ():
                sums[name].append(value)
            line = _as_json(verdict, with_rewards=bool(options.rewards))
            if options.json:
                lines.append(line)
            else:
                # A lone surrogate, which JSON may hold, is no text that can be written but by its escape.
                text = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
                sys.stdout.write(f"{text}\n")
        rewards = {name: _spread(values) for name, values in sums.items()}
        document({"checked": counted.total(), "statuses": counted, "rewards": rewards, "verdicts": lines})
    sys.stdout.flush()
    found = ", ".join(f"{count} {status}" for status, count in counted.most_common())
    sys.stderr.write(f"{counted.total()} checked: {found or 'nothing'}\n")
    for name, of in rewards.items():
        sys.stderr.write(
            f"{name}: mean {of['mean']:.4g}, from {of['least']:.4g} to {of['most']:.4g}, {of['judged']} judged\n"
        )


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": sum(values) / len(values), "least": min(values), "most": max(values), "judged": len(values)}


def verdicts(
    path: Path, extraction: Extraction, processes: int, deadline_s: float, asked: Asked | None = None
) -> Iterator[Verdict]:
    """In order. UserError for any bad line, before the first verdict."""
    asked = asked or Asked()
    for _ in read_items(path, asked.unchecked):
        pass
    judges = asked.judges(extraction)
    prepare = partial(judges.prepare, warm_up(asked.answer) or WARM_UP)
    more = judges.own_deadline_s
    with Pool(judges, processes, deadline_s, _MEMORY_GIB, prepare=prepare, own_deadline_s=more, printed=_show) as pool:
        if not asked.of_groups:
            yield from _judged(read_items(path, asked.unchecked), pool, processes)
            return
        for _, items in groupby(read_items(path, asked.unchecked), lambda item: (item.problem, item.gold)):
            group = list(items)
            yield from _with_group_rewards(group, list(_judged(group, pool, processes)), pool, asked)


def _judged(items: Iterable[JudgeItem], pool: Pool, processes: int) -> Iterator[Verdict]:
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(item))
        if len(waiting) == processes * _LINES_PER_PROCESS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _with_group_rewards(
    items: Sequence[JudgeItem], judged: Sequence[Verdict], pool: Pool, asked: Asked
) -> Sequence[Verdict]:
    finished = judge_group(judged, [item.token_count for item in items], asked.weights)
    item = group_item(items, finished)
    if item is None or not any(one.judges == OF_ALL for one in asked.own.values()):
        return finished
    return with_own_group_rewards(finished, pool.submit(item).result(), asked.weights)


def _show(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def read_items(path: Path, unchecked: bool = False) -> Iterator[JudgeItem]:
    """UserError with the number of a bad line. `unchecked`: a line needs no gold."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_item(line, f"{path}, line {number}", unchecked)
    except UnicodeDecodeError as error:
        raise UserError(f"the file {path} is not UTF-8 text") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {why(error)}") from error


def _read_item(line: str, where: str, unchecked: bool) -> JudgeItem:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON") from error
    if not isinstance(row, dict) or "pred" not in row or ("gold" not in row and not unchecked):
        raise UserError(f"{where} must be an object with the key{' pred' if unchecked else 's pred and gold'}")
    if not isinstance(row["pred"], str | int | float) or isinstance(row["pred"], bool):
        raise UserError(f"{where}: pred must be a string or a number, not {kind(row['pred'])}")
    text, count, reason = str(row["pred"]), row.get("token_count"), row.get("finish_reason")
    try:
        # A missing gold (null) is no bad line: its verdict is unparseable_gold.
        gold = tuple(cell_texts(row.get("gold")))
    except CellError as error:
        raise UserError(f"{where}, gold: {error}") from error
    return JudgeItem(
        text,
        count if isinstance(count, int) else len(text.split()),
        reason if isinstance(reason, str) else "stop",
        gold,
        problem=str(row.get("problem", "")),
        row=row,
    )


def _as_json(verdict: Verdict, with_rewards: bool = False) -> dict[str, Any]:
    line: dict[str, Any] = {"status": verdict.status.value, "answer": verdict.answer}
    if with_rewards:
        line |= {"rewards": dict(verdict.rewards)}
    line |= {"seconds": round(verdict.seconds, 4)}
    return line | ({"detail": verdict.detail} if verdict.detail else {})


def _mapping(text: str) -> dict[str, dict[str, Any]]:
    try:
        content = parsed(text)
    except yaml.YAMLError as error:
        raise UserError(f"--parameters is not YAML: {yaml_problem(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UserError("--parameters must be as in a recipe: {brevity: {scale: 2.0}}")
    return content


def _parser() -> Parser:
    fields = "Fields of a recipe's section answer: --answer.tolerance 0.05 --answer.choices options (docs/answers.md)."
    parser = Parser("verify", "Judge answers from a file.", fields)
    file = (
        "JSONL with the keys pred and gold (a string or a list); for own rewards also problem, token_count (default: the number "
        "of words), finish_reason and any others: they are the row"
    )
    parser.add_argument("file", metavar="FILE", type=Path, help=file)
    named = (
        "a reward by name, or one of your own as FILE.py:FUNCTION; may be given several times. Lines with the same problem and "
        "gold one after the other are the group of a reward that compares completions"
    )
    parser.add_argument("--rewards", action="append", default=[], metavar="NAME", help=named)
    given = "parameters of own rewards, such as '{brevity: {scale: 2.0}}'"
    parser.add_argument("--parameters", default="{}", metavar="YAML", help=given)
    where = "boxed: the last \\boxed{} only, as training does; any: anywhere, as math-verify does (default: boxed)"
    parser.add_argument(
        "--kind", choices=get_args(AnswerKind), default="math", help="answer.kind of a recipe (default: math)"
    )
    parser.add_argument("--extraction", choices=("boxed", "any"), default="boxed", help=where)
    parser.add_argument(
        "--processes", type=whole(1, 1_000_000), default=os.cpu_count() or 1, help="default: one per CPU"
    )
    parser.add_json()
    parser.add_argument(
        "--deadline", type=number(0.001, 1_000_000), default=5.0, metavar="S", help="seconds (default: 5)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
