"""The harness of every evaluation: all models are asked, sampled and checked by the same code, each in turn on all engines."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from launch.driver.evaluated import Block, Prepared, rate_of
from openrs_ray.common.console import say
from openrs_ray.data.completions import response_prefix
from openrs_ray.data.prompts import load_tokenizer
from openrs_ray.errors import UserError
from openrs_ray.evaluation.analysis import analyse
from openrs_ray.evaluation.benchmarks import Benchmark, fingerprint, load_tasks
from openrs_ray.evaluation.check import WARM_UP, Answered, Check
from openrs_ray.evaluation.config import EvaluationConfig
from openrs_ray.evaluation.power import plan_lines, smallest_difference
from openrs_ray.evaluation.protocol import Protocol
from openrs_ray.evaluation.report import document
from openrs_ray.evaluation.store import CompletionStore
from openrs_ray.evaluation.subject import START, Subject
from openrs_ray.models.stop_tokens import stop_tokens
from openrs_ray.preparation.served import check_served
from openrs_ray.records import Verdict
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.run.lock import run_lock

if TYPE_CHECKING:
    from actors.evaluator import Wanted
    from launch.driver.engines import Engines

_RESAMPLING_SEED = 0
_SAY_S = 30.0
_LENGTHS = "the longest prompt with the longest completion"


@dataclass(frozen=True)
class Harness:
    """An evaluation's questions, settings and folder. A killed sitting goes on where it was.

    with harness.sitting([model, start]) as models:     # UserError before any engine starts
        harness.sample(models)
        content = harness.report(models)
    """

    how: Protocol
    benchmarks: tuple[Benchmark, ...]
    folder: Path
    config: EvaluationConfig
    deadline_s: float
    """For the completions of one model, of one block where they are sampled in several."""
    seed: int
    console: Console

    @contextmanager
    def sitting(self, subjects: Sequence[Subject]) -> "Iterator[list[Prepared]]":
        """Lock the folders and prepare the models."""
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
        """Check a model and load its problems, without writing anything."""
        from actors.evaluator import Reading
        from actors.rollout.settings import EngineSettings

        config, model = self.config, self.config.model.of(subject.path)
        tokenizer = load_tokenizer(model)
        tasks = {benchmark.name: load_tasks(benchmark, self.how.prompt, tokenizer) for benchmark in self.benchmarks}
        prompts = [task.problem.prompt_ids for several in tasks.values() for task in several]
        tokens = max(map(len, prompts)) + self.how.max_tokens
        try:
            _, shape = check_served(model, subject.path, config.engine, config.placement, tokens, _LENGTHS)
        except UserError as error:
            bounds = "; --max-tokens bounds completions" if self.how.name == "robust" else ""
            raise UserError(f"{error}{bounds}") from error
        settings = EngineSettings(
            engine=config.engine,
            model_path=subject.path,
            end_ids=tuple(token.id for token in stop_tokens(subject.path, shape.vocabulary, tokenizer)),
            max_sequence_tokens=tokens,
            dtype=model.dtype,
            seed=self.seed,
            deadline_s=self.deadline_s,
            deadline_field="--hours",
        )
        reading = Reading(tokenizer, response_prefix(prompts[0], tokenizer))
        store = CompletionStore(self.folder / subject.folder)
        return Prepared(subject, settings, reading, tasks, store, self.how.samples)

    def sample(self, models: "Sequence[Prepared]", blocks: Iterable[Mapping[str, int]] | None = None) -> None:
        """Sample what is missing, in one block or in several.

        `blocks`: samples of each problem by benchmark; each is asked for when the one before is on the disk.
        """
        missing = _missing(models, [dict.fromkeys(models[0].tasks, self.how.samples)] if blocks is None else blocks)
        if (first := next(missing, None)) is None:
            return
        from actors.cluster.placement import check_build, connection, joins_cluster
        from launch.driver.engines import Engines

        async def fill(pool: CheckPool[Answered, Verdict]) -> None:
            async with Engines(self.config, partial(say, self.console)) as engines:
                for block in chain([first], missing):
                    for prepared, wanted in engines.loaded_first(block):
                        await self._sample(prepared, wanted, engines, pool)

        if not joins_cluster():
            check_build(self.config.placement)
        rewards = self.config.rewards
        limits, check = (rewards.processes, rewards.deadline_s, rewards.memory_gib), Check(self.how.rules)
        with connection(), CheckPool(check, *limits, WARM_UP, own_deadline_s=check.own_deadline_s) as pool:
            asyncio.run(fill(pool))

    async def _sample(
        self,
        prepared: "Prepared",
        wanted: "Sequence[Wanted]",
        engines: "Engines",
        pool: CheckPool[Answered, Verdict],
    ) -> None:
        from actors.evaluator import sample

        label = prepared.subject.label
        say(self.console, f"{label}: {len(wanted):,} completions to sample")
        progress = self._progress(label, len(wanted))
        loaded = await engines.of(prepared)
        await sample(loaded, prepared.settings, prepared.reading, self.how, wanted, prepared.store, pool, progress)

    def _progress(self, label: str, total: int) -> Callable[[int, int], None]:
        """Says a line every half minute, and when all is done."""
        began = said = math.inf

        def tell(ended: int, tokens: int) -> None:
            nonlocal began, said
            now = time.monotonic()
            if math.isinf(began):
                began = said = now  # the engines have started
            elif now - said >= _SAY_S or ended == total:
                said = now
                rate = tokens / (now - began)
                say(self.console, f"{label}: {ended:,} of {total:,} completions, {rate:,.0f} tokens/s")

        return tell

    def report(
        self, models: "Sequence[Prepared]", seeds: bool = False, samples: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """All figures.

        `seeds`: the models are runs of one experiment. `samples`: of each problem by benchmark (default: the protocol's).
        """
        rewards = self.config.rewards
        with CheckPool(Check("boxed"), rewards.processes, 5.0, 2.0, WARM_UP) as pool:
            counts = samples or dict.fromkeys(models[0].tasks, self.how.samples)
            found = {p.subject.label: {name: p.result(name, pool, counts[name]) for name in p.tasks} for p in models}
        start = START if START in found else None
        return document(
            self.how.settings()
            | {
                "samples": self.how.samples,
                "models": {p.subject.label: p.subject.path for p in models},
                "max_unjudged_share": rewards.max_unjudged_share,
            },
            {benchmark.name: benchmark.title for benchmark in self.benchmarks},
            analyse(found, start, rewards.max_unjudged_share, seeds, _RESAMPLING_SEED),
            {p.subject.label: p.subject.published for p in models},
            {"sampling": self.seed, "resampling": _RESAMPLING_SEED},
            rate_of(models),
        )

    def say_plan(self, models: "Sequence[Prepared]", planned: int = 0) -> dict[str, Any]:
        """Say how many completions these models and `planned` more lack, and the power they give. Returns the same."""
        problems, rate = sum(map(len, models[0].tasks.values())), rate_of(models)
        missing = sum(len(prepared.wanted()) for prepared in models) + planned * problems * self.how.samples
        cost = f" ({rate.text(missing)})" if rate and missing else ""
        say(self.console, f"{missing:,} completions are still to be sampled{cost}.")
        sizes = {benchmark.title: len(models[0].tasks[benchmark.name]) for benchmark in self.benchmarks}
        for line in plan_lines(sizes, self.how.samples, len(models) + planned, rate):
            say(self.console, line)
        return {
            "completions": missing,
            "hours": rate.hours * missing if rate else None,
            "dollars": rate.dollars * missing if rate and rate.dollars else None,
            "samples_per_problem": self.how.samples,
            "benchmarks": [
                {
                    "name": benchmark.name,
                    "problems": sizes[benchmark.title],
                    "smallest_difference_points": 100 * smallest_difference(sizes[benchmark.title], self.how.samples),
                }
                for benchmark in self.benchmarks
            ],
        }


def _missing(models: Sequence[Prepared], blocks: Iterable[Mapping[str, int]]) -> Iterator[Block]:
    """Blocks of which anything is missing; the next one is asked for when the one before has been sampled."""
    for counts in blocks:
        if lacking := [(prepared, wanted) for prepared in models if (wanted := prepared.wanted(counts))]:
            yield lacking
