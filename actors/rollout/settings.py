"""Settings of rollout engines."""

from dataclasses import dataclass

from openrs_ray.config.quantization import Quantization
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Example: EngineSettings(Engine(), "/models/toy", (2,), max_sequence_tokens=256)"""

    engine: Engine
    model_path: str
    end_ids: tuple[int, ...]
    max_sequence_tokens: int
    dtype: str = "bfloat16"
    seed: int = 42
    deadline_s: float = 1800
    """For all completions of one call."""
    deadline_field: str = "rollout.deadline_s"
    """Its name in the user's configuration."""
    answer_s: float = 120
    """For any other call."""
    tempered: bool = True
    """Log-probabilities at the sampling temperature; otherwise at 1."""
    keep_cache: bool = False
    """Key/value caches of completions in flight survive a push."""
    colocated: bool = False
    sleeps: bool = False
    """Engines give up their GPU memory while the learner works."""
    quantization: Quantization = "none"

    @classmethod
    def of_run(cls, config: RunConfig, model_path: str, end_ids: tuple[int, ...]) -> "EngineSettings":
        return cls(
            engine=config.engine,
            model_path=model_path,
            end_ids=end_ids,
            max_sequence_tokens=config.max_served_tokens,
            dtype=config.model.dtype,
            seed=config.run.seed,
            deadline_s=config.rollout.deadline_s,
            answer_s=config.push.deadline_s,
            tempered=config.loss.tempered,
            keep_cache=config.rollout.keep_cache,
            colocated=config.placement.colocated,
            sleeps=config.rollout.sleep_while_learning,
            quantization=config.rollout.quantization,
        )
