"""GGUF files for llama.cpp, by its own converter, which is no part of this project."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from openrs_ray.common.last_error import last_error
from openrs_ray.errors import RunError, UserError

TYPES = ("f32", "f16", "bf16", "q8_0")
NAMES = ("convert_hf_to_gguf.py", "llama-convert-hf-to-gguf", "convert-hf-to-gguf")
"""Of the converter, as llama.cpp and those who package it call it."""


def converter(given: str | None) -> list[str]:
    """The command of llama.cpp's converter. UserError where there is none.

    `given`: its script, in a checkout of llama.cpp.
    """
    if given is not None:
        script = Path(given).expanduser()
        if not script.is_file():
            raise UserError(f"there is no converter {given}: give the file convert_hf_to_gguf.py of llama.cpp")
        return [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise UserError(
            "no GGUF can be made without llama.cpp's converter, which is not on the PATH: `git clone --depth 1 "
            "https://github.com/ggml-org/llama.cpp` and give --converter llama.cpp/convert_hf_to_gguf.py"
        )
    return [found]


def write_gguf(command: Sequence[str], name: str, kind: str, folder: Path) -> None:
    """Convert the model in a folder into a file `name` beside it. RunError with the converter's reason."""
    file = folder / name
    done = subprocess.run(
        [*command, str(folder), "--outfile", str(file), "--outtype", kind],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0 or not file.is_file():
        said = last_error(done.stderr) or (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise RunError(f"llama.cpp's converter ended with exit code {done.returncode}: {said or 'it said nothing'}")
