"""The section `data`: problems, and the prompts made of them."""

from typing import Annotated

from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Section, Share


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
    answer_after: str | None = None
    """When set, the gold answer is what follows the last occurrence of this marker in the answer column (GSM8K: "####")."""


class Data(Section):
    path: str
    """Problems to train on: a Hub id, a .jsonl, .json, .parquet, .csv or .tsv file, a folder of such files, or `toy`."""
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
