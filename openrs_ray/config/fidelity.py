"""Differences between the Open-RS paper (arXiv 2503.16219) and its authors' code, and the choice between the two.

`fidelity: as_described` makes the described values defaults; `as_published` fixes all rows to the behaviour of
github.com/knoveleng/open-rs with the trainer that it pinned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Fidelity = Literal["as_described", "as_published"]


@dataclass(frozen=True, slots=True)
class Row:
    field: str
    described: Any
    published: Any
    meaning: str
    """Effect of the published value."""


ROWS = (
    Row("rewards.cosine.unit", "tokens", "characters", "lengths count characters, with a maximum meant for tokens"),
    Row("rewards.cosine.clamp", True, False, "beyond the maximum the cosine goes up and down again"),
    Row("rewards.cosine.wrong_short", -1.0, 0.0, "short wrong answers lose nothing, long ones 0.5"),
    Row(
        "rewards.comparison", "gold_first", "answer_first", "math-verify gets its arguments reversed; it is asymmetric"
    ),
    Row("rewards.unparseable_gold", "skip", "reward", "where the gold cannot be parsed, every completion gets 1"),
    Row("rewards.unfinished_reasoning", "no_answer", "read", "a box is an answer even if the reasoning never ends"),
    Row("rewards.extraction", "boxed", "published", "a box anywhere, or an announced formula; golds need LaTeX"),
    Row("rewards.unjudged", "skip", "wrong", "a check that does not end is paid as a wrong answer"),
    Row("rewards.format.form", "tags", "line", "one </think> on a line of its own is all that is asked"),
    Row("loss.normalization", "tokens", "local_micro_batch", "mean over each micro-batch, then over those"),
    Row("loss.tempered", True, False, "log-probabilities are not at the sampling temperature"),
    Row("loss.old_policy", "sampler", "current", "the ratio is always 1: the clip cannot act"),
)
DATA = (Row("data.columns.answer", "answer", "solution", "the gold is the whole text of the column solution"),)
"""The gold's column, where none is given."""
LOOP = (
    Row("rollout.staleness", 1, 0, "rollouts and learner take turns"),
    Row("loss.correction", "truncated", "none", "nothing to correct where they take turns"),
    Row("learner.head_dtype", "float32", "model", "logits are rounded to the model's bfloat16"),
)
"""The recipes choose the described value, and `as_published` sets it back."""


def as_published(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content with every row at its published value, and micro-batches of one group where no size is given.

    ValueError when it contradicts one of `ROWS`.
    """
    changed = dict(content)
    for row in (*ROWS, *DATA, *LOOP):
        *parents, name = row.field.split(".")
        section = changed
        for parent in parents:
            inner = section.get(parent, {})
            if not isinstance(inner, Mapping):
                return changed  # not a section: the fields' own checks say so
            section[parent] = section = dict(inner)
        if row in LOOP:
            section[name] = row.published
        elif section.setdefault(name, row.published) != row.published and row in ROWS:
            raise ValueError(
                f"fidelity as_published goes with {row.field} {row.published}, not {section[name]}: leave {row.field} out"
            )
    learner = changed.get("learner", {})
    if isinstance(learner, Mapping):
        group = changed["rollout"].get("completions_per_problem")
        changed["learner"] = {"micro_batch_sequences": group, **learner}
    return changed


def differences(given: Mapping[str, Any]) -> list[str]:
    """Lines of a table. `given`: the run's values by dotted name."""
    rows = (*ROWS, *DATA, *LOOP)
    known = [row for row in rows if row.field in given]  # not that of data, where it is a list
    cells = [(row.field, *map(_cell, (given[row.field], row.described, row.published)), row.meaning) for row in known]
    head = ("", "this run", "as_described", "as_published", "as_published means")
    return ["{:<30}{:<19}{:<14}{:<19}{}".format(*line).rstrip() for line in (head, *cells)]


def _cell(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
