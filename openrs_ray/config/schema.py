"""The run's configuration: what a recipe may say, checked before anything starts.

Every field carries one sentence, a type and bounds; unknown keys are refused. The sentences are what `--help` prints. A field
keeps its value when a run is resumed, unless it or its section is marked FREE (`openrs_ray.config.resumable`).
Paths that name something built in (`toy`, `smollm2-135m-instruct`) are resolved by `openrs_ray.models.bundled`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data, DataSections, DataSet
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.evaluation import Evaluation, HeldOut
from openrs_ray.config.fidelity import Fidelity, as_published
from openrs_ray.config.guard import Guard
from openrs_ray.config.judge_model import JudgeModel
from openrs_ray.config.learner import Learner
from openrs_ray.config.loss import Loss
from openrs_ray.config.names import CODE
from openrs_ray.config.placement import Placement, check_split
from openrs_ray.config.quantization import refusal
from openrs_ray.config.resumable import FREE
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.rollout import Engine, Rollout
from openrs_ray.config.section import Amount, Positive, Seconds, Section, Seed, SomeAmount
from openrs_ray.config.steering import check_reference_reset, check_slope, check_stages
from openrs_ray.config.task import Task
from openrs_ray.rewards.judge_model.settings import NAMES as JUDGE_REWARDS
from openrs_ray.rewards.libraries.names import VERIFIERS, implied
from openrs_ray.rewards.registry import weighted_parameters
from openrs_ray.user_code.reference import UserCode, is_reference

SinkName = Literal["wandb", "trackio", "mlflow"]


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), FREE]
    """Name of the run; its folder inside `run.folder`."""
    folder: Annotated[Path, FREE] = Path(os.environ.get("OPENRS_RUNS", "~/openrs_runs"))
    """Folder of all runs: absolute (~ allowed), seen by every node, outside the submitted working directory."""
    steps: Annotated[Positive, FREE]
    """Optimizer steps of the whole run."""
    seed: Seed = 42
    """Seed of the data order and of every sampled token."""
    sinks: Annotated[tuple[SinkName, ...], FREE] = ()
    """Services that get the figures, some completions and the config, besides the run's folder (docs/monitoring.md)."""

    @field_validator("sinks", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Also one name, or several with commas between them, as typed on a command line."""
        return [name.strip() for name in given.split(",")] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _absolute(self) -> Run:
        if not self.folder.expanduser().is_absolute():
            raise ValueError(f"run.folder must be an absolute path, not {self.folder}")
        return self

    @property
    def path(self) -> Path:
        """The run's own folder."""
        return self.folder.expanduser() / self.name


class Model(Section):
    path: str
    """Start model: a folder, a Hub id, or the name of a built-in (`toy`, `smollm2-135m-instruct`)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the policy in the learner's forward pass and in the rollout engines (optimizer state is float32)."""
    chat_template: Path | None = None
    """File with a Jinja chat template, used instead of the tokenizer's own."""


class Push(Section):
    bucket_mib: Annotated[int, Field(gt=0, le=1_000_000)] = 256
    """Weights travel in buckets of about this size, a larger parameter in one of its own."""
    deadline_s: Seconds = 120
    """Longest time for each part of a push (joining, pausing, all buckets, putting in place, the probe); an engine that takes
    longer is replaced."""
    probe_every: Positive = 10
    """Compare log-probabilities of learner and engines on a probe batch at the first push and then every so many pushes."""
    probe_tolerance: SomeAmount = 0.05
    """Largest mean absolute difference of log-probability per token that the probe accepts (float32: 1e-3 is right)."""
    max_mismatch_kl: SomeAmount = 0.05
    """Largest mean k3 divergence per token between sampler and learner on a step's completions before the run stops."""


class Checkpoint(Section):
    every_steps: Positive = 50
    """Keep a checkpoint, with the policy as safetensors, every so many steps and at the end."""
    every_minutes: SomeAmount = 15.0
    """Save for resuming every so many minutes, apart from the kept ones; the newest stays (two until one is kept)."""
    keep_last: Positive = 2
    """Number of kept checkpoints that stay complete."""
    keep_policies: bool = True
    """Older kept checkpoints lose their optimizer state only; the exported policy stays."""
    deadline_s: Seconds = 900
    """Longest time for saving, and for loading, with a conversion for another number of learner ranks."""


class Cost(Section):
    price_per_gpu_hour: Amount | None = None
    """Dollars for one GPU (on a CPU: one slot) and hour; none: no dollars are shown."""
    budget_usd: SomeAmount | None = None
    """Stop in time to save and evaluate before this many dollars are spent, over all attempts, from process start on."""
    max_hours: SomeAmount | None = None
    """The same for hours of wall time."""
    min_points_per_usd: SomeAmount | None = None
    """Stop where a dollar buys fewer points of held-out accuracy than this: as soon as the upper end of the slope's interval is
    below it (docs/cost.md)."""
    evaluations_per_slope: Annotated[int, Field(ge=3, le=10_000)] = 8
    """The slope for `min_points_per_usd` is that of the last so many evaluations; before there are so many, nothing stops."""

    @model_validator(mode="after")
    def _priced(self) -> Cost:
        if self.budget_usd is not None and not self.price:
            raise ValueError("cost.budget_usd needs a cost.price_per_gpu_hour above 0")
        if self.min_points_per_usd is not None and not self.price:
            raise ValueError("cost.min_points_per_usd needs a cost.price_per_gpu_hour above 0")
        return self

    @property
    def price(self) -> float:
        """Dollars per GPU hour; 0 where none is given."""
        return self.price_per_gpu_hour or 0.0


def _with_engine(given: dict[str, Any]) -> dict[str, Any]:
    """The config.json of a run that began before there was a section `engine`, whose fields were all in `rollout`."""
    rollout, fields = given.get("rollout"), Engine.model_fields
    if not isinstance(rollout, dict) or not fields.keys() <= rollout.keys():
        return given
    moved = {name: rollout[name] for name in fields} | given.get("engine", {})
    return given | {"rollout": {k: v for k, v in rollout.items() if k not in fields}, "engine": moved}


class RunConfig(Section):
    """Everything one run needs. See `launch/recipes/` for examples."""

    fidelity: Fidelity = "as_described"
    """Where the paper's text and its published code differ (docs/rewards.md), follow the text (defaults) or the code (fixed)."""
    run: Run
    model: Model
    data: DataSections
    """One data set or, as a list, several with a task each (docs/your-model-and-data.md)."""
    evaluation: Evaluation = Evaluation()
    rollout: Rollout
    engine: Annotated[Engine, FREE] = Engine()
    environment: EnvironmentSection = EnvironmentSection()
    """Turns a problem into a rollout: its name is enough (`environment: single_turn`)."""
    answer: Answer = Answer()
    rewards: Rewards = Rewards()
    loss: Annotated[Loss, FREE] = Loss()
    learner: Learner = Learner()
    push: Annotated[Push, FREE] = Push()
    placement: Annotated[Placement, FREE] = Placement()
    checkpoint: Annotated[Checkpoint, FREE] = Checkpoint()
    guard: Annotated[Guard, FREE] = Guard()
    cost: Annotated[Cost, FREE] = Cost()
    _folders: tuple[Path, ...] = PrivateAttr(())
    _user_code: dict[str, UserCode] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """By what it says, wherever it was read from."""
        return isinstance(other, RunConfig) and vars(self) == vars(other)

    @model_validator(mode="before")
    @classmethod
    def _picked(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = implied(_with_engine(given))
        if given.get("fidelity") != "as_published":
            return given
        if isinstance(given.get("data"), list | tuple):
            raise ValueError("fidelity as_published goes with one section data, not with a list")
        return as_published(given)

    @model_validator(mode="after")
    def _tasks_fit_together(self) -> RunConfig:
        for task in self.tasks:
            if task.data.rest_after and not task.right_or_wrong:
                of_it = f" of task {task.name}" if task.name else ""
                raise ValueError(
                    f"data.rest_after{of_it} goes by right and wrong answers, of which answer.kind none has none"
                )
        if isinstance(self.data, Data):
            return self
        first = dict[str, int]()
        for number, data in enumerate(self.data):
            other = first.setdefault(data.name, number)
            if other != number:
                raise ValueError(
                    f"data[{other}] and data[{number}] are both named {data.name}: give data[{number}].name another one"
                )
        for name in ("path", "split", "problems"):
            if getattr(self.evaluation, name) is not None:
                raise ValueError(
                    f"evaluation.{name} is for one data set: where data is a list, give data[0].evaluation.{name}"
                )
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        place, rollout, engine = self.placement, self.rollout, self.engine
        check_split(place.num_rollout_gpus, engine)
        if (place.max_rollout_gpus or place.num_rollout_gpus) < place.num_rollout_gpus:
            raise ValueError("placement.max_rollout_gpus must not be below placement.num_rollout_gpus")
        if place.colocated and place.max_rollout_gpus is not None:
            raise ValueError(
                "placement.max_rollout_gpus is for engines on GPUs of their own, not for placement.colocated"
            )
        if place.colocated and (place.num_rollout_gpus != place.num_learner_gpus or engine.tensor_parallel > 1):
            raise ValueError(
                "placement.colocated needs placement.num_rollout_gpus equal to placement.num_learner_gpus and "
                "engine.tensor_parallel 1"
            )
        if rollout.sleep_while_learning and not place.colocated:
            raise ValueError(
                "rollout.sleep_while_learning needs placement.colocated: engines on GPUs of their own keep them"
            )
        if rollout.sleep_while_learning and rollout.staleness:
            raise ValueError("rollout.sleep_while_learning needs rollout.staleness 0: asleep, engines cannot run ahead")
        shares = place.colocated and place.device != "cpu" and not rollout.sleep_while_learning
        if shares and engine.gpu_memory_fraction > 0.6:
            raise ValueError(
                f"placement.colocated needs engine.gpu_memory_fraction of at most 0.6, not {engine.gpu_memory_fraction:g}: "
                "the learner needs the rest of the GPU (or set rollout.sleep_while_learning true)"
            )
        updates = self.learner.updates_per_batch
        if rollout.problems_per_step % updates:
            raise ValueError(
                f"rollout.problems_per_step ({rollout.problems_per_step}) must be a multiple of learner.updates_per_batch "
                f"({updates}): every update has the same number of groups"
            )
        if updates > 1 and self.loss.old_policy == "current":
            raise ValueError(
                "learner.updates_per_batch above 1 needs loss.old_policy sampler: with current, later updates would learn from "
                "completions as if the policy had not changed since"
            )
        learned_at_once = self.completions_per_step // updates
        per = f"completions per {'step' if updates == 1 else 'update'}"
        if learned_at_once < place.num_learner_gpus:
            raise ValueError(
                f"{learned_at_once} {per} cannot be spread over "
                f"{place.num_learner_gpus} learner ranks: raise rollout.problems_per_step"
            )
        if self.loss.normalization == "local_micro_batch":
            size = self.learner.micro_batch_sequences
            if size is None:
                raise ValueError("loss.normalization local_micro_batch needs learner.micro_batch_sequences")
            if learned_at_once % (size * place.num_learner_gpus):
                raise ValueError(
                    f"{learned_at_once} {per} do not divide into micro-batches of {size} "
                    f"on {place.num_learner_gpus} learner ranks"
                )
        elif self.learner.micro_batch_sequences is not None:
            raise ValueError("learner.micro_batch_sequences is only for loss.normalization local_micro_batch")
        if self.learner.offload_reference and not self.needs_reference:
            raise ValueError(
                "learner.offload_reference needs a reference model: set loss.kl_beta above 0, or learner.offload_reference false"
            )
        if self.learner.offload_reference and self.learner.lora.rank:
            raise ValueError(
                "learner.offload_reference must be false with adapters (learner.lora.rank above 0): the reference is the same "
                "model without them, so there is no copy to offload"
            )
        if self.loss.kind == "distill" and rollout.replace_uniform_groups:
            raise ValueError(
                "rollout.replace_uniform_groups must be 0 with loss.kind distill: groups of equal rewards learn from the teacher"
            )
        if self.learner.micro_batch_tokens < self.max_sequence_tokens:
            raise ValueError(
                f"learner.micro_batch_tokens ({self.learner.micro_batch_tokens}) must hold one longest sequence "
                f"of {self.max_sequence_tokens} tokens (prompt and completion)"
            )
        for task in self.tasks:
            if task.environment.name.startswith(VERIFIERS) and task.environment.name != task.data.path:
                raise ValueError(
                    f"environment {task.environment.name} brings its own problems, not those of {task.data.path}: set data.path "
                    f"{task.environment.name}"
                )
        for parameters in (one for task in self.tasks for one in weighted_parameters(task.rewards).values()):
            if hasattr(parameters, "check"):
                parameters.check(rollout.max_completion_tokens)
        for task in self.tasks:
            self._check_judge_in_time(task)
        return self

    @model_validator(mode="after")
    def _can_be_steered(self) -> RunConfig:
        check_stages(self)
        check_reference_reset(self)
        check_slope(self)
        return self

    @model_validator(mode="after")
    def _quantized_fits(self) -> RunConfig:
        quantization = self.rollout.quantization
        if quantization == "none":
            return self
        if not self.loss.corrects:
            raise ValueError(
                f"rollout.quantization {quantization} samples from a slightly different policy, which the loss must correct: "
                "set loss.correction truncated or sequence_mask, or loss.kind tis or cispo"
            )
        if self.loss.old_policy != "sampler":
            raise ValueError(
                f"rollout.quantization {quantization} needs loss.old_policy sampler: with {self.loss.old_policy}, what no mask "
                "leaves out would be learned from as if the policy itself had sampled it"
            )
        if self.model.dtype != "bfloat16":
            raise ValueError(f"rollout.quantization {quantization} needs model.dtype bfloat16, not {self.model.dtype}")
        if self.placement.device == "cpu" and (reason := refusal(quantization, None)):
            raise ValueError(reason)
        return self

    def _check_judge_in_time(self, task: Task) -> None:
        """Judgements follow sampling, one reward after the other: late ones must not take the rest of the step with them."""
        asked = len(task.rewards.weights.keys() & {*JUDGE_REWARDS})
        most = self.rollout.deadline_s / 2
        if asked and asked * task.rewards.judge.deadline_s > most:
            each = f"{task.rewards.judge.deadline_s:g} s" + (
                " for each of judge and judge_relative" if asked > 1 else ""
            )
            raise ValueError(
                f"rewards.judge.deadline_s ({each}) may take at most half of rollout.deadline_s "
                f"({self.rollout.deadline_s:g} s), since sampling comes before it: lower rewards.judge.deadline_s to "
                f"{most / asked:g}, or raise rollout.deadline_s"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """At least one; names differ."""
        if isinstance(self.data, Data):
            return (Task("", self.data, self.answer, self.rewards, self.environment, 1.0, self.evaluation),)
        return tuple(map(self._task, self.data))

    def _task(self, data: DataSet) -> Task:
        return Task(
            data.name,
            data,
            data.answer or self.answer,
            self.rewards.with_pool_of(data.rewards) if data.rewards else self.rewards,
            data.environment or self.environment,
            data.weight,
            data.evaluation or HeldOut(hold_out=self.evaluation.hold_out),
        )

    @property
    def user_references(self) -> tuple[str, ...]:
        """Names in the config that mean the user's own code, FILE.py:NAME."""
        names = [name for task in self.tasks for name in (*task.rewards.weights, task.environment.name)]
        return tuple(dict.fromkeys(filter(is_reference, names)))

    def user_code(self, reference: str) -> UserCode:
        """The user's own code of a reference, from then on as its file was when it was first asked for. UserError.

        Looked for in the folder of the recipe, the working directory, and at last among the copies in the run's folder.
        """
        if reference not in self._user_code:
            folders = *self._folders, Path.cwd(), self.run.path / CODE
            self._user_code[reference] = UserCode.read(reference, folders)
        return self._user_code[reference]

    def look_in(self, folders: Sequence[Path]) -> None:
        """Where files of the user's own are looked for before the working directory."""
        self._folders = tuple(folders)

    def task(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    @property
    def judges(self) -> dict[str, JudgeModel]:
        """Judge models by task, where there are any."""
        return {task.name: task.rewards.judge for task in self.tasks if task.rewards.judge.model is not None}

    @property
    def served_judges(self) -> tuple[JudgeModel, ...]:
        """Judge models that the run serves, each once."""
        return tuple({judge.model: judge for judge in self.judges.values() if judge.served}.values())

    def in_stage(self, number: int) -> RunConfig:
        """The config as if the whole run were in one of `rollout.stages`; for plans, not validated."""
        stage = self.rollout.stage(number)
        one = stage.model_dump(include={"max_completion_tokens", "max_prompt_tokens", "temperature"})
        return self.model_copy(update={"rollout": self.rollout.model_copy(update={**one, "stages": ()})})

    @property
    def as_evaluated(self) -> RunConfig:
        """The config as if all were sampled with an evaluation's limit; for plans, not validated."""
        longest = {"max_completion_tokens": self.max_evaluated_tokens}
        return self.model_copy(update={"rollout": self.rollout.model_copy(update=longest)})

    @property
    def needs_reference(self) -> bool:
        """True where a step may have a KL penalty."""
        return self.loss.kl_beta > 0 or self.guard.raises_kl

    @property
    def logprob_temperature(self) -> float:
        """Divisor of the logits for every log-probability in the loss, those that the sampler reports included."""
        return self.rollout.temperature if self.loss.tempered else 1.0

    @property
    def micro_batch_tokens(self) -> int:
        """The most tokens in one micro-batch."""
        sequences = self.learner.micro_batch_sequences
        return sequences * self.max_sequence_tokens if sequences else self.learner.micro_batch_tokens

    @property
    def completions_per_step(self) -> int:
        return self.rollout.problems_per_step * self.rollout.completions_per_problem

    @property
    def max_sequence_tokens(self) -> int:
        """Longest prompt with completion that the learner sees."""
        return self.rollout.max_prompt_tokens + self.rollout.max_completion_tokens

    @property
    def has_evaluations(self) -> bool:
        return any(task.held_out.path or task.held_out.hold_out for task in self.tasks)

    @property
    def max_evaluated_tokens(self) -> int:
        """Longest completion of an evaluation."""
        return self.evaluation.max_completion_tokens or self.rollout.max_completion_tokens

    @property
    def max_evaluation_sequence(self) -> int:
        """Tokens of the longest prompt with the longest completion of an evaluation."""
        return self.rollout.max_prompt_tokens + self.max_evaluated_tokens

    @property
    def longest_fields(self) -> str:
        """Fields that `max_served_tokens` is the sum of."""
        of_evaluations = self.max_served_tokens > self.max_sequence_tokens
        return f"rollout.max_prompt_tokens + {'evaluation' if of_evaluations else 'rollout'}.max_completion_tokens"

    @property
    def max_served_tokens(self) -> int:
        """Longest prompt with completion that an engine sees."""
        evaluated = self.max_evaluated_tokens if self.has_evaluations else 0
        return self.rollout.max_prompt_tokens + max(self.rollout.max_completion_tokens, evaluated)

    @property
    def num_gpus(self) -> int:
        """GPUs held from start to end; on a CPU the slots that stand for them."""
        place = self.placement
        judges = sum(judge.serve.gpus for judge in self.served_judges)
        return place.num_learner_gpus + (0 if place.colocated else place.num_rollout_gpus) + judges

    @property
    def max_gpus(self) -> int:
        return self.num_gpus + (self.max_engines - self.num_engines) * self.engine.tensor_parallel

    @property
    def num_engines(self) -> int:
        return self.placement.num_rollout_gpus // self.engine.tensor_parallel

    @property
    def threads(self) -> int:
        """Compute threads of an engine or rank on a CPU. With more than there are CPUs they wait for each other's."""
        ranks, engines = self.placement.num_learner_gpus, self.num_engines
        at_once = ranks + engines if self.rollout.staleness else max(ranks, engines)
        return self.placement.threads or max(1, (os.cpu_count() or 1) // at_once)

    @property
    def max_engines(self) -> int:
        return (self.placement.max_rollout_gpus or self.placement.num_rollout_gpus) // self.engine.tensor_parallel
