"""The policy of a kept checkpoint is found whole, or its absence is said."""

from pathlib import Path

import pytest

from openrs_ray.errors import RunError
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.kept_policy import kept_policy


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Kept checkpoints of steps 2, 4 and 6, of which the first has its policy only, and one of step 7 to resume from."""
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=2)
    store.open()
    for step in (2, 4, 6, 7):
        folder = store.begin(step)
        (folder / "state" / "rank-0.pt").write_bytes(b"state")
        (folder / "policy" / "model.safetensors").write_text(f"policy {step}")
        store.commit(step, "resume" if step == 7 else "kept", {"step": step})
    return tmp_path


def test_a_kept_policy_is_found_also_when_its_state_is_gone(run: Path) -> None:
    assert not (run / "checkpoints" / "step-000002" / "state").exists()
    assert [(kept_policy(run, step) / "model.safetensors").read_text() for step in (2, 6)] == ["policy 2", "policy 6"]


def test_one_that_is_not_there_or_not_whole_is_an_error(run: Path) -> None:
    for step in (3, 7):
        with pytest.raises(RunError, match=rf"the policy of step {step}, .* is not among the kept checkpoints in "):
            kept_policy(run, step)
    (run / "checkpoints" / "step-000004" / "policy" / "model.safetensors").write_text("policy 5")
    with pytest.raises(RunError, match=r"the policy of step 4, .* is damaged: .*model\.safetensors"):
        kept_policy(run, 4)
