"""The section `data`, or list of such sections: problems, and the prompts made of them."""

import re
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, WrapValidator, model_validator

from openrs_ray.config.answer import Answer, Text
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.evaluation import HeldOut
from openrs_ray.config.resumable import FREE
from openrs_ray.config.rewards import TaskRewards
from openrs_ray.config.section import Count, Positive, Section, Share, SomeAmount
from openrs_ray.rewards.libraries.names import REASONING_GYM, VERIFIERS


class Example(Section):
    problem: str
    """A worked example's problem, shown as an earlier user turn."""
    response: str
    """Its full response, shown as the assistant's turn."""


class Columns(Section):
    problem: str = "problem"
    """Column that holds the problem: text or a list of chat messages; a dot leads into a struct or JSON text."""
    answer: str = "answer"
    """Column that holds the gold answer: text, a number or a list of accepted answers (`reward_model.ground_truth`)."""
    answer_after: Text | None = None
    """When set, the gold answer is what follows the last occurrence of this marker in the answer column (GSM8K: "####")."""


class Stage(Section):
    level: Count | dict[str, Count]
    """Level of the library's curriculum, of everything it makes harder or of each by its name."""
    problems: Positive | None = None
    """Problems of the stage (default: data.parameters.size)."""


class Data(Section):
    path: str
    """Problems to train on: a Hub id, a .jsonl, .json, .parquet, .csv or .tsv file, a folder of such files, `toy`, or
    reasoning-gym:NAME and verifiers:NAME."""
    parameters: dict[str, Any] = Field(default={})
    """Of reasoning-gym:NAME and verifiers:NAME: what their configuration has, such as size, seed and difficulty."""
    curriculum: tuple[Stage, ...] = ()
    """Of reasoning-gym:NAME: stages of rising difficulty, drawn one after the other."""
    split: str = "train"
    """Split to read when `path` is a Hub id."""
    subset: str | None = None
    """Which subset to read of a Hub data set that has several (GSM8K: main)."""
    columns: Columns = Columns()
    """Which columns hold what."""
    system_prompt: str | None = None
    """System message put before every problem."""
    system_as_user: bool = False
    """For chat templates without a system role (Gemma): put the system message before the first user turn instead."""
    examples: tuple[Example, ...] = ()
    """Worked examples put before every problem as earlier turns."""
    suffix: str = ""
    """Text appended to every problem."""
    max_unparseable_share: Annotated[Share, FREE] = 0.01
    """Largest share of gold answers that may be unparseable (those problems are dropped and counted) before it is an error."""
    shuffle: bool = True
    """Draw the problems in a new seeded order each epoch instead of file order."""
    rest_after: Count = 0
    """A problem that was solved always, or never, in each of its last so many visits is at rest: left out for some epochs (0:
    none ever is)."""
    rest_for: Annotated[int, Field(gt=0, le=100)] = 1  # where all problems rest, so many epochs are passed over at once
    """Epochs for which a problem is at rest."""

    @model_validator(mode="before")
    @classmethod
    def _in_order(cls, given: Any) -> Any:
        """The stages of a curriculum keep their order."""
        return {"shuffle": False, **given} if isinstance(given, dict) and given.get("curriculum") else given

    @model_validator(mode="after")
    def _of_a_library(self) -> "Data":
        if self.parameters and not self.path.startswith((REASONING_GYM, VERIFIERS)):
            raise ValueError(
                f"data.parameters is for {REASONING_GYM}NAME and {VERIFIERS}NAME, not {self.path}: leave it out"
            )
        if self.curriculum and not self.path.startswith(REASONING_GYM):
            raise ValueError(f"data.curriculum is for {REASONING_GYM}NAME, not {self.path}: leave it out")
        if self.shuffle and len(self.curriculum) > 1:
            raise ValueError("data.curriculum has an order: leave out data.shuffle")
        return self


class DataSet(Data):
    """One of several data sets: a task of its own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = ""
    """Name of the task, in the record and the metrics (default: made of the path)."""
    weight: SomeAmount = 1.0
    """Share of the drawn problems, relative to the other data sets' weights."""
    environment: EnvironmentSection | None = None
    """The task's own, in place of the recipe's section `environment`."""
    answer: Answer | None = None
    """The task's own, in place of the recipe's section `answer`."""
    rewards: TaskRewards | None = None
    """The task's own, in place of the recipe's section `rewards`, whose pool judges all tasks."""
    evaluation: HeldOut | None = None
    """The task's own held-out problems, in place of `evaluation.hold_out` of `data`."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given.get("name") and isinstance(given.get("path"), str):
            return given | {"name": _name_of(given["path"])}
        return given


def _name_of(path: str) -> str:
    """Example: of "/data/additions.jsonl.gz" it is "additions", of "reasoning-gym:chain_sum" it is "chain_sum"."""
    last = re.split(r"[/:\\\\]", path.rstrip("/:"))[-1]
    stem = re.sub(r"(\.(jsonl|json|parquet|csv|tsv|gz))+$", "", last)
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "data"


_LIST: TypeAdapter[tuple[DataSet, ...]] = TypeAdapter(Annotated[tuple[DataSet, ...], Field(min_length=1)])


def _read(given: Any) -> Data | tuple[DataSet, ...]:
    """By the form, so that mistakes are those of one kind only."""
    return _LIST.validate_python(given) if isinstance(given, list | tuple) else Data.model_validate(given)


DataSections = Annotated[Data | tuple[DataSet, ...], WrapValidator(lambda given, _: _read(given))]
"""One data set, or several."""
