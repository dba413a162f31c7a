"""The section `answer`: what counts as the answer of a completion, and as a right one."""

from typing import Literal

from openrs_ray.config.section import Section

AnswerKind = Literal["math"]


class Answer(Section):
    kind: AnswerKind = "math"
    """What an answer is: a mathematical expression."""
