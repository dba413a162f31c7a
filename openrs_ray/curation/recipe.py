"""Schema of curation recipes: raw sources, then stages in order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from openrs_ray.config.data import Columns, Example
from openrs_ray.config.help import field_lines, section_lines
from openrs_ray.config.load import checked
from openrs_ray.config.names import recipe_lines
from openrs_ray.config.placement import EngineSlots, check_split
from openrs_ray.config.recipe_file import read_recipe
from openrs_ray.config.rollout import Engine
from openrs_ray.config.section import Count, Parts, Seconds, Section, Seed, Share, SomeShare, Temperature
from openrs_ray.errors import UserError
from openrs_ray.rewards.records import Extraction, Positive

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

SOLVE = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
"""The user turn that the model cards of DeepSeek-R1 and Qwen2.5-Math recommend."""

CLEAN_NOISY_MULTIPART = """\
Below is a mathematics problem from a data set, with its reference answer. Do not solve it. Decide whether it can be used to \
train a model whose final answer is compared with the reference answer.

noisy: the problem is cut off or garbled, lacks a figure or other information that it needs, is not a question, or the \
reference answer cannot be an answer to it.
multi-part: it asks for several answers, has parts such as (a) and (b), or asks for a proof.
clean: none of these.

Problem:
{problem}

Reference answer:
{answer}

Give a short reason. End with a line of its own that is one of:
Verdict: clean
Verdict: noisy
Verdict: multi-part"""


class SourceColumns(Columns):
    solution: str | None = None
    """Column that holds a written-out solution, which the boxed stage reads (default: there is none)."""


class Source(Section):
    path: str | None = None
    """Raw problems: a Hub id, a .jsonl, .json, .parquet, .csv or .tsv file, or a folder of such files."""
    split: str = "train"
    """Split to read when `path` is a Hub id."""
    subset: str | None = None
    """Which subset to read of a Hub data set that has several."""
    columns: SourceColumns = SourceColumns()
    """Which columns hold what."""
    curated: Name | None = None
    """Instead of a path: a set that another recipe made in the same folder."""
    dropped_by: Name | None = None
    """Of that set the problems that this stage of its recipe dropped, instead of those that are left."""
    first: Positive | None = None
    """Read only the first so many rows."""


class _Stage(Section):
    paper: Count | None = None
    """Problems that the paper had left after this stage, to stand beside."""


class Boxed(_Stage):
    kind: Literal["boxed"] = "boxed"
    """Keeps problems whose solution has a \\boxed{} that closes and is not empty."""


class Duplicates(_Stage):
    kind: Literal["duplicates"] = "duplicates"
    """Keeps the first of problems whose texts differ only in case, spacing, dollars and punctuation."""


class Overlaps(_Stage):
    kind: Literal["overlaps"] = "overlaps"
    """Drops problems that have the same letters and digits as an evaluation problem, or words in a row in common with one."""
    against: dict[Name, str | None] = Field(min_length=1)
    """Evaluation sets by name with the file or Hub id of each (null: where the paper's evaluation has it from)."""
    words: Positive = 13
    """Words in a row in common that make an overlap; of a shorter evaluation problem, all of its words."""
    shortest: Positive = 8
    """Evaluation problems of fewer words only count when the whole text is the same."""
    common: Positive = 10
    """Words in a row that more than so many of the problems have are a phrase that everybody uses, and make no overlap."""


class ModelStage(_Stage):
    model: str
    """The model that is asked: a folder, a Hub id, or the name of a built-in."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the model in the engines."""
    system_prompt: str | None = None
    """System message put before every problem."""
    system_as_user: bool = False
    """For chat templates without a system role: put the system message before the first user turn instead."""
    max_prompt_tokens: Positive = 1024
    """A problem with a longer prompt is not asked; it stays unclear."""
    max_tokens: Positive
    """Longest reply in tokens."""
    temperature: Temperature = 0.0
    """Sampling temperature (0: greedy)."""
    top_p: SomeShare = 1.0
    """Smallest set of tokens by probability that are sampled from."""
    unclear: Literal["keep", "drop"] = "keep"
    """Fate of a problem that could not be judged; it is counted as unclear either way."""


class Solved(ModelStage):
    kind: Literal["solved"] = "solved"
    """Drops problems that the model solves, or solves too rarely."""
    prompt: str = SOLVE
    """The user turn; {problem} is replaced."""
    examples: tuple[Example, ...] = ()
    """Worked examples put before every problem as earlier turns, their problems into the same prompt."""
    samples: Positive = 1
    """Completions of each problem."""
    solved_from: Positive = 1
    """A problem counts as solved when so many of them are correct."""
    rare_below: Count = 0
    """A problem counts as rarely solved when fewer of them are correct (0: none does)."""
    extraction: Extraction = "boxed"
    """Where the answer is looked for: the last \\boxed{} only, or anywhere as math-verify does."""

    @model_validator(mode="after")
    def _possible(self) -> Solved:
        if self.solved_from > self.samples:
            raise ValueError(f"solved_from ({self.solved_from}) must not be more than samples ({self.samples})")
        if self.rare_below >= self.solved_from:
            raise ValueError(f"rare_below ({self.rare_below}) must be below solved_from ({self.solved_from})")
        return self


class Judged(ModelStage):
    kind: Literal["judged"] = "judged"
    """Asks the model about each problem and reads the word in the last line of its reply, "Verdict: WORD"."""
    prompt: str = CLEAN_NOISY_MULTIPART
    """The user turn; {problem}, {answer} and {solution} are replaced."""
    keep: tuple[Name, ...] = ("clean",)
    """Words that keep a problem."""
    drop: tuple[Name, ...] = ("noisy", "multi-part")
    """Words that drop it, each a reason of its own; any other reply leaves the problem unclear."""


class Mix(_Stage):
    kind: Literal["mix"] = "mix"
    """Draws problems of each source, by the recipe's seed."""
    counts: dict[Name, Positive] = Field(default={})
    """Number of problems from each source."""
    fractions: dict[Name, Share] = Field(default={})
    """Instead of counts: shares of each source, which add up to 1."""
    total: Positive | None = None
    """With fractions: how many in all."""

    @model_validator(mode="after")
    def _one_way(self) -> Mix:
        if bool(self.counts) == bool(self.fractions) or bool(self.fractions) != (self.total is not None):
            raise ValueError("a mix needs either counts, or fractions with a total")
        if self.fractions and abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"the fractions of a mix must add up to 1, not {sum(self.fractions.values()):g}")
        return self


Stage = Annotated[Boxed | Duplicates | Overlaps | Solved | Judged | Mix, Field(discriminator="kind")]


class Recipe(Section):
    """Everything one curated set needs. See `launch/recipes/*-data.yaml` for examples."""

    name: Name
    """Name of the set; its folder inside `folder`, and the file in it."""
    folder: Path = Path(os.environ.get("OPENRS_RUNS", "~/openrs_runs")) / "data"
    """Folder of all curated sets (~ allowed)."""
    seed: Seed = 42
    """Seed of every sampled token and of the mix."""
    paper: Count | None = None
    """Number of raw problems in the paper."""
    sources: dict[Name, Source] = Field(min_length=1)
    """Raw problems by the name that each problem's column `source` will hold."""
    stages: dict[Name, Stage] = Field(min_length=1)
    """Stages in their order, by names of your own."""
    engine: Engine = Engine()
    """Engines of models. Nothing from here on changes what is asked or a seed: all of it may change when a curation goes on."""
    placement: EngineSlots = EngineSlots()
    """Where they run."""
    chunk: Positive = 1024
    """Problems that are written in one file: a kill costs no more than these of each engine, and once more."""
    chunk_deadline_s: Seconds = 7200
    """Longest time of the engines for the problems of a chunk."""
    checks: Parts = 2
    """Processes that check answers."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        check_split(self.placement.num_rollout_gpus, self.engine)
        for name, source in self.sources.items():
            if (source.path is None) == (source.curated is None):
                raise ValueError(f"sources.{name} needs either a path or a curated set")
            if source.dropped_by is not None and source.curated is None:
                raise ValueError(f"sources.{name}.dropped_by is for a curated set")
        for name, stage in self.stages.items():
            unknown = {*stage.counts, *stage.fractions} - set(self.sources) if isinstance(stage, Mix) else ()
            if unknown:
                raise ValueError(
                    f"stages.{name} mixes {min(unknown)}, which is none of the sources {', '.join(self.sources)}"
                )
        return self

    @property
    def place(self) -> Path:
        """The set's folder."""
        return self.folder.expanduser() / self.name


_HELP = """\
python -m launch.curate RECIPE [--dotted.field VALUE ...] [--dry-run] [--json]

--dry-run       Read and check everything, say what would be done, and start nothing.
--json          Write the result to stdout as one JSON document, and everything else to stderr.
--help SECTION  Only the fields of one section, such as stages.<solved>."""


def load_recipe(recipe: str | Path, overrides: Sequence[str], flags: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or file, apply `--dotted.field VALUE` in order, and check everything."""
    given = read_recipe(recipe, Recipe)
    if "stages" not in given.content and "run" in given.content:
        raise UserError(f"the recipe {recipe} is of a run: start it with python -m launch.train")
    return checked(Recipe, given.content, overrides, given.name, given.origins, flags)


def example() -> dict[str, Any]:
    """Content with one source and one stage of each kind, for listing their fields."""
    kinds = [model.model_fields["kind"].default for model in (Boxed, Duplicates, Overlaps, Solved, Judged, Mix)]
    stages: dict[str, Any] = {f"<{kind}>": {"kind": kind} for kind in kinds}
    return {"sources": {"<source>": {}}, "stages": stages}


def recipe_help(section: str = "") -> str:
    """Every field, or those of one section, and the recipes that come with the project."""
    if section:
        return "\n".join(section_lines(Recipe, example(), section))
    return "\n".join([_HELP, *recipe_lines("data"), *field_lines(Recipe, example())])
