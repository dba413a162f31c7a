"""A model that is evaluated: its problems as prompts, and the completions that it has so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrs_ray.evaluation.benchmarks import Task, clusters
from openrs_ray.evaluation.check import Answered
from openrs_ray.evaluation.figures import Samples
from openrs_ray.evaluation.majority import answer_classes
from openrs_ray.evaluation.power import Rate
from openrs_ray.evaluation.store import CompletionStore, Table, as_table
from openrs_ray.evaluation.subject import Subject
from openrs_ray.records import Verdict
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.run.account import Spent

if TYPE_CHECKING:
    from actors.evaluator import Reading, Wanted
    from actors.rollout.settings import EngineSettings


@dataclass(frozen=True)
class Prepared:
    """A model that fits, with all its problems as prompts."""

    subject: Subject
    settings: "EngineSettings"
    reading: "Reading"
    tasks: dict[str, tuple[Task, ...]]
    store: CompletionStore
    samples: int

    def wanted(self, samples: Mapping[str, int] | None = None) -> "list[Wanted]":
        """Completions that are missing of so many samples of each problem, by benchmark (default: all of them)."""
        from actors.evaluator import Wanted

        counts = dict.fromkeys(self.tasks, self.samples) if samples is None else samples
        done = {name: self.store.finished(name) for name in counts}
        return [
            Wanted(name, task, sample)
            for name, count in counts.items()
            for task in self.tasks[name]
            for sample in range(count)
            if (task.problem.index, sample) not in done[name]
        ]

    def spent(self) -> Spent:
        return Spent.read(self.store.folder)

    def table(self, benchmark: str, samples: int | None = None) -> Table:
        """Completions [problems, samples] (default: all samples). KeyError if one is missing."""
        return as_table(self.store.rows(benchmark), len(self.tasks[benchmark]), samples or self.samples)

    def result(self, benchmark: str, pool: CheckPool[Answered, Verdict], samples: int | None = None) -> Samples:
        table = self.table(benchmark, samples)
        votes = [list(zip(*row, strict=True)) for row in zip(table.status, table.answer, strict=True)]
        return Samples(
            table.correct(),
            answer_classes(votes, pool, self.tasks[benchmark][0].answer),
            table.tokens,
            table.truncated,
            table.english,
            clusters(self.tasks[benchmark]),
        )


Block = list[tuple[Prepared, "list[Wanted]"]]
"""Models with the completions that they lack."""


def rate_of(models: Sequence[Prepared]) -> Rate | None:
    """Cost of a completion; None before the first sitting."""
    completions = sum(prepared.store.count() for prepared in models)
    spent = Spent.total(prepared.spent() for prepared in models)
    return Rate(spent.hours / completions, spent.dollars / completions) if completions and spent.hours else None
