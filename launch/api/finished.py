"""A run's folder as Python sees it: tables, the policy, evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.api.commands import run_command
from openrs_ray.common.files import read_json
from openrs_ray.config.names import find_run
from openrs_ray.errors import UserError
from openrs_ray.evaluation.subject import policies_of, policy_folder
from openrs_ray.export.choice import Asked, chosen, default_folder, kept_policies
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completions import current_rows
from openrs_ray.run.metrics import read_metrics

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class TrainedRun:
    """Reads a run's folder anew at every access, so that a run can be looked at while it trains.

    Example: load_run("quickstart").metrics.to_pandas().plot("step", "accuracy")
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """All settings, as in config.json."""
        return read_json(self.folder / "config.json") or {}

    @property
    def steps(self) -> int:
        """Steps trained so far."""
        return max((line["step"] for line in read_metrics(self.folder)), default=0)

    @property
    def result(self) -> dict[str, Any]:
        """The outcome: accuracies before and after with their intervals; empty before the end."""
        return read_json(self.folder / "result.json") or {}

    @property
    def metrics(self) -> "pyarrow.Table":
        """One row per step that counts. `.to_pandas()` makes a data frame of it."""
        return self._metrics("train")

    @property
    def evaluations(self) -> "pyarrow.Table":
        """One row per evaluation on the held-out problems."""
        return self._metrics("evaluation")

    @property
    def completions(self) -> "pyarrow.Table":
        """Every completion that was trained on, or drawn and replaced, with its verdict."""
        return current_rows(self.folder)

    @property
    def held_out_completions(self) -> "pyarrow.Table":
        return current_rows(self.folder, "evaluation")

    @property
    def policy(self) -> Path:
        """Folder of the newest policy, for transformers and vLLM. UserError before the first checkpoint."""
        kept = [one for one in CheckpointStore(self.folder / "checkpoints").checkpoints() if one.kind == "kept"]
        if not kept:
            raise UserError(f"run {self.name} in {self.folder} has no checkpoint with a policy yet")
        return max(kept, key=lambda one: one.step).policy

    def evaluate(self, *benchmarks: str, **options: Any) -> dict[str, Any]:
        """`python -m launch.evaluate RUN`: a policy and its start model on benchmarks; the content of report.json.

        Args:
            benchmarks: names or NAME=FILE; none: the command's default.
            options: of the command: step=50 (default: the last with a policy), samples=4, max_tokens=2048,
                placement={"num_rollout_gpus": 2}.
        """
        step = options.pop("step", None) or max(policies_of(self.folder, self.name), default=None)
        words, names = [str(self.folder), *as_options({"step": step})], []
        for benchmark in benchmarks:
            name, file, _ = benchmark.partition("=")
            names.append(name)
            words += ["--data", benchmark] if file != benchmark and "=" in benchmark else []
        words += ["--benchmarks", ",".join(names)] if names else []
        run_command("evaluate", [*words, *as_options(options)])
        given, protocol = options.get("folder"), options.get("protocol", "robust")
        place = Path(given).expanduser().absolute() if given else self.folder / "evaluation" / protocol
        return read_json(place / policy_folder(step or 0) / "report.json") or {}

    def export(self, step: Asked = "best", **options: Any) -> Path:
        """`python -m launch.export RUN`: the folder of a model to use and share elsewhere.

        Args:
            step: "best", by held-out problems, or a step with a policy.
            options: of the command: folder="model", gguf="q8_0", push_to="OWNER/NAME".
        """
        choice = chosen(self.folder, kept_policies(self.folder), step)
        run_command("export", [str(self.folder), "--step", str(step), *as_options(options)])
        given = options.get("folder")
        return Path(given).expanduser().absolute() if given else default_folder(self.folder, choice.step)

    def __repr__(self) -> str:
        of = self.config.get("run", {}).get("steps", "?")
        return f"TrainedRun({str(self.folder)!r}, step {self.steps} of {of})"

    def _metrics(self, phase: str) -> "pyarrow.Table":
        import pyarrow

        lines = read_metrics(self.folder, phase)
        names = dict.fromkeys(name for line in lines for name in line)
        return pyarrow.table({name: [line.get(name) for line in lines] for name in names})


def load_run(run: str | Path) -> TrainedRun:
    """A run by its name or folder. UserError names the others."""
    return TrainedRun(find_run(run).absolute())


def as_options(options: Mapping[str, Any]) -> list[str]:
    """Keywords as a command line. Example: {"max_tokens": 64, "placement": {"threads": 1}}"""
    words = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            words += [word for key, each in value.items() for word in (f"--{name}.{key}", _text(each))]
        elif value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", _text(value)]
    return words


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
