"""The section `rewards`: weights, parameters and the pool that judges."""

from __future__ import annotations

import ast
import inspect
import json
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import Field, create_model, model_validator

from openrs_ray.config.judge_model import JudgeModel
from openrs_ray.config.resumable import FREE
from openrs_ray.config.section import Parts, Seconds, Section, Share, SomeAmount
from openrs_ray.errors import UserError
from openrs_ray.rewards.judge_model.settings import NAMES
from openrs_ray.rewards.own import parameters_of
from openrs_ray.rewards.records import Comparison, RewardExtraction, UnfinishedReasoning, Unjudged, Value
from openrs_ray.rewards.registry import GROUP, SINGLE
from openrs_ray.user_code.reference import is_reference


class _Weights(Section):
    weights: dict[str, Value] = Field(default={"accuracy": 2.0, "format": 1.0}, min_length=1)
    """Rewards by name with their weights; docs/rewards.md has them all. One of your own is FILE.py:FUNCTION."""


def _section_of(parameters: type) -> Any:
    """A section, with its default, of the fields, bounds and docstrings of a reward's parameters."""
    tree: Any = ast.parse(inspect.getsource(parameters))
    texts: dict[str, str] = {}
    for field, text in pairwise(tree.body[0].body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                texts[name] = inspect.cleandoc(said)
    default = parameters()
    given: dict[str, Any] = {
        name: (kind, Field(getattr(default, name), description=texts.get(name)))
        for name, kind in get_type_hints(parameters, include_extras=True).items()
    }
    # The texts are there: pydantic must not look for the source of a class that has none, which takes long.
    section = create_model("_Section", __base__=Section, __cls_kwargs__={"use_attribute_docstrings": False}, **given)
    return section, section()


if TYPE_CHECKING:
    _WithParameters = _Weights
else:
    _sections = {name: _section_of(one.parameters) for name, one in (SINGLE | GROUP).items() if one.parameters}
    _WithParameters = create_model("_WithParameters", __base__=_Weights, **_sections)


class TaskRewards(_WithParameters):
    """Rewards of one task, with their parameters."""

    extraction: RewardExtraction = "boxed"
    """Where the answer is looked for: the last \\boxed{} only, anywhere as math-verify does, or as the authors' code did (golds,
    too: as whole texts, with LaTeX)."""
    comparison: Comparison = "gold_first"
    """Order in which math-verify, which is not symmetric, is given gold and answer; gold_first is the one it documents."""
    unparseable_gold: Literal["skip", "reward"] = "skip"
    """Problems whose gold cannot be parsed: dropped and counted, or kept with 1.0 for every completion's accuracy and cosine."""
    unfinished_reasoning: UnfinishedReasoning = "no_answer"
    """A `<think>` that is never closed: no answer yet, or a box in it is read as one (always read but with extraction boxed)."""
    final_form: bool = False
    """Count an expression that is still to be worked out (47+38) as wrong where the gold is a plain number."""
    unjudged: Unjudged = "skip"
    """Completions whose check gave no verdict (timeout, error): left out of the loss, or paid as wrong answers."""
    parameters: dict[str, dict[str, Any]] = Field(default={})
    """Parameters of your own rewards by function, such as {brevity: {scale: 2.0}}."""
    judge: JudgeModel = JudgeModel()
    """The model that gives the rewards `judge` and `judge_relative` (docs/judges.md)."""

    @model_validator(mode="after")
    def _final_form_is_looked_at(self) -> TaskRewards:
        if self.final_form and self.extraction == "published":
            raise ValueError("rewards.final_form does not go with rewards.extraction published, which pays any form")
        return self

    @model_validator(mode="after")
    def _judge_is_there_and_asked(self) -> TaskRewards:
        weighted = [name for name in NAMES if name in self.weights]
        if weighted and self.judge.model is None:
            raise ValueError(
                f"rewards.weights names {weighted[0]} but rewards.judge.model is missing: name the model, and in "
                "rewards.judge.url where it is served (docs/judges.md)"
            )
        if self.judge.model is not None and not weighted:
            raise ValueError(
                f"rewards.judge has a model that no weight asks: add {' or '.join(NAMES)} to rewards.weights"
            )
        return self

    @model_validator(mode="after")
    def _own_rewards_fit(self) -> TaskRewards:
        own = [name for name in self.weights if is_reference(name)]
        try:
            parameters_of(own, self.parameters)
            json.dumps(self.parameters, allow_nan=False)
        except UserError as error:
            raise ValueError(str(error)) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"rewards.parameters must be plain values, as in JSON ({error})") from error
        if own and self.unjudged == "wrong":
            raise ValueError(
                f"rewards.unjudged wrong does not go with rewards of your own ({own[0]}), which say themselves what a wrong "
                "answer is worth"
            )
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle finds classes by name, and those of the reward sections have none.
        return partial(type(self), **self.model_dump(exclude_unset=True)), ()


class Rewards(TaskRewards):
    """With the pool that judges, which is one for all tasks."""

    processes: Annotated[Parts, FREE] = 2
    """Processes that check answers."""
    deadline_s: Annotated[Seconds, FREE] = 5.0
    """A check that takes longer is killed and counted as a timeout (rewards.unjudged says what that is worth)."""
    memory_gib: Annotated[SomeAmount, FREE] = 2.0
    """Memory limit of one checking process."""
    max_unjudged_share: Annotated[Share, FREE] = 0.1
    """Largest share of a step's completions that may end without judgement (timeout, error) before the run stops."""

    def with_pool_of(self, rewards: TaskRewards) -> Rewards:
        """`rewards`, judged by this one's pool."""
        pool = {name: getattr(self, name) for name in Rewards.model_fields.keys() - TaskRewards.model_fields.keys()}
        return Rewards(**rewards.model_dump(exclude_unset=True), **pool)
