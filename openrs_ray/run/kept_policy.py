"""A kept checkpoint's policy, as the reference that a run has been reset to."""

from pathlib import Path

from openrs_ray.errors import RunError
from openrs_ray.run.checkpoints import CheckpointStore


def kept_policy(run_folder: Path, step: int) -> Path:
    """The policy's folder. RunError when the run has no whole one of this step."""
    found = [one for one in CheckpointStore(run_folder / "checkpoints").checkpoints() if one.step == step]
    kept = next((checkpoint for checkpoint in found if checkpoint.kind == "kept"), None)
    if kept is None:
        raise RunError(
            f"the policy of step {step}, which is the reference of the KL penalty (loss.reference_reset_after), is no longer among "
            f"the kept checkpoints in {run_folder / 'checkpoints'}"
        )
    if damage := kept.damage():
        raise RunError(
            f"the policy of step {step}, which is the reference of the KL penalty (loss.reference_reset_after), is damaged: "
            f"{damage}"
        )
    return kept.policy
