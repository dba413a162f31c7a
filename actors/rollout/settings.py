"""Settings of rollout engines: the config section `engine`, and what the work at hand adds to it."""

from dataclasses import dataclass

from openrs_ray.config.schema import Engine, RunConfig


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The same for every engine of a pool. Example: EngineSettings(Engine(), "/models/toy", (2,), max_sequence_tokens=256)"""

    engine: Engine
    model_path: str
    end_ids: tuple[int, ...]
    """Tokens that end a completion."""
    max_sequence_tokens: int
    """Prompt and completion together."""
    dtype: str = "bfloat16"
    seed: int = 42
    deadline_s: float = 1800
    """For all completions that are asked for at once."""
    deadline_field: str = "rollout.deadline_s"
    """The name under which the user sets it, for error sentences."""
    answer_s: float = 120
    """For an engine's answer to any other call, parts of a push among them."""
    tempered: bool = True
    """Log-probabilities at the sampling temperature; otherwise at temperature 1."""
    keep_cache: bool = False
    """A push leaves the key/value caches of completions in flight as they are."""
    colocated: bool = False
    """Engines share their GPUs with learner ranks."""
    sleeps: bool = False
    """They give up their GPU memory while the learner works."""

    @classmethod
    def of_run(cls, config: RunConfig, model_path: str, end_ids: tuple[int, ...]) -> "EngineSettings":
        return cls(
            engine=config.engine,
            model_path=model_path,
            end_ids=end_ids,
            max_sequence_tokens=config.max_sequence_tokens,
            dtype=config.model.dtype,
            seed=config.run.seed,
            deadline_s=config.rollout.deadline_s,
            answer_s=config.push.deadline_s,
            tempered=config.loss.tempered,
            keep_cache=config.rollout.keep_cache,
            colocated=config.placement.colocated,
            sleeps=config.rollout.sleep_while_learning,
        )
