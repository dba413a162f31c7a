"""Config of `launch.evaluate`: model format, engines, places, checks and price."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from openrs_ray.config.answer import Answer
from openrs_ray.config.placement import EngineSlots, check_split
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import Model, RunConfig
from openrs_ray.config.section import Amount, Parts, Seconds, Section, Share, SomeAmount


class Loading(Section):
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of the models in the engines."""
    chat_template: Path | None = None
    """File with a Jinja chat template, used instead of the tokenizers' own."""

    def of(self, path: str) -> Model:
        """The model at a path, loaded like this."""
        return Model(path=path, **dict(self))


class Checks(Section):
    processes: Parts = 2
    """Processes that check answers."""
    deadline_s: Seconds = 5.0
    """A check that takes longer is killed and counted as a timeout."""
    memory_gib: SomeAmount = 2.0
    """Memory limit of one checking process."""
    max_unjudged_share: Share = 0.1
    """Largest share of a benchmark's completions without judgement (timeout, error) that its figures may have."""


class Price(Section):
    price_per_gpu_hour: Amount | None = None
    """Dollars for one GPU (on a CPU: one slot) and hour; none: no dollars are shown."""


class EvaluationConfig(Section):
    """Everything but the questions."""

    model: Loading = Loading()
    engine: Engine = Engine()
    placement: EngineSlots = EngineSlots()
    rewards: Checks = Checks()
    cost: Price = Price()
    answers: dict[str, Answer] = Field(default_factory=dict)
    """Kinds of the answers of your own benchmarks, by name: --answers.mine '{kind: number, tolerance: 0.05}'."""

    @model_validator(mode="after")
    def _whole_engines(self) -> EvaluationConfig:
        check_split(self.placement.num_rollout_gpus, self.engine)
        return self


def as_in_run(run: RunConfig) -> dict[str, dict[str, Any]]:
    """Content of an EvaluationConfig from a run's values, but for memory share and number of GPUs."""
    apart = ("gpu_memory_fraction", "num_rollout_gpus")
    return {
        section: {name: getattr(getattr(run, section), name) for name in type(part).model_fields if name not in apart}
        for section, part in EvaluationConfig()
        if isinstance(part, Section)
    }
