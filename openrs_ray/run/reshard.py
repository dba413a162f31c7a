"""Makes a saved state loadable by another number of ranks: DeepSpeed's universal checkpoint."""

import io
import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from openrs_ray.common.formatting import GIB
from openrs_ray.errors import RunError
from openrs_ray.run.moments import has_8_bit_moments, with_float32_moments


def convert(state: Path, target: Path) -> None:
    """Convert the state of all ranks, on one rank only. RunError when the disk lacks the room."""
    shutil.rmtree(target.parent, ignore_errors=True)  # of a conversion that a kill broke off
    target.mkdir(parents=True)
    # Every tensor is written twice, in parts and then whole, all in float32; 8-bit moments once more before that.
    size, free = sum(file.stat().st_size for file in state.iterdir()), shutil.disk_usage(target).free
    eight_bit = has_8_bit_moments(state)
    needed = (6 if eight_bit else 2) * size
    if free < needed:
        raise RunError(
            f"resuming on another number of ranks needs {needed / GIB:.1f} GiB for a while and {target.parent} has "
            f"{free / GIB:.1f}: make room, or set placement.num_learner_gpus back"
        )
    from deepspeed.checkpoint import ds_to_universal

    plain = with_float32_moments(state, target.parent / "float32") if eight_bit else state
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):  # progress bars
        ds_to_universal.main(
            Namespace(
                input_folder=str(plain),
                output_folder=str(target),
                num_extract_workers=1,  # in this process: the conversion ends with it
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
        )
