"""An evaluation that samples until the comparison of a model with its start model is decided (docs/evaluation.md)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from launch.driver.evaluated import Prepared, rate_of
from launch.driver.harness import Harness
from openrs_ray.common.console import say
from openrs_ray.common.files import read_json, write_json
from openrs_ray.common.same_request import check_same
from openrs_ray.evaluation.benchmarks import clusters
from openrs_ray.evaluation.expected import expectations, expected_lines
from openrs_ray.evaluation.paired import Pair
from openrs_ray.evaluation.sequential import Look, Plan, decided, look, outcome_text, undecidable

FILE = "until_decided.json"


@dataclass
class UntilDecided:
    """Samples a model and its start model in blocks, each benchmark until its comparison is decided.

    Decisions depend on completions alone, in the order of their sample numbers: killed and started again, it decides the same.
    """

    harness: Harness
    plan: Plan
    models: Sequence[Prepared]
    """The model and its start model."""
    looks: dict[str, list[Look]] = field(default_factory=dict)
    """By benchmark."""

    def say_plan(self) -> dict[str, Any]:
        """Say which part of the completions it is expected to take, and return it."""
        sizes = {name: len(tasks) for name, tasks in self.models[0].tasks.items()}
        titles = {benchmark.title: sizes[benchmark.name] for benchmark in self.harness.benchmarks}
        for line in expected_lines(titles, self.plan):
            say(self.harness.console, line)
        return {
            "looks": self.plan.looks,
            "power": self.plan.power,
            "expected": {name: [asdict(one) for one in expectations(size, self.plan)] for name, size in sizes.items()},
        }

    def run(self) -> dict[str, Any]:
        """Sample, and return the report. UserError where this comparison began with another plan."""
        self.say_plan()
        self._begin()
        self.harness.sample(self.models, self._blocks())
        return self._report()

    def _begin(self) -> None:
        """Write down what was asked for. UserError where this comparison began with something else."""
        path = self.models[0].store.folder / FILE
        now = {"start": self.models[1].subject.path, "benchmarks": [*self.models[0].tasks], **asdict(self.plan)}
        known = read_json(path)
        check_same(known or now, now, f"the evaluation until decided in {path.parent}", "give another --folder")
        write_json(path, now)

    def _blocks(self) -> Iterator[dict[str, int]]:
        """Numbers of samples to have of each problem, by benchmark that is not decided; decides when they are there."""
        undecided = [*self.models[0].tasks]
        for samples in self.plan.looks:
            if undecided:
                yield dict.fromkeys(undecided, samples)
            for name in undecided:
                self.looks.setdefault(name, []).append(self._look(name, samples))
                say(self.harness.console, f"{name}, {self._outcome(name)}")
            undecided = [name for name in undecided if not decided(self.looks[name])]

    def _look(self, name: str, samples: int) -> Look:
        ours, theirs = (prepared.table(name, samples).correct() for prepared in self.models)
        unjudged = max(float(np.isnan(side).mean()) for side in (ours, theirs))
        if unjudged > self.harness.config.rewards.max_unjudged_share:
            return undecidable(samples, self.plan)
        return look(Pair(ours, theirs, clusters(self.models[0].tasks[name])), self.plan)

    def _report(self) -> dict[str, Any]:
        """All figures of the samples that were taken; the comparisons are the sequential ones."""
        counts = {name: looks[-1].samples for name, looks in self.looks.items()}
        content = self.harness.report(self.models, samples=counts)
        by_name: dict[str, dict[str, Any]] = next(iter(content["against_start_model"].values()), {})
        compared = {
            name: paired | _sequential(looks[-1]) for name, looks in self.looks.items() if (paired := by_name.get(name))
        }
        content["against_start_model"] = dict.fromkeys(content["against_start_model"], compared)
        content["power"] = {}  # of a test with a fixed number of samples
        content["until_decided"] = {
            "looks": self.plan.looks,
            "power": self.plan.power,
            "benchmarks": {name: self._decision(name, content["models"]) for name in self.looks},
        }
        return content

    def _decision(self, name: str, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """One benchmark's looks, and what was not sampled."""
        missing = {p.subject.label: len(p.wanted({name: self.plan.samples})) for p in self.models}
        rate, completions = rate_of(self.models), sum(missing.values())
        return {
            "outcome": self.looks[name][-1].outcome,
            "text": self._outcome(name),
            "difference": self._asked(name),
            "looks": [asdict(one) for one in self.looks[name]],
            "saved": {
                "completions": completions,
                "tokens": sum(count * figures[label][name]["mean_tokens"] for label, count in missing.items()),
                "hours": rate and rate.hours * completions,
                "dollars": rate and rate.dollars * completions,
            },
        }

    def _asked(self, name: str) -> float:
        return self.plan.difference(len(self.models[0].tasks[name]))

    def _outcome(self, name: str) -> str:
        return outcome_text(self.looks[name][-1], self._asked(name), self.plan)


def looked_before(models: Sequence[Prepared]) -> bool:
    """True where an evaluation until decided has looked at some of these models' samples."""
    return any((prepared.store.folder / FILE).exists() for prepared in models)


def _sequential(last: Look) -> dict[str, Any]:
    """A comparison's figures; the interval and `corrected` hold over all looks and benchmarks."""
    return {"difference": last.difference and asdict(last.difference), "p": last.p, "corrected": last.corrected}
