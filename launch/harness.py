"""The one harness of every evaluation: whatever is compared was asked, sampled and checked by the same code.

A sitting asks the same problems in the same way of several models, one after the other, each on all engines. What is on the
disk is not sampled again, so a sitting that was killed goes on where it was.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from openrs_ray.checkpoints import run_lock
from openrs_ray.config import Model, RunConfig
from openrs_ray.data.prompts import load_tokenizer, response_prefix
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation.benchmarks import Benchmark, Task, fingerprint, load_tasks
from openrs_ray.evaluation.check import WARM_UP, Answered, Check
from openrs_ray.evaluation.figures import Figures, Samples, figures
from openrs_ray.evaluation.majority import answer_classes
from openrs_ray.evaluation.paired import Paired, compare, corrected
from openrs_ray.evaluation.protocol import Protocol
from openrs_ray.evaluation.report import document
from openrs_ray.evaluation.store import CompletionStore, Table, as_table
from openrs_ray.evaluation.subject import START, Subject
from openrs_ray.ledger import Ledger, Spent
from openrs_ray.overrides import config_from
from openrs_ray.prepared import check_model
from openrs_ray.rewards.pool import CheckPool

if TYPE_CHECKING:
    from actors.evaluator import Asked, Wanted

_RESAMPLING_SEED = 0
_ENGINE_FIELDS = (
    "tensor_parallel",
    "max_sequences",
    "max_batched_tokens",
    "cpu_cache_gib",
    "enforce_eager",
    "start_deadline_s",
)
_PLACE_FIELDS = ("device", "cpus_per_slot", "threads", "wait_s", "num_rollout_gpus")
_CHECK_FIELDS = ("processes", "deadline_s", "memory_gib")
_SAY_S = 30.0


@dataclass(frozen=True)
class Harness:
    """What is asked of every model, and where the answers lie.

    with harness.sitting([model, start]) as models:     # UserError before any engine starts
        harness.sample(models)
        content = harness.report(models)
    """

    how: Protocol
    benchmarks: tuple[Benchmark, ...]
    folder: Path
    engines: RunConfig
    """What engines and checking processes need. The learner's part is never used."""
    all_gpus: bool
    """Sample on all GPUs of the cluster, however many `engines` asks for."""
    seed: int
    console: Console

    @contextmanager
    def sitting(self, subjects: Sequence[Subject]) -> "Iterator[list[Prepared]]":
        """Hold the folder, and make the models ready; the start model last."""
        with run_lock(self.folder):
            models = [self._prepare(subject) for subject in subjects]
            for prepared in models:
                prepared.store.open(
                    {"model": prepared.subject.identity(), "seed": self.seed, **self.how.settings()},
                    {name: fingerprint(tasks) for name, tasks in prepared.tasks.items()},
                )
            yield models

    def _prepare(self, subject: Subject) -> "Prepared":
        from actors.evaluator import Asked

        model: Model = self.engines.model.model_copy(update={"path": subject.path})
        tokenizer = load_tokenizer(model)
        tasks = {benchmark.name: load_tasks(benchmark, self.how.prompt, tokenizer) for benchmark in self.benchmarks}
        prompts = [task.problem.prompt_ids for several in tasks.values() for task in several]
        rollout = self.engines.rollout.model_copy(update={"max_prompt_tokens": max(map(len, prompts))})
        config = self.engines.model_copy(update={"model": model, "rollout": rollout})
        try:
            eos_ids, _ = check_model(config, subject.path)
        except UserError as error:
            bounds = "; --max-tokens bounds completions" if self.how.name == "robust" else ""
            raise UserError(f"{error} (prompts are as long as the longest{bounds})") from error
        eos_ids = eos_ids or (tokenizer.eos_token_id,)
        asked = Asked(subject.path, eos_ids, tokenizer, response_prefix(prompts[0], tokenizer))
        return Prepared(subject, config, asked, tasks, CompletionStore(self.folder / subject.folder), self.how.samples)

    def sample(self, models: "Sequence[Prepared]") -> None:
        """Sample what is missing of each model."""
        missing = {prepared.subject.label: prepared.wanted() for prepared in models}
        if not any(missing.values()):
            return
        from actors.placement import check_build, connection, joins_cluster

        async def fill(pool: CheckPool[Answered]) -> None:
            for prepared in models:
                if wanted := missing[prepared.subject.label]:
                    await self._sample(prepared, wanted, pool)

        if not joins_cluster():
            check_build(self.engines)
        rewards = self.engines.rewards
        limits = rewards.processes, rewards.deadline_s, rewards.memory_gib
        with connection(), CheckPool(Check(self.how.rules), *limits, WARM_UP) as pool:
            asyncio.run(fill(pool))

    async def _sample(self, prepared: "Prepared", wanted: "Sequence[Wanted]", pool: CheckPool[Answered]) -> None:
        from actors.evaluator import sample, with_all_gpus

        label, store = prepared.subject.label, prepared.store
        self._say(f"{label}: {len(wanted):,} completions to sample")
        config = with_all_gpus(prepared.config) if self.all_gpus else prepared.config
        with Ledger(store.folder, config.cost.price, lambda: config.placement.num_rollout_gpus):
            progress = self._progress(label, len(wanted))
            await sample(config, prepared.asked, self.how, wanted, store, pool, progress, self._say)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _progress(self, label: str, total: int) -> Callable[[int, int], None]:
        """Says a line every half minute, and when all is done."""
        began = said = math.inf

        def say(ended: int, tokens: int) -> None:
            nonlocal began, said
            now = time.monotonic()
            if math.isinf(began):
                began = said = now  # the engines have started
            elif now - said >= _SAY_S or ended == total:
                said = now
                self._say(f"{label}: {ended:,} of {total:,} completions, {tokens / (now - began):,.0f} tokens/s")

        return say

    def report(self, models: "Sequence[Prepared]") -> dict[str, Any]:
        """All figures; against the start model where it is among them (`evaluation.report.document`)."""
        names = [benchmark.name for benchmark in self.benchmarks]
        tables = {p.subject.label: {name: p.table(name) for name in names} for p in models}
        measured: dict[str, dict[str, Figures]] = {}
        with CheckPool(Check("boxed"), self.engines.rewards.processes, 5.0, 2.0, WARM_UP) as pool:
            for label, by_name in tables.items():
                for name, table in by_name.items():
                    if np.isnan(table.correct()).all():
                        raise RunError(f"no answer of {label} to {name} could be judged: {self.folder} has the reasons")
                measured[label] = {
                    name: figures(_samples(table, pool), _RESAMPLING_SEED) for name, table in by_name.items()
                }
        comparisons: dict[str, dict[str, Paired]] = {}
        if START in tables:
            for label in [label for label in tables if label != START]:
                pairs = {name: (tables[label][name].correct(), tables[START][name].correct()) for name in names}
                comparisons[label] = corrected({name: compare(*pair, _RESAMPLING_SEED) for name, pair in pairs.items()})
        paths = {p.subject.label: p.subject.path for p in models}
        return document(
            self.how.settings() | {"samples": self.how.samples, "models": paths},
            {benchmark.name: benchmark.title for benchmark in self.benchmarks},
            measured,
            {p.subject.label: p.subject.published for p in models},
            comparisons,
            {"sampling": self.seed, "resampling": _RESAMPLING_SEED},
        )


@dataclass(frozen=True)
class Prepared:
    """One model, known to fit, with all problems as it will read them."""

    subject: Subject
    config: RunConfig
    asked: "Asked"
    tasks: dict[str, tuple[Task, ...]]
    store: CompletionStore
    samples: int

    def wanted(self) -> "list[Wanted]":
        """The completions that are not there yet, in order."""
        from actors.evaluator import Wanted

        done = {name: self.store.finished(name) for name in self.tasks}
        return [
            Wanted(name, task, sample)
            for name, tasks in self.tasks.items()
            for task in tasks
            for sample in range(self.samples)
            if (task.problem.index, sample) not in done[name]
        ]

    def spent(self) -> Spent:
        """On sampling, over all sittings."""
        return Spent.read(self.store.folder)

    def table(self, benchmark: str) -> Table:
        """Its completions [problems, samples]. KeyError if one of them is missing."""
        return as_table(self.store.rows(benchmark), len(self.tasks[benchmark]), self.samples)


def engines_for(
    run: RunConfig | None, how: Protocol, folder: Path, seed: int, deadline_s: float, overrides: list[str]
) -> RunConfig:
    """What engines and checks need: a run's where there is one, changed by `--dotted.field VALUE`.

    `deadline_s`: how long one model may take.
    """
    known = run.model_dump(mode="json") if run else {"model": {"path": "none"}}

    def taken(section: str, names: Sequence[str]) -> dict[str, Any]:
        return {name: known[section][name] for name in names if name in known.get(section, {})}

    most = {"max_prompt_tokens": 1, "max_completion_tokens": how.max_tokens, "deadline_s": deadline_s}
    sizes = {"problems_per_step": 2, "completions_per_problem": 2}
    content: dict[str, Any] = {
        "run": {"name": "evaluation", "folder": str(folder), "steps": 1, "seed": seed},
        "model": known["model"],
        "data": {"path": "none"},
        "rollout": taken("rollout", _ENGINE_FIELDS) | most | sizes,
        "learner": {"micro_batch_tokens": 1 << 40},
        "placement": taken("placement", _PLACE_FIELDS) | {"num_learner_gpus": 1},
        "rewards": taken("rewards", _CHECK_FIELDS),
        "cost": taken("cost", ("price_per_gpu_hour",)),
    }
    return config_from(content, overrides, "evaluation")


def _samples(table: Table, pool: CheckPool[Answered]) -> Samples:
    votes = [list(zip(*row, strict=True)) for row in zip(table.status, table.answer, strict=True)]
    return Samples(table.correct(), answer_classes(votes, pool), table.tokens, table.truncated, table.english)
