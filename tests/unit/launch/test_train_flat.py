"""A run that ended because a dollar bought too little is not begun again by the same command."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from whole_run import write_run

from launch.train import main
from openrs_ray.config.schema import RunConfig
from openrs_ray.evaluation import slope
from openrs_ray.evaluation.slope import Slope
from openrs_ray.run.progress import Progress
from openrs_ray.stats import Interval


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ended flat after four of six steps."""
    folder = write_run(tmp_path / "runs" / "mine")
    config = json.loads((folder / "config.json").read_text())
    config["cost"] |= {"price_per_gpu_hour": 1.0, "min_points_per_usd": 2.0, "evaluations_per_slope": 3}
    config["evaluation"] |= {"path": "toy-heldout", "every_steps": 1}
    RunConfig.model_validate(config)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(
        json.dumps(asdict(Progress(step=4, evaluated=4, ended="flat", why="it was flat")))
    )
    return folder


def test_it_says_so_before_anything_starts(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Slope(Interval(0.5, -0.5, 1.5), 3, 4.0)
    monkeypatch.setattr(slope, "recorded_slope", lambda config, progress: found)
    assert main([str(run), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "+0.5 points per dollar [-0.5, +1.5]" in error and "lower that and give --resume" in error
