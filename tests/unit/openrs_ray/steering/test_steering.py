"""A run's own changes: after steps, after evaluations, and the same by an attempt that goes on from a checkpoint."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from system import system_config

from openrs_ray.config.schema import RunConfig
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.decisions import read_decisions
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.progress import Progress
from openrs_ray.run.step_settings import Changes, StepSettings
from openrs_ray.steering.steering import Steering

FLOOR = {"entropy_floor": 0.3, "entropy_weight_step": 0.01, "max_entropy_weight": 0.05, "entropy_weight": 0.02}
STAGES: list[dict[str, Any]] = [
    {"max_completion_tokens": 8, "until": {"truncated_share_below": 0.1, "window": 3}},
    {"max_completion_tokens": 16, "until": {"truncated_share_below": 0.1, "window": 3}},
    {"max_completion_tokens": 24},
]


def configured(folder: Path, **sections: dict[str, Any]) -> RunConfig:
    run = {"name": folder.name, "folder": str(folder.parent), "steps": 40}
    return system_config(folder, folder, run=run, **sections)


def weights(config: RunConfig, entropies: list[float], changes: Changes | None = None) -> tuple[list[float], Changes]:
    """Weights of the steps after each of the entropies."""
    changes = changes or Changes()
    steering, found = Steering.of(config, 1, changes), list[float]()
    for step, entropy in enumerate(entropies, 1):
        changes = steering.after_step(step, changes, {"truncated_share": 0.0, "entropy": entropy})
        found.append(StepSettings.of(config, changes).entropy_weight)
    return found, changes


def test_the_weight_of_the_entropy_follows_its_floor_over_a_resume(tmp_path: Path) -> None:
    config, entropies = configured(tmp_path, loss=FLOOR), [0.2, 0.2, 0.2, 0.2, 0.4, 0.3, math.nan, 0.1]
    assert StepSettings.of(config).entropy_weight == 0.02, "where it begins"
    whole, _ = weights(config, entropies)
    assert whole == pytest.approx([0.03, 0.04, 0.05, 0.05, 0.0, 0.04, 0.0, 0.05])
    first, changes = weights(config, entropies[:5])
    saved = Progress.read(dataclasses.asdict(Progress(5, changes=changes)), tmp_path).changes
    assert first + weights(config, entropies[5:], saved)[0] == whole
    without = configured(tmp_path, loss={"entropy_weight": 0.02})
    assert StepSettings.of(without, saved).entropy_weight == 0.02, "a resume without a floor has the recipe's"
    assert weights(without, entropies)[1] == Changes()


def test_a_step_that_trained_on_no_token_moves_no_weight(tmp_path: Path) -> None:
    """Its entropy is given as 0, which is below every floor."""
    steering = Steering.of(configured(tmp_path, loss=FLOOR), 1, Changes())
    before = steering.after_step(1, Changes(), {"truncated_share": 0.0, "entropy": 0.2, "completion_tokens": 900})
    assert before.entropy_weight == pytest.approx(0.03)
    nothing = {"truncated_share": 0.0, "entropy": 0.0, "completion_tokens": 0}
    assert steering.after_step(2, before, nothing) == before


def test_a_resume_averages_over_the_steps_before_it_but_not_over_another_stage(tmp_path: Path) -> None:
    config = configured(tmp_path, rollout={"max_completion_tokens": 24, "stages": STAGES, "staleness": 1})
    log = MetricsLog(tmp_path, start_attempt(tmp_path, 0))
    lines: list[dict[str, Any]] = []
    for step, (stage, share) in enumerate([(0, 0.0), (0, 0.0), (0, 0.0), (1, 0.0), (1, 0.0), (1, 0.0)], 1):
        settings = StepSettings.of(config, Changes(stage=stage))
        lines.append({"step": step, "truncated_share": share} | settings.metrics())
    log.close()

    def stages(upto: int) -> list[int]:
        """Stage after each further step without a cut completion."""
        changes = Changes(stage=1 if upto >= 3 else 0)
        steering, found = Steering.of(config, 1, changes, lines[:upto]), []
        for step in range(upto + 1, upto + 6):
            changes = steering.after_step(step, changes, {"truncated_share": 0.0})
            found.append(changes.stage)
        return found

    assert stages(2) == [1, 1, 1, 1, 2], "a third step; then one that learns of the stage before, and three"
    assert stages(3) == [1, 1, 1, 2, 2], "the window of stage 2 begins anew"
    assert stages(6) == [2, 2, 2, 2, 2], "the last has no end"


def test_steps_of_a_stage_before_a_resume_changed_it_do_not_count_for_its_end(tmp_path: Path) -> None:
    """Nothing was cut at 24 tokens; a stage of 8 must not end by that."""
    whole = configured(tmp_path, rollout={"max_completion_tokens": 24})
    staged = configured(tmp_path, rollout={"max_completion_tokens": 24, "stages": STAGES})
    settings = StepSettings.of(whole).metrics()
    steering = Steering.of(staged, 2, Changes(), [{"step": 1 + n, "truncated_share": 0.0} | settings for n in range(9)])
    found, changes = [], Changes()
    for step in range(10, 15):
        changes = steering.after_step(step, changes, {"truncated_share": 0.2 if step == 10 else 0.0})
        found.append(changes.stage)
    assert found == [0, 0, 1, 1, 1], "three steps of its own"


def test_the_reference_is_reset_when_evaluations_raise_nothing(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        loss={"kl_beta": 0.1, "reference_reset_after": 2},
        evaluation={"hold_out": 4, "every_steps": 5},
    )
    log, said = MetricsLog(tmp_path, start_attempt(tmp_path, 0)), list[str]()
    changes, found = Changes(), dict[int, int]()
    for step, accuracy in {0: 0.5, 5: 0.6, 10: 0.6, 15: 0.5, 20: 0.4, 25: 0.4, 30: 0.4, 35: 0.9, 40: 0.1}.items():
        log.write(step, {"accuracy": accuracy}, "evaluation")
        steering = Steering.of(config, 1, changes, say=said.append)
        assert steering.after_evaluation(Progress(step, evaluated=step - 5, changes=changes)) == changes, (
            "none of this step"
        )
        changes = steering.after_evaluation(Progress(step, evaluated=step, changes=changes))
        found[step] = changes.reference_step
        again = steering.after_evaluation(Progress(step, evaluated=step, changes=changes))
        assert again == changes, "a reset counts once"
    log.close()
    # 10 and 15 are not above 0.6, and 20 and 25 not above the 0.5 of the new reference's own evaluation.
    assert found == {0: 0, 5: 0, 10: 0, 15: 15, 20: 15, 25: 25, 30: 25, 35: 25, 40: 25}
    first, second = read_decisions(tmp_path)
    assert (first.by, first.step, first.changes) == ("reference", 15, {"reference_step": (0, 15)})
    assert first.evidence["accuracies"]["10"] == 0.6 and second.step == 25
    assert said == [f"Reference: {first.sentence}", f"Reference: {second.sentence}"]
