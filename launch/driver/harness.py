"""The one harness of every evaluation: whatever is compared was asked, sampled and checked by the same code.

A sitting asks the same problems in the same way of several models, one after the other, each on all engines. What is on the
disk is not sampled again, so a sitting that was killed goes on where it was.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from openrs_ray.config.load import config_from
from openrs_ray.config.schema import Model, RunConfig
from openrs_ray.data.prompts import load_tokenizer, response_prefix
from openrs_ray.errors import UserError
from openrs_ray.evaluation.analysis import analyse
from openrs_ray.evaluation.benchmarks import Benchmark, Task, clusters, fingerprint, load_tasks
from openrs_ray.evaluation.check import WARM_UP, Answered, Check
from openrs_ray.evaluation.figures import Samples
from openrs_ray.evaluation.majority import answer_classes
from openrs_ray.evaluation.power import Rate, plan_lines
from openrs_ray.evaluation.protocol import Protocol
from openrs_ray.evaluation.report import document
from openrs_ray.evaluation.store import CompletionStore, Table, as_table
from openrs_ray.evaluation.subject import START, Subject
from openrs_ray.models.stop_tokens import stop_tokens
from openrs_ray.preparation.prepared import check_model
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.run.ledger import Ledger, Spent
from openrs_ray.run.lock import run_lock

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
_CHECK_FIELDS = ("processes", "deadline_s", "memory_gib", "max_unjudged_share")
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
        """Hold the folders, and make the models ready; the start model last."""
        models = [self.prepare(subject) for subject in subjects]
        with ExitStack() as held:
            for folder in sorted({self.folder, *(prepared.store.folder.parent for prepared in models)}):
                held.enter_context(run_lock(folder))
            for prepared in models:
                prepared.store.open(
                    {"model": prepared.subject.identity(), "seed": self.seed, **self.how.settings()},
                    {name: fingerprint(tasks) for name, tasks in prepared.tasks.items()},
                )
            yield models

    def prepare(self, subject: Subject) -> "Prepared":
        """A model that is known to fit, with all it will be asked; nothing is written."""
        from actors.evaluator import Asked

        model: Model = self.engines.model.model_copy(update={"path": subject.path})
        tokenizer = load_tokenizer(model)
        tasks = {benchmark.name: load_tasks(benchmark, self.how.prompt, tokenizer) for benchmark in self.benchmarks}
        prompts = [task.problem.prompt_ids for several in tasks.values() for task in several]
        rollout = self.engines.rollout.model_copy(update={"max_prompt_tokens": max(map(len, prompts))})
        config = self.engines.model_copy(update={"model": model, "rollout": rollout})
        try:
            _, shape = check_model(config, subject.path)
        except UserError as error:
            bounds = "; --max-tokens bounds completions" if self.how.name == "robust" else ""
            raise UserError(f"{error} (prompts are as long as the longest{bounds})") from error
        eos_ids = tuple(token.id for token in stop_tokens(subject.path, shape.vocabulary, tokenizer))
        asked = Asked(subject.path, eos_ids, tokenizer, response_prefix(prompts[0], tokenizer))
        return Prepared(subject, config, asked, tasks, CompletionStore(self.folder / subject.folder), self.how.samples)

    def sample(self, models: "Sequence[Prepared]") -> None:
        """Sample what is missing of each model."""
        missing = {prepared.subject.label: prepared.wanted() for prepared in models}
        if not any(missing.values()):
            return
        from actors.cluster.placement import check_build, connection, joins_cluster

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

    def report(self, models: "Sequence[Prepared]", seeds: bool = False) -> dict[str, Any]:
        """All figures; against the start model where it is among them (`evaluation.report.document`).

        `seeds`: the models are runs of one experiment, of which mean and spread are given, too.
        """
        rewards = self.engines.rewards
        with CheckPool(Check("boxed"), rewards.processes, 5.0, 2.0, WARM_UP) as pool:
            samples = {p.subject.label: {name: p.result(name, pool) for name in p.tasks} for p in models}
        start = START if START in samples else None
        return document(
            self.how.settings()
            | {
                "samples": self.how.samples,
                "models": {p.subject.label: p.subject.path for p in models},
                "max_unjudged_share": rewards.max_unjudged_share,
            },
            {benchmark.name: benchmark.title for benchmark in self.benchmarks},
            analyse(samples, start, rewards.max_unjudged_share, seeds, _RESAMPLING_SEED),
            {p.subject.label: p.subject.published for p in models},
            {"sampling": self.seed, "resampling": _RESAMPLING_SEED},
            rate_of(models),
        )

    def say_plan(self, models: "Sequence[Prepared]", planned: int = 0) -> None:
        """Say what is still to be sampled of these models and of `planned` more, and what it can show (`evaluation.power`)."""
        problems, rate = sum(map(len, models[0].tasks.values())), rate_of(models)
        missing = sum(len(prepared.wanted()) for prepared in models) + planned * problems * self.how.samples
        cost = f" ({rate.text(missing)})" if rate and missing else ""
        self._say(f"{missing:,} completions are still to be sampled{cost}.")
        sizes = {benchmark.title: len(models[0].tasks[benchmark.name]) for benchmark in self.benchmarks}
        for line in plan_lines(sizes, self.how.samples, len(models) + planned, rate):
            self._say(line)


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

    def result(self, benchmark: str, pool: CheckPool[Answered]) -> Samples:
        """Figures of the completions; `pool` says which wrong answers are the same."""
        table = self.table(benchmark)
        votes = [list(zip(*row, strict=True)) for row in zip(table.status, table.answer, strict=True)]
        return Samples(
            table.correct(),
            answer_classes(votes, pool),
            table.tokens,
            table.truncated,
            table.english,
            clusters(self.tasks[benchmark]),
        )


def rate_of(models: Sequence[Prepared]) -> Rate | None:
    """Cost of a completion, over all that these models have sampled in any sitting; None before the first."""
    completions = sum(prepared.store.count() for prepared in models)
    spent = Spent.total(prepared.spent() for prepared in models)
    return Rate(spent.hours / completions, spent.dollars / completions) if completions and spent.hours else None


def engines_for(
    run: RunConfig | None,
    how: Protocol,
    folder: Path,
    seed: int,
    deadline_s: float,
    overrides: Sequence[str],
    flags: Sequence[str] = (),
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
        "learner": {"micro_batch_tokens": 2 * 10**9},
        "placement": taken("placement", _PLACE_FIELDS) | {"num_learner_gpus": 1},
        "rewards": taken("rewards", _CHECK_FIELDS),
        "cost": taken("cost", ("price_per_gpu_hour",)),
    }
    return config_from(content, overrides, "evaluation", flags)
