"""`python -m launch.evaluate MODEL_OR_RUN --benchmarks aime24,amc23 [--samples K]`: figures that can be believed.

A run is evaluated with its start model beside it, in the same harness. Killed, the same command goes on where it was.
"""

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markdown import Markdown

from openrs_ray.checkpoints import run_lock
from openrs_ray.config import Model, RunConfig
from openrs_ray.data.prompts import load_tokenizer, response_prefix
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation.benchmarks import Benchmark, Task, chosen, fingerprint, load_tasks
from openrs_ray.evaluation.check import WARM_UP, Answered, Check
from openrs_ray.evaluation.figures import Figures, Samples, figures
from openrs_ray.evaluation.majority import answer_classes
from openrs_ray.evaluation.paired import Paired, compare, corrected
from openrs_ray.evaluation.protocol import Protocol, protocol
from openrs_ray.evaluation.report import document, markdown, write
from openrs_ray.evaluation.store import CompletionStore, Table, as_table
from openrs_ray.evaluation.subject import START, Subject, Subjects, find_subjects
from openrs_ray.overrides import config_from
from openrs_ray.prepared import check_model
from openrs_ray.rewards.pool import CheckPool

if TYPE_CHECKING:
    from actors.evaluator import Asked, Wanted

BENCHMARKS = "aime24,amc23,math500,minerva,olympiadbench"
_RESAMPLING_SEED = 0
_ENGINE_FIELDS = ("tensor_parallel", "max_sequences", "cpu_cache_gib", "enforce_eager", "start_deadline_s")
_PLACE_FIELDS = ("device", "cpus_per_slot", "threads", "wait_s", "num_rollout_gpus")
_SAY_S = 30.0


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
        from actors.evaluator import Wanted

        done = {name: self.store.finished(name) for name in self.tasks}
        return [
            Wanted(name, task, sample)
            for name, tasks in self.tasks.items()
            for task in tasks
            for sample in range(self.samples)
            if (task.problem.index, sample) not in done[name]
        ]

    def table(self, benchmark: str) -> Table:
        return as_table(self.store.rows(benchmark), len(self.tasks[benchmark]), self.samples)


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 1 broke while running, 2 something to mend first, 130 stopped by Ctrl-C."""
    console = Console(highlight=False)
    try:
        _evaluate(*_parser().parse_known_args(arguments), console)
    except (UserError, RunError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, soft_wrap=True)
        return 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        return 130
    return 0


def _evaluate(options: argparse.Namespace, overrides: list[str], console: Console) -> None:
    runs = Path(os.environ.get("OPENRS_RUNS", "~/openrs_runs")).expanduser()
    subjects = find_subjects(options.model, options.start, options.step, runs)
    how = protocol(
        options.protocol,
        subjects.run,
        **{name: getattr(options, name) for name in ("samples", "temperature", "top_p", "max_tokens", "prompt")},
    )
    benchmarks = chosen([name for name in options.benchmarks.split(",") if name], _sources(options.data))
    folder = Path(options.folder).expanduser().absolute() if options.folder else subjects.folder / how.name
    base = _config(subjects, how, options, folder, overrides)
    with run_lock(folder):
        models = [
            _prepare(subject, base, how, benchmarks, folder)
            for subject in (subjects.model, subjects.start)
            if subject is not None
        ]
        for prepared in models:
            prepared.store.open(
                {"model": prepared.subject.identity(), "seed": options.seed, **how.settings()},
                {name: fingerprint(tasks) for name, tasks in prepared.tasks.items()},
            )
        _fill(models, how, "--placement.num_rollout_gpus" in " ".join(overrides), console)
        content = _report(models, how, benchmarks, options.seed)
        place = folder / subjects.model.folder
        write(place, content)
    console.print(Markdown(markdown(content)))
    console.print(f"{place}/report.md, report.json and report.html; completions beside them", soft_wrap=True)


def _config(
    subjects: Subjects, how: Protocol, options: argparse.Namespace, folder: Path, overrides: list[str]
) -> RunConfig:
    """What engines and checking processes need, taken from the run where there is one. The learner's part is never used."""
    run = (
        subjects.run.model_dump(mode="json")
        if subjects.run
        else {"model": {}, "rollout": {}, "placement": {}, "rewards": {}}
    )
    rollout = {name: run["rollout"][name] for name in _ENGINE_FIELDS if name in run["rollout"]}
    most = {"max_prompt_tokens": 1, "max_completion_tokens": how.max_tokens, "deadline_s": 3600 * options.hours}
    sizes = {"problems_per_step": 2, "completions_per_problem": 2}
    place = {name: run["placement"][name] for name in _PLACE_FIELDS if name in run["placement"]}
    checks = {
        name: run["rewards"][name] for name in ("processes", "deadline_s", "memory_gib") if name in run["rewards"]
    }
    content: dict[str, Any] = {
        "run": {"name": "evaluation", "folder": str(folder), "steps": 1, "seed": options.seed},
        "model": run["model"] | {"path": subjects.model.path},
        "data": {"path": "none"},
        "rollout": rollout | most | sizes,
        "learner": {"micro_batch_tokens": 1 << 40},
        "placement": place | {"num_learner_gpus": 1},
        "rewards": checks,
    }
    return config_from(content, overrides, "evaluation")


def _prepare(
    subject: Subject, base: RunConfig, how: Protocol, benchmarks: Sequence[Benchmark], folder: Path
) -> Prepared:
    from actors.evaluator import Asked

    model: Model = base.model.model_copy(update={"path": subject.path})
    tokenizer = load_tokenizer(model)
    tasks = {benchmark.name: load_tasks(benchmark, how.prompt, tokenizer) for benchmark in benchmarks}
    prompts = [task.problem.prompt_ids for several in tasks.values() for task in several]
    rollout = base.rollout.model_copy(update={"max_prompt_tokens": max(map(len, prompts))})
    config = base.model_copy(update={"model": model, "rollout": rollout})
    try:
        eos_ids, _ = check_model(config, subject.path)
    except UserError as error:
        raise UserError(f"{error} (prompts are as long as the longest; --max-tokens bounds completions)") from error
    asked = Asked(subject.path, eos_ids or (tokenizer.eos_token_id,), tokenizer, response_prefix(prompts[0], tokenizer))
    return Prepared(subject, config, asked, tasks, CompletionStore(folder / subject.folder), how.samples)


def _fill(models: Sequence[Prepared], how: Protocol, engines_given: bool, console: Console) -> None:
    """Sample what is missing of each model."""
    missing = {prepared.subject.label: prepared.wanted() for prepared in models}
    if not any(missing.values()):
        return
    from actors.evaluator import sample, with_all_gpus
    from actors.placement import check_build, connection, joins_cluster

    async def fill(pool: CheckPool[Answered]) -> None:
        for prepared in models:
            wanted = missing[prepared.subject.label]
            if wanted:
                console.print(f"{prepared.subject.label}: {len(wanted):,} completions to sample", markup=False)
                config = prepared.config if engines_given else with_all_gpus(prepared.config)
                say = _progress(console, prepared.subject.label, len(wanted))
                await sample(config, prepared.asked, how, wanted, prepared.store, pool, say)

    if not joins_cluster():
        check_build(models[0].config)
    with connection(), _pool(models[0].config, how) as pool:
        asyncio.run(fill(pool))


def _pool(config: RunConfig, how: Protocol) -> CheckPool[Answered]:
    rewards = config.rewards
    return CheckPool(Check(how.rules), rewards.processes, rewards.deadline_s, rewards.memory_gib, WARM_UP)


def _progress(console: Console, label: str, total: int) -> Callable[[int, int], None]:
    """Says a line every half minute, and when all is done."""
    began = said = time.monotonic()

    def say(ended: int, tokens: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_S or ended == total:
            said = now
            rate = tokens / (now - began)
            console.print(f"{label}: {ended:,} of {total:,} completions, {rate:,.0f} tokens/s", markup=False)

    return say


def _report(models: Sequence[Prepared], how: Protocol, benchmarks: Sequence[Benchmark], seed: int) -> dict[str, Any]:
    tables = {p.subject.label: {b.name: p.table(b.name) for b in benchmarks} for p in models}
    measured: dict[str, dict[str, Figures]] = {}
    with CheckPool(Check("boxed"), models[0].config.rewards.processes, 5.0, 2.0, WARM_UP) as pool:
        for label, by_name in tables.items():
            measured[label] = {
                name: figures(_samples(table, pool), _RESAMPLING_SEED) for name, table in by_name.items()
            }
    comparisons: dict[str, dict[str, Paired]] = {}
    if START in tables:
        for label in [label for label in tables if label != START]:
            pairs = {b.name: (tables[label][b.name].correct(), tables[START][b.name].correct()) for b in benchmarks}
            comparisons[label] = corrected({name: compare(*pair, _RESAMPLING_SEED) for name, pair in pairs.items()})
    return document(
        how.settings() | {"samples": how.samples, "models": {p.subject.label: p.subject.path for p in models}},
        {benchmark.name: benchmark.title for benchmark in benchmarks},
        measured,
        {p.subject.label: p.subject.published for p in models},
        comparisons,
        {"sampling": seed, "resampling": _RESAMPLING_SEED},
    )


def _samples(table: Table, pool: CheckPool[Answered]) -> Samples:
    votes = [list(zip(*row, strict=True)) for row in zip(table.status, table.answer, strict=True)]
    return Samples(table.correct(), answer_classes(votes, pool), table.tokens, table.truncated, table.english)


def _sources(given: Sequence[str]) -> dict[str, str]:
    sources = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not (equals and source and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._]*", name)):
            raise UserError(f"--data {text}: write NAME=FILE, such as aime24=/data/aime24.jsonl")
        sources[name] = source
    return sources


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch.evaluate",
        description=__doc__,
        epilog="Fields of engines and placement are changed as in a recipe: --placement.num_rollout_gpus 2.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL_OR_RUN", help="a run (folder or name), a model's folder, a Hub id, a built-in"
    )
    parser.add_argument("--benchmarks", default=BENCHMARKS, help=f"default: {BENCHMARKS}")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FILE", help="a local file of a benchmark")
    parser.add_argument("--protocol", choices=("robust", "as_published"), default="robust", help="default: robust")
    parser.add_argument("--samples", type=_positive, metavar="K", help="of each problem (robust: 16, as_published: 1)")
    parser.add_argument("--start", metavar="MODEL", help="the start model to compare with (default: the run's)")
    parser.add_argument("--step", type=int, help="the run's checkpoint (default: the last)")
    parser.add_argument(
        "--prompt", choices=("paper", "run", "plain"), help="robust only (default: the run's, else paper)"
    )
    parser.add_argument("--temperature", type=float, help="robust only (default: 0.6)")
    parser.add_argument("--top-p", type=float, help="robust only (default: 0.95)")
    parser.add_argument("--max-tokens", type=_positive, help="of a completion, robust only (default: 32768)")
    parser.add_argument("--seed", type=int, default=42, help="of sampling (default: 42)")
    parser.add_argument("--folder", help="where completions and tables go (default: the run's folder)")
    parser.add_argument("--hours", type=_positive, default=48, help="how long one model may take (default: 48)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
