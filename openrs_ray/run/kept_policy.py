"""A kept checkpoint's policy, as the reference that a run has been reset to."""

from pathlib import Path

from openrs_ray.errors import RunError
from openrs_ray.run.checkpoints import CheckpointStore


def kept_policy(run_folder: Path, step: int) -> Path:
    """The policy's folder. RunError when the run has no whole one of this step."""
    folder = run_folder / "checkpoints"
    of_step = [one for one in CheckpointStore(folder).checkpoints() if (one.step, one.kind) == (step, "kept")]
    what = f"the policy of step {step}, which is the reference of the KL penalty (loss.reference_reset_after),"
    if not of_step:
        raise RunError(f"{what} is not among the kept checkpoints in {folder}")
    if damage := of_step[0].damage():
        raise RunError(f"{what} is damaged: {damage}")
    return of_step[0].policy
