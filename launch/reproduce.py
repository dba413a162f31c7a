"""`python -m launch.reproduce open-rs3 [--fidelity as_published] [--dotted.field VALUE ...] [--json]`: the whole paper.

    1  the start model on the benchmarks
    2  training by the recipe, until its steps are done or its budget is spent
    3  every checkpoint on problems held out of the training data, never on a benchmark: the best one is chosen
    4  the chosen checkpoint on the benchmarks, and the tables

Each part leaves on the disk what it has done, so the same command, given again after a kill, goes on where it was.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, Final

from rich.console import Console

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.numbers import positive
from launch.cli.options import Parser, help_asked
from launch.driver.evaluated import Prepared
from launch.driver.harness import Harness
from launch.evaluate import add_benchmark_options, asked_benchmarks
from launch.train import supervised
from openrs_ray.cluster.fitting import check_fits
from openrs_ray.cluster.machine import Machine
from openrs_ray.common.console import Document, json_output, say, show_markdown
from openrs_ray.common.files import replacing
from openrs_ray.config.help import help_text
from openrs_ray.config.load import load_config
from openrs_ray.config.names import recipe_lines
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.texts import letters_key
from openrs_ray.errors import RunError, UserError
from openrs_ray.evaluation.benchmarks import Benchmark, Prompt
from openrs_ray.evaluation.config import EvaluationConfig, as_in_run
from openrs_ray.evaluation.protocol import Protocol, protocol
from openrs_ray.evaluation.report import interval_text, markdown, published, write
from openrs_ray.evaluation.slope import check_worth
from openrs_ray.evaluation.subject import Subject, policies_of, start_model
from openrs_ray.preparation.dry_run import dry_run
from openrs_ray.preparation.prepared import prepare
from openrs_ray.records import Problem
from openrs_ray.rewards.answers.kinds import columns
from openrs_ray.run.account import Spent
from openrs_ray.run.budget import ENDING, Budget, LimitReached
from openrs_ray.run.ledger import head_beside, note_evaluation
from openrs_ray.run.progress import read_result
from openrs_ray.run.resume import check_run, kept_fields

_HELD_OUT: Final = "held_out"
_DEADLINE_S = 48 * 3600.0
_NONE_HELD_OUT = (
    "a checkpoint is chosen on held-out problems that no benchmark has, and there are none: set evaluation.hold_out to how many "
    "of the training problems to keep, or evaluation.path to others"
)
_IMPORTS_S = 20.0
"""Age of the process that trains, at most, when it checks its budget."""


@command
def main(arguments: list[str]) -> int:
    console = Console(highlight=False)
    if section := help_asked(arguments):
        say(console, help_text(section))
        return 0
    parser = _parser()
    options, overrides = parser.parse_with_fields(arguments)
    config = load_config(options.recipe, overrides, parser.flags)
    belongs_to(config.run.path)
    how = protocol(options.protocol, config, samples=options.samples, max_tokens=options.max_tokens)
    train = [sys.executable, "-m", "launch.train", options.recipe, *overrides, "--resume"]
    work = Reproduction(config, how, asked_benchmarks(options), options.held_out_samples, train, console)
    with json_output(options.json) as document:
        if not options.dry_run:
            return work.run(document)
        training = dry_run(config, partial(say, console))
        document({"training": training, "benchmarks": work.say_plan()})
    return 0


@dataclass(frozen=True)
class Reproduction:
    """The four parts; each skips its finished work."""

    config: RunConfig
    how: Protocol
    benchmarks: tuple[Benchmark, ...]
    held_out_samples: int
    train: Sequence[str]
    """The command that trains or resumes."""
    console: Console

    def run(self, document: Document) -> int:
        """Returns the training's exit code."""
        held_out = self._check()
        self._part(1, "the start model on the benchmarks")
        with self._on_benchmarks.sitting([self._start]) as models:
            unseen = self._unseen(held_out, models[0])
            self._on_benchmarks.say_plan(models, planned=1)
            self._on_benchmarks.sample(models)
        self._part(2, f"training, {self.config.run.steps} steps")
        if not self._trained() and (code := supervised(self.config, self.train, self.console)):
            return code
        checkpoints = list(self._policies().values())
        self._part(3, f"{len(checkpoints)} checkpoints on {len(unseen)} held-out problems")
        choosing = self._choosing(unseen)
        with choosing.sitting([*checkpoints, self._start]) as candidates:
            choosing.sample(candidates)
            choices = choosing.report(candidates)
        best = best_checkpoint(checkpoints, choices)
        self._part(4, f"{best.label} on the benchmarks")
        with self._on_benchmarks.sitting([best, self._start]) as models:
            self._on_benchmarks.sample(models)
            content = self._on_benchmarks.report(models)
        costs = self._costs(models, candidates)
        content["more"] = [choice_table(choices, best, self.config), cost_table(costs)]
        content["choice"] = {"chosen": best.label, "models": choices["models"]}
        content["costs"] = [asdict(cost) for cost in costs]
        folder = self.config.run.path / "reproduction"
        # Beside its completions, too, where cards, pages and audits look for the tables of a policy.
        place = self._on_benchmarks.folder / best.folder
        content["ledger"] = (head := head_beside(place)) and asdict(head)
        for each in (folder, place):
            write(each, content)
        note_evaluation([folder, place, *(model.store.folder for model in [*models, *candidates])])
        document(content)
        show_markdown(self.console, markdown(content))
        say(self.console, f"{folder}/report.md, report.json and report.html")
        return 0

    def say_plan(self) -> dict[str, Any]:
        return self._on_benchmarks.say_plan([self._on_benchmarks.prepare(self._start)], planned=1)

    def _check(self) -> tuple[Problem, ...]:
        """The held-out problems; finds every mistake that training would find hours later."""
        from actors.cluster.placement import check_build, check_machine, connection, joins_cluster, place

        if len(self.config.tasks) > 1:
            raise UserError("launch.reproduce is for one data set, as the paper's: train with launch.train")
        check_run(self.config, resume=True)
        machine = Machine.planned(self.config, this_machine=not joins_cluster())
        prepared = prepare(self.config)
        check_fits(self.config, prepared.shape, machine, kept_fields(self.config))
        if joins_cluster():
            with connection():
                place(self.config).release()
        else:
            check_machine(self.config)
            check_build(self.config.placement)
        if not prepared.held_out:
            raise UserError(_NONE_HELD_OUT)
        return prepared.held_out

    def _unseen(self, held_out: Sequence[Problem], start: Prepared) -> list[Problem]:
        """Held-out problems that no benchmark has."""
        asked = {letters_key(task.problem.text) for tasks in start.tasks.values() for task in tasks}
        unseen = [problem for problem in held_out if letters_key(problem.text) not in asked]
        if not unseen:
            raise UserError(_NONE_HELD_OUT)
        if len(unseen) < len(held_out):
            taken = len(held_out) - len(unseen)
            say(self.console, f"{taken} held-out problems are in a benchmark, too, and have no say in the choice")
        return unseen

    def _part(self, number: int, what: str) -> None:
        say(self.console, f"[{self.config.run.name}] part {number} of 4: {what}")

    @cached_property
    def _start(self) -> Subject:
        return start_model(self.config.model.path)

    @cached_property
    def _on_benchmarks(self) -> Harness:
        return self._harness(self.how, self.benchmarks)

    def _choosing(self, held_out: Sequence[Problem]) -> Harness:
        """Asks as training does, at the temperature of the run's evaluation."""
        source = self.config.run.path / "evaluation" / "held_out.jsonl"
        source.parent.mkdir(parents=True, exist_ok=True)
        with replacing(source) as temporary:
            needed = {column.partition(".")[0] for column in columns(self.config.answer).values()}
            rows = (
                {name: problem.row[name] for name in needed} | {"problem": problem.text, "answer": list(problem.gold)}
                for problem in held_out
            )
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        how = Protocol(
            name=_HELD_OUT,
            samples=self.held_out_samples,
            temperature=self.config.evaluation.temperature,
            top_p=1.0,
            max_tokens=self.config.max_evaluated_tokens,
            rules=self.config.rewards.extraction,
            prompt=Prompt("run", data=self.config.tasks[0].data),
        )
        answer = self.config.answer.model_copy(update={"show_choices": False, "shown_tests": 0})  # texts have them
        benchmark = Benchmark(_HELD_OUT, "held-out training problems", str(source), answer=answer)
        return self._harness(how, (benchmark,))

    def _harness(self, how: Protocol, benchmarks: tuple[Benchmark, ...]) -> Harness:
        folder, seed = self.config.run.path / "evaluation" / how.name, self.config.run.seed
        config = EvaluationConfig.model_validate(as_in_run(self.config))
        return Harness(how, benchmarks, folder, config, _DEADLINE_S, seed, self.console)

    def _trained(self) -> bool:
        """True when the steps are done, or the limits allow no other."""
        result = read_result(self.config.run.path)
        if result is not None and result.step >= self.config.run.steps:
            return True
        try:
            if result is not None:
                check_worth(self.config, result)
            Budget(self.config, age_s=_IMPORTS_S).check("start", "step", *ENDING)
        except LimitReached:
            if not self._policies():
                raise
            return True
        return False

    def _policies(self) -> dict[int, Subject]:
        return policies_of(self.config.run.path, self.config.run.name)

    def _costs(self, models: Sequence[Prepared], candidates: Sequence[Prepared]) -> "list[Costs]":
        best, start = models
        rollout = self.config.rollout
        evaluated = f"{sum(map(len, best.tasks.values())):,} x {best.samples}"
        chosen_on = f"{len(candidates)} models x {len(candidates[0].tasks[_HELD_OUT])} x {self.held_out_samples}"
        trained_on = f"{max(self._policies()) * rollout.problems_per_step:,} x {rollout.completions_per_problem}"
        return [
            Costs("start model, benchmarks", evaluated, start.spent()),
            Costs("training", trained_on, Spent.read(self.config.run.path)),
            Costs("choice of the checkpoint", chosen_on, Spent.total(candidate.spent() for candidate in candidates)),
            Costs("chosen checkpoint, benchmarks", evaluated, best.spent()),
        ]


@dataclass(frozen=True, slots=True)
class Costs:
    """Example: Costs("training", "6,000 x 6", Spent(dollars=42.0, gpu_hours=95.5, hours=23.9))"""

    part: str
    data: str
    """Problems x samples."""
    spent: Spent


def best_checkpoint(checkpoints: Sequence[Subject], choices: dict[str, Any]) -> Subject:
    """The earliest with the highest held-out accuracy."""
    averages = {subject: choices["models"][subject.label][_HELD_OUT]["average"] for subject in checkpoints}
    believed = [subject for subject in checkpoints if averages[subject] is not None]
    if not believed:
        raise RunError(
            "of no checkpoint enough answers to the held-out problems could be judged (rewards.max_unjudged_share): raise "
            "rewards.deadline_s or rewards.memory_gib, or look at the details in evaluation/held_out"
        )
    return max(believed, key=lambda subject: averages[subject]["mean"])


def choice_table(choices: dict[str, Any], best: Subject, config: RunConfig) -> dict[str, Any]:
    """Every checkpoint on the held-out problems."""
    rows = [["", "accuracy [95 %]", "against the start model [95 %]", "mean tokens", ""]]
    for label, by_name in choices["models"].items():
        figures, paired = by_name[_HELD_OUT], choices["against_start_model"].get(label, {}).get(_HELD_OUT)
        against = interval_text(paired["difference"], "+z.1f") if paired else "-"
        mark = "chosen" if label == best.label else ""
        rows.append([label, interval_text(figures["average"]), against, f"{figures['mean_tokens']:,.0f}", mark])
    asked = choices["models"][best.label][_HELD_OUT]
    heading = f"Choice of the checkpoint, on {asked['problems']} held-out training problems x {asked['samples']}"
    return {"heading": f"{heading} (fidelity {config.fidelity})", "rows": rows}


def cost_table(costs: Sequence[Costs]) -> dict[str, Any]:
    """The cost of each part, beside published costs."""
    rows = [["", "problems x samples", "hours", "GPU hours", "dollars"]]
    whole = Costs("all of it", "", Spent.total(cost.spent for cost in costs))
    for cost in (*costs, whole):
        spent = cost.spent
        dollars = f"{spent.dollars:,.2f}" if spent.dollars else "-"
        rows.append([cost.part, cost.data, f"{spent.hours:,.2f}", f"{spent.gpu_hours:,.2f}", dollars])
    for name, data, gpus, hours, dollars in published()["costs"]["rows"]:
        figures = (hours, hours and gpus * hours, dollars)
        rows.append([f"published: {name}", data, *("-" if value is None else f"{value:,}" for value in figures)])
    return {"heading": f"Costs (published: {published()['costs']['source']})", "rows": rows}


def _parser() -> Parser:
    fields = "Every field of the recipe is changed as for launch.train: --fidelity as_published (--help SECTION)."
    parser = Parser("reproduce", __doc__, "\n".join([fields, *recipe_lines("run")]))
    parser.add_argument("recipe", metavar="RECIPE", help="a file, or the name of a recipe or of a run (open-rs3)")
    add_benchmark_options(parser)
    samples = "of each held-out problem (default: 4)"
    parser.add_argument("--held-out-samples", type=positive, default=4, metavar="K", help=samples)
    dry_run = "say what it would do and need, and what the benchmarks can show; start nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    parser.add_json()
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
