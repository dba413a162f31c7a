"""A full disk: known before the start where it can be, and one sentence wherever it is met."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, write_recipe
from safetensors import SafetensorError
from system import system_config

from launch.cli.command import command
from openrs_ray.errors import RunError, UserError
from openrs_ray.run import room
from openrs_ray.run.room import check_room

PARAMETERS = 134_515_008


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 16 * PARAMETERS), ("float32", 20 * PARAMETERS)])
def test_the_first_checkpoint_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, size: int) -> None:
    config = system_config(tmp_path, Path("toy"), model={"dtype": dtype})
    monkeypatch.setattr(room, "disk_bytes", lambda folder: size + (20 << 20))
    check_room(config, PARAMETERS)
    monkeypatch.setattr(room, "disk_bytes", lambda folder: size)
    with pytest.raises(UserError, match=r"first checkpoint takes 2\.\d GiB: make room, or set run.folder"):
        check_room(config, PARAMETERS)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/file"),
            2,
            "A disk is full (/full/file could not be written)",
        ),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 2, "A disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), 2, "A disk is full"),
        (RunError("The disk is full: No space left on device"), 1, "The disk is full: No space"),
        (OSError(errno.EACCES, "Permission denied"), 1, "Permission denied"),
    ],
)
def test_whoever_meets_a_full_disk_it_is_one_sentence(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, said: str
) -> None:
    @command
    def main(arguments: list[str]) -> int:
        raise error

    assert main([]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


IN_SMALL_DISK = 'mount -t tmpfs -o size="$1" tmpfs "$2" && head -c "$3" /dev/zero > "$2/fill"; shift 3; exec "$@"'


@pytest.mark.parametrize(
    ("filled", "said"), [("1M", "A disk is full (that of"), ("900K", "he run's first checkpoint takes")]
)
def test_a_run_on_a_full_disk_does_not_start(tmp_path: Path, toy_folder: Path, filled: str, said: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    in_namespace = ["unshare", "--map-root-user", "--mount"]
    tried = [*in_namespace, "mount", "-t", "tmpfs", "tmpfs", str(disk)]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    recipe = write_recipe(tmp_path / "recipe.yaml", toy_folder, disk / "runs", "run", 1)
    train = [sys.executable, "-m", "launch.train", str(recipe)]
    ended = subprocess.run(
        [*in_namespace, "sh", "-c", IN_SMALL_DISK, "sh", "1M", str(disk), filled, *train],
        cwd=ROOT, capture_output=True, text=True, timeout=100, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: ") and said in ended.stderr and str(disk) in ended.stderr
    assert len(ended.stderr.splitlines()) == 1 and "Traceback" not in ended.stdout
