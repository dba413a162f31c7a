"""Settings of a step: what the recipe says, what the run has changed since, and both out of the metrics."""

import json
from pathlib import Path

import pytest
from guarded import guarded
from system import system_config

from openrs_ray.errors import UserError
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.metrics import MetricsLog, read_metrics
from openrs_ray.run.step_settings import Changes, StepSettings, check_reference


def test_changes_hold_on_top_of_the_recipe(tmp_path: Path) -> None:
    config = system_config(tmp_path, tmp_path)
    assert StepSettings.of(config).kl_beta == config.loss.kl_beta
    assert StepSettings.of(config).temperature == config.rollout.temperature
    assert StepSettings.of(config).loss(config.loss) == config.loss
    changed = StepSettings.of(config, Changes(kl_beta=0.5, learning_rate_factor=0.25, entropy_weight=0.01))
    assert changed.loss(config.loss) == config.loss.model_copy(update={"kl_beta": 0.5, "entropy_weight": 0.01})
    assert changed.learning_rate_factor == 0.25


def test_the_metrics_give_them_back(tmp_path: Path) -> None:
    config = system_config(tmp_path, tmp_path)
    settings = StepSettings.of(config, Changes(stage=2, kl_beta=0.5, learning_rate_factor=1 / 3, reference_step=20))
    log = MetricsLog(tmp_path, start_attempt(tmp_path, 0))
    log.write(1, settings.metrics())
    log.close()
    (line,) = read_metrics(tmp_path)
    assert StepSettings.recorded(json.loads(json.dumps(line)), config) == settings
    assert StepSettings.recorded({"step": 1}, config) == StepSettings.of(config), "of an older version"


def test_without_a_penalty_there_is_no_reference(tmp_path: Path) -> None:
    """As where a resume sets loss.kl_beta to 0 after a reset."""
    config = system_config(tmp_path, tmp_path, loss={"kl_beta": 0.0})
    assert StepSettings.of(config, Changes(reference_step=20)).reference_step == 0
    assert StepSettings.of(config, Changes(reference_step=20, kl_beta=0.1)).reference_step == 20


@pytest.mark.parametrize("action", ["off", "warn", "roll_back"])
def test_a_penalty_that_a_rollback_brought_in_keeps_its_reference(action: str) -> None:
    changes = Changes(kl_beta=0.02)
    check_reference(guarded("roll_back", knobs=["kl"]), changes)
    check_reference(guarded(action), Changes())
    config = guarded(action)
    with pytest.raises(
        UserError, match=r"KL penalty of 0\.02, which its guard has brought in.*set loss\.kl_beta to 0\.02"
    ):
        check_reference(config, changes)
    mended = config.model_copy(update={"loss": config.loss.model_copy(update={"kl_beta": 0.02})})
    check_reference(mended, changes)
    adapters = config.learner.model_copy(update={"lora": config.learner.lora.model_copy(update={"rank": 4})})
    check_reference(config.model_copy(update={"learner": adapters}), changes)


def test_policies_are_kept_as_long_as_one_is_the_reference(tmp_path: Path) -> None:
    changes, loss, none_kept = Changes(reference_step=20), {"kl_beta": 0.1}, {"keep_policies": False}
    check_reference(system_config(tmp_path, tmp_path, loss=loss), changes)
    check_reference(system_config(tmp_path, tmp_path, loss=loss, checkpoint=none_kept), Changes())
    check_reference(system_config(tmp_path, tmp_path, loss={"kl_beta": 0.0}, checkpoint=none_kept), changes)
    with pytest.raises(UserError, match=r"policy of step 20, which checkpoint\.keep_policies false would delete"):
        check_reference(system_config(tmp_path, tmp_path, loss=loss, checkpoint=none_kept), changes)
