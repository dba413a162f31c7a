"""Previews a run's data: the first prompt, the golds, and warnings."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import get_args

from openrs_ray.common.formatting import quoted
from openrs_ray.config.answer import BOX
from openrs_ray.config.schema import RunConfig
from openrs_ray.config.task import Task
from openrs_ray.data.texts import letters_key, same_text_key
from openrs_ray.models.bundled import TOYS
from openrs_ray.preparation.prepared import Prepared
from openrs_ray.records import Problem
from openrs_ray.rewards.answers.kinds import gold_text
from openrs_ray.rewards.answers.normalise import spelled, tidy
from openrs_ray.rewards.golds import GoldKind, gold_kind
from openrs_ray.rewards.libraries.judging import LIBRARIES
from openrs_ray.sandbox.program import strength

_LONGEST_SHOWN = 4000
_QUOTED = 80
_ENOUGH_PROMPTS = 512
r"""Prompts searched for a \boxed{} and for lost characters."""
_OTHER_KINDS = {
    "choice": "{} choices",
    "number": "{} numbers, with their units",
    "exact": "{} strings",
    "set": "{} lists",
    "code": "tests of {} programs",
}
_NEED_A_BOX = ("accuracy", "cosine", "length")


def look_lines(config: RunConfig, prepared: Prepared) -> list[str]:
    lines = [line for task in config.tasks for line in _task_lines(task, prepared)]
    return [*lines, *warning_lines(config, prepared)]


def _task_lines(task: Task, prepared: Prepared) -> Iterator[str]:
    problems, of_it = _of(task, prepared.problems), f" of {task.name}" if task.name else ""
    first = problems[0]
    prompt = prepared.tokenizer.decode(first.prompt_ids)
    yield f"first prompt{of_it}, {len(first.prompt_ids)} tokens, as the model sees it:"
    yield from (f"  | {_printable(line)}" for line in _without_middle(prompt).split("\n"))
    yield from _gold_lines(task, problems, _of(task, prepared.held_out))


def _of(task: Task, problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.task == task.name]


def warning_lines(config: RunConfig, prepared: Prepared) -> list[str]:
    """Data and settings that may keep a run from learning."""
    return [line for task in config.tasks for line in _task_warnings(config, task, prepared)]


def _task_warnings(config: RunConfig, task: Task, prepared: Prepared) -> Iterator[str]:
    problems, of_it = _of(task, prepared.problems), f"{task.name}: " if task.name else ""
    found = (
        _weights(task),
        _box(config, task, problems, prepared),
        _lost(problems, prepared),
        _repeated(problems),
        _contradicting(problems),
        _sandbox(task),
    )
    return (f"warning: {of_it}{warning}" for warning in found if warning)


def _gold_lines(task: Task, problems: Sequence[Problem], held_out: Sequence[Problem]) -> Iterator[str]:
    if task.answer.kind == "none":
        yield "golds: none is needed (answer.kind none)"
        return
    if task.answer.kind in LIBRARIES:
        yield f"golds: {task.answer.kind} judges by the whole rows"
        return
    first = problems[0]
    yield f"its gold, as read: {_printable(gold_text(task.answer, first.gold, first.row))}"
    if task.answer.kind != "math":
        yield f"golds: {_OTHER_KINDS[task.answer.kind].format(f'{len(problems):,}')}"
        return
    if task.rewards.extraction == "published":
        yield "golds: read as whole texts, by the LaTeX in them (rewards.extraction published)"
        return
    yield f"golds: {_kinds(problems)}"
    if held_out:
        yield f"golds of the held-out problems: {_kinds(held_out)}"


def _kinds(problems: Sequence[Problem]) -> str:
    counted = Counter(gold_kind(problem.gold) for problem in problems)
    counts = [(counted[kind], kind) for kind in get_args(GoldKind) if counted[kind]]
    return ", ".join(f"{count:,} {kind}{'s' * (count != 1)}" for count, kind in counts)


def _weights(task: Task) -> str | None:
    if any(task.rewards.weights.values()):
        return None
    return "all rewards.weights are 0, so every completion gets 0 and nothing can be learned"


def _sandbox(task: Task) -> str | None:
    """Walls that are missing around programs, on this machine."""
    if not task.runs_programs:
        return None
    sentence = strength().sentence
    return f"{sentence[0].lower()}{sentence[1:]} docs/code.md says what that means" if sentence else None


def _box(config: RunConfig, task: Task, problems: Sequence[Problem], prepared: Prepared) -> str | None:
    """Prompts that ask for no box or marker where rewards need one; the toys box unasked."""
    rewards, data, mark = task.rewards, task.data, task.answer.asked_for
    paid = [name for name in _NEED_A_BOX if rewards.weights.get(name)]
    given = (data.system_prompt or "", data.suffix, *(example.response for example in data.examples))
    if (
        not paid
        or mark is None
        or rewards.extraction != "boxed"
        or task.answer.kind == "code"
        or config.model.path in TOYS
        or any(_asks(text, mark) for text in given)
    ):
        return None
    looked_at = problems[:_ENOUGH_PROMPTS]
    asking = sum(_asks(prepared.tokenizer.decode(problem.prompt_ids), mark) for problem in looked_at)
    if asking == len(looked_at):
        return None
    ask = f"only {asking} of the first {len(looked_at)} prompts ask" if asking else "nothing in the prompts asks"
    how = "Put the final answer in \\boxed{}." if mark == BOX else f"End with a line: {mark} ANSWER"
    return (
        f"{ask} for {mark}, without which no answer counts ({', '.join(paid)}): put it into data.system_prompt or "
        f"data.suffix, such as '{how}'"
    )


def _asks(text: str, mark: str) -> bool:
    return mark.removeprefix("\\").removesuffix("{}").casefold() in text.casefold()


def _lost(problems: Sequence[Problem], prepared: Prepared) -> str | None:
    """Characters that the vocabulary lacks."""
    for problem in problems[:_ENOUGH_PROMPTS]:
        prompt = letters_key(prepared.tokenizer.decode(problem.prompt_ids))
        if not all(letters_key(part) in prompt for part in problem.text.split("\n\n")):
            return f"the tokenizer loses some of the characters of {quoted(problem.text, _QUOTED)}: the model cannot see them"
    return None


def _repeated(problems: Sequence[Problem]) -> str | None:
    again = {group[0].text: len(group) - len(set(map(_gold_key, group))) for group in _groups(problems)}
    first = next((text for text, rows in again.items() if rows), None)
    if first is None:
        return None
    rows = f"{sum(again.values()):,} of the {len(problems):,} problems"
    return (
        f"{rows} have the text and the gold of another one, such as {quoted(first, _QUOTED)}, and are drawn as often: "
        "python -m launch.curate takes duplicates out"
    )


def _contradicting(problems: Sequence[Problem]) -> str | None:
    found = [group for group in _groups(problems) if len(set(map(_gold_key, group))) > 1]
    if not found:
        return None
    golds = list(dict.fromkeys(" or ".join(problem.gold) for problem in found[0]))
    return (
        f"{len(found):,} {'problems have' if len(found) > 1 else 'problem has'} more than one gold: "
        f"{quoted(found[0][0].text, _QUOTED)} has {quoted(golds[0], _QUOTED)} and {quoted(golds[1], _QUOTED)}"
    )


def _groups(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Problems that are the same in other spellings."""
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[same_text_key(problem.text) or problem.text].append(problem)
    return [group for group in groups.values() if len(group) > 1]


def _gold_key(problem: Problem) -> tuple[str, ...]:
    r"""A gold without meaningless differences: \frac13 and \frac{1}{3} are the same."""
    return tuple(sorted(same_text_key(spelled(tidy(gold))) or gold for gold in problem.gold))


def _without_middle(text: str) -> str:
    left_out = len(text) - _LONGEST_SHOWN
    half = _LONGEST_SHOWN // 2
    return text if left_out <= 0 else f"{text[:half]}\n... {left_out:,} characters ...\n{text[-half:]}"


def _printable(text: str) -> str:
    """Escapes control characters and lone surrogates."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
