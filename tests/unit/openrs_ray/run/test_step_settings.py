"""Settings of a step: what the recipe says, what the run has changed since, and both out of the metrics."""

import json
from pathlib import Path

from system import system_config

from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.metrics import MetricsLog, read_metrics
from openrs_ray.run.step_settings import Changes, StepSettings


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
