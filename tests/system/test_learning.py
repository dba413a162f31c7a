"""What staleness and its corrections do to what the quickstart learns, with the real system; docs/losses.md has the figures."""

import json
from pathlib import Path

import plain_loop
import pytest

from launch.performance import learning
from openrs_ray.config.loss import Loss
from openrs_ray.stats import mean_interval

CORRECTIONS = ("truncated", "sequence_mask", "none")


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(3600)
def test_four_versions_ahead_the_quickstart_learns_as_much_whatever_corrects_it(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--folder", str(tmp_path), "--json", str(figures), "--variant", "in-turn"]
    for kind in CORRECTIONS:
        arguments += ["--variant", kind, "rollout.staleness=4", f"loss.correction={kind}"]
    assert learning.main(arguments) == 0
    content = json.loads(figures.read_text())
    found = {figure["name"]: figure["values"] for figure in content["figures"]}
    assert not content["settings"]["failed"]
    for kind in CORRECTIONS:
        assert max(found[f"{kind}: age_mean"]) > 0.5, "the tokens were stale"
        assert found[f"{kind}: accuracy at the end"][1] > found[f"{kind}: accuracy at the start"][2]
        assert found[f"{kind}: paired difference"][1] > -0.05, "at most five points worse, by the whole interval"


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("staleness", [1, 2, 4])
def test_at_three_times_the_rate_every_correction_learns_from_tokens_at_their_age_limit(staleness: int) -> None:
    """The table of docs/losses.md; the start model is right on less than 60 %."""
    for correction in CORRECTIONS:
        trained = plain_loop.train(42, staleness, Loss(correction=correction), 15, 3e-4)
        assert max(trained.mismatch) > 1e-3 and trained.mismatch[0] < 1e-6
        assert mean_interval(trained.held_out).low > 0.6, correction
