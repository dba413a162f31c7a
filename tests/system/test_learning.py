"""What staleness and its corrections do to what the quickstart learns, with the real system; docs/losses.md has the figures."""

import json
from pathlib import Path

import pytest

from launch.performance import learning

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
