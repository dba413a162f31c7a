"""Checkpoints survive SIGKILL at every change to the disk, damage, and a full disk; a run has one driver."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrs_ray.errors import RunError, UserError
from openrs_ray.run import checkpoint_files, checkpoints
from openrs_ray.run.checkpoint_files import Checkpoint, Kind
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.lock import run_lock

FILES = ("state/rank-0.pt", "state/rank-1.pt", "policy/model.safetensors")
SAVES: tuple[tuple[int, Kind], ...] = (
    *((1, "kept"), (2, "resume"), (3, "kept"), (4, "resume"), (4, "kept"), (5, "resume")),
)

Start = Callable[..., "subprocess.Popen[str]"]

SAVING = """
import os, random
from openrs_ray.run.checkpoints import CheckpointStore
FILES = ("state/rank-0.pt", "state/rank-1.pt", "policy/model.safetensors")

def content(step, name):
    return random.Random(f"{step} {name}").randbytes(3000)

def write(folder, step, between=lambda: None):
    for name in FILES:
        with open(folder / name, "wb", buffering=0) as file:
            file.write(content(step, name)[:1000])
            between()  # in the middle of a shard
            file.write(content(step, name)[1000:])
"""

KILL_AT_EVERY_CHANGE = (
    SAVING
    + """
import signal, sys
from pathlib import Path

os.fsync = lambda handle: None  # a killed process loses no page cache; syncing would only take the test a minute
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}

def attempt(run, kill_at):
    count = 0
    def tick(event="shard", arguments=()):
        nonlocal count
        if event in CHANGES or event == "shard" or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    store = CheckpointStore(run / "checkpoints", keep_last=2, keep_policies=True)
    progress = os.open(run / "progress", os.O_CREAT | os.O_WRONLY)
    sys.addaudithook(tick)
    for save in sys.argv[2:]:
        step, kind = int(save.split("-")[0]), save.split("-")[1]
        write(store.begin(step), step, tick)
        store.commit(step, kind, {"step": step})
        os.pwrite(progress, b"%d" % step, 0)

kill_at, ended = 0, False
while not ended:
    kill_at += 1
    run = Path(sys.argv[1]) / f"{kill_at:04d}"
    run.mkdir()
    child = os.fork()
    if child == 0:
        attempt(run, kill_at)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    ended = not os.WIFSIGNALED(status)
sys.exit(status)
"""
)

SAVE_FOREVER = (
    SAVING
    + """
import sys
from pathlib import Path
store = CheckpointStore(Path(sys.argv[1]), keep_last=2, keep_policies=True)
store.sweep()
good, damages = store.latest_good()
assert not damages, damages
step = good.step if good else 0
while True:
    step += 1
    write(store.begin(step), step)
    store.commit(step, "resume" if step % 3 else "kept", {"step": step})
    print(step, flush=True)
"""
)

HOLD_LOCK = """
import sys, time
from pathlib import Path
from openrs_ray.run.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def content(step: int, name: str) -> bytes:
    return random.Random(f"{step} {name}").randbytes(3000)


def save(store: CheckpointStore, step: int, kind: Kind = "kept") -> Checkpoint:
    folder = store.begin(step)
    for name in FILES:
        (folder / name).write_bytes(content(step, name))
    return store.commit(step, kind, {"step": step, "position": 12 * step})


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python script; whatever still runs at the end of the test is killed."""
    processes: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *arguments]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def assert_whole(checkpoint: Checkpoint) -> None:
    for name in FILES:
        if checkpoint.complete or name.startswith("policy/"):
            assert (checkpoint.folder / name).read_bytes() == content(checkpoint.step, name)
    assert checkpoint.trainer_state()["step"] == checkpoint.step


def test_sigkill_at_every_change_to_the_disk_leaves_the_newest_commit(tmp_path: Path, start: Start) -> None:
    script = start(KILL_AT_EVERY_CHANGE, str(tmp_path), *(f"{step}-{kind}" for step, kind in SAVES))
    assert script.wait(timeout=120) == 0
    runs = sorted(tmp_path.iterdir())
    assert len(runs) > 70  # one per change to the disk
    for run in runs:
        progress = run / "progress"
        committed = int(progress.read_text() or 0) if progress.exists() else 0
        store = CheckpointStore(run / "checkpoints", keep_last=2, keep_policies=True)
        for checkpoint in store.checkpoints():
            assert_whole(checkpoint)

        store.sweep()
        good, damages = store.latest_good()
        assert not damages
        step = good.step if good else 0
        assert step in (committed, committed + 1)
        left = set((run / "checkpoints").glob("step-*"))
        assert left == {checkpoint.folder for checkpoint in store.checkpoints()}
        for checkpoint in store.checkpoints():
            assert_whole(checkpoint)
            assert checkpoint.state.exists() == checkpoint.complete


def test_a_run_killed_again_and_again_goes_on(tmp_path: Path, start: Start) -> None:
    rng, reached = random.Random(5), 0
    for _ in range(8):
        process = start(SAVE_FOREVER, str(tmp_path))
        assert process.stdout
        first = int(process.stdout.readline())
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        steps = [first, *map(int, process.stdout.read().split())]
        process.wait()
        assert first in (reached + 1, reached + 2)  # the commit may have been made, but not reported
        reached = steps[-1]
    good, damages = CheckpointStore(tmp_path).latest_good()
    assert good and not damages and good.step >= reached
    assert_whole(good)


def test_everything_is_synced_before_the_rename_and_the_manifest_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Path]] = []
    rename, replace = os.rename, os.replace
    for module in (checkpoints, checkpoint_files):
        monkeypatch.setattr(module, "sync", lambda path: calls.append(("sync", Path(path))))
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append(("rename", Path(a))), rename(a, b)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", Path(b))), replace(a, b)))
    store = CheckpointStore(tmp_path)
    save(store, 1)
    temporary = tmp_path / "step-000001.tmp"
    at = calls.index(("rename", temporary))
    synced = {path for call, path in calls[:at] if call == "sync"}
    written = {temporary / name for name in (*FILES, "trainer.json", "state", "policy")} | {temporary}
    assert synced == written
    assert calls[at + 1 :][0] == ("sync", tmp_path)
    assert ("replace", tmp_path / "manifest.json") in calls[at:]


def test_pruning_keeps_the_newest_complete_and_the_policies_of_the_others(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, keep_policies=True)
    for step, kind in SAVES:
        save(store, step, kind)
    found = {checkpoint.step: (checkpoint.kind, checkpoint.complete) for checkpoint in store.checkpoints()}
    assert found == {1: ("kept", False), 3: ("kept", True), 4: ("kept", True), 5: ("resume", True)}
    assert not (tmp_path / "step-000001" / "state").exists()
    assert (tmp_path / "step-000001" / "policy" / "model.safetensors").exists()
    assert not (tmp_path / "step-000002").exists()

    bare = CheckpointStore(tmp_path / "bare", keep_last=1, keep_policies=False)
    for step in (1, 2, 3):
        save(bare, step)
    assert [path.name for path in (tmp_path / "bare").glob("step-*")] == ["step-000003"]


def test_two_resume_checkpoints_stay_until_one_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        save(store, step, "resume")
    (store.checkpoints()[-1].state / "rank-0.pt").unlink()
    good, damages = store.latest_good()
    assert good and good.step == 2 and len(damages) == 1
    save(store, 4, "kept")
    save(store, 5, "resume")
    assert [checkpoint.step for checkpoint in store.checkpoints()] == [4, 5]


def test_checkpoints_that_are_needed_stay_complete(tmp_path: Path) -> None:
    """The first, and the newest one up to step 6."""
    store = CheckpointStore(tmp_path, keep_last=1, needed=lambda steps: {steps[0], max(s for s in steps if s < 7)})
    for step in range(1, 10):
        save(store, step)
    assert [known.step for known in store.checkpoints() if known.complete] == [1, 6, 9]


def test_a_run_may_go_back_further_than_to_its_newest_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=9)
    for step in (2, 4, 6):
        save(store, step)
    assert [found.step if (found := store.latest_good(most)[0]) else None for most in (9, 5, 4, 1)] == [6, 4, 4, None]
    (store.checkpoints()[1].state / "rank-0.pt").unlink()
    good, damages = store.latest_good(5)
    assert good and good.step == 2 and len(damages) == 1


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, harm: str) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10)
    broken = save(store, 20).folder / "state" / "rank-1.pt"
    data = bytearray(broken.read_bytes())
    if harm == "flip":
        data[1500] ^= 1
        broken.write_bytes(data)
    elif harm == "truncate":
        broken.write_bytes(data[:-1])
    else:
        broken.unlink()
    good, damages = store.latest_good()
    assert good and good.step == 10
    assert_whole(good)
    assert len(damages) == 1 and "step-000020" in damages[0] and "rank-1.pt" in damages[0]

    store.discard_newer(good.step)  # the run goes on from 10: what lay after it is another attempt's
    assert [checkpoint.step for checkpoint in store.checkpoints()] == [10]
    assert_whole(save(store, 20))
    again, damages = store.latest_good()
    assert again and again.step == 20 and not damages


@pytest.mark.parametrize("place", ["file", "folder", "link to file", "link to folder", "manifest"])
def test_what_did_not_come_from_this_run_is_not_good(tmp_path: Path, place: str) -> None:
    """Whoever loads a checkpoint unpickles what is in it: each of these is one more file, or the same bytes elsewhere."""
    store, elsewhere = CheckpointStore(tmp_path / "run" / "checkpoints"), tmp_path / "elsewhere"
    save(store, 10)
    folder = save(store, 20).folder
    if place == "file":
        (folder / "state" / "rank-2.pt").write_bytes(b"evil")
    elif place == "folder":
        (folder / "state" / "zero").mkdir()
        (folder / "state" / "zero" / "fp32.pt").write_bytes(b"evil")
    elif place == "link to file":
        (folder / "state" / "rank-1.pt").rename(elsewhere)
        (folder / "state" / "rank-1.pt").symlink_to(elsewhere)
    else:
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
    if place == "manifest":
        folder.unlink()
        manifest = tmp_path / "run" / "checkpoints" / "manifest.json"
        manifest.write_text(manifest.read_text().replace("step-000020", "../../elsewhere"))
        with pytest.raises(UserError, match=r"manifest.json is damaged"):
            store.latest_good()
        return
    good, damages = store.latest_good()
    assert good and good.step == 10
    assert len(damages) == 1 and "step-000020" in damages[0]


@pytest.mark.parametrize(
    "name", ["step-000004-best", "step-4", "step-000004-2b", "step-000004.bak", "step-000004.tmp.old"]
)
def test_a_copy_that_somebody_made_is_left_alone(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    shutil.copytree(save(store, 4).folder, tmp_path / name)
    leftovers = [tmp_path / own for own in ("step-000009.tmp", "step-000004.universal.tmp", "step-000004-2")]
    for leftover in leftovers:
        leftover.mkdir()
    for step in (5, 6, 7):
        save(store, step)
    store.discard_newer(6)
    store.open()
    assert all((tmp_path / name / file).read_bytes() == content(4, file) for file in FILES)
    assert not any(leftover.exists() for leftover in leftovers)
    (tmp_path / "manifest.json").unlink()
    for folder in tmp_path.glob("step-00000?"):
        shutil.rmtree(folder)
    CheckpointStore(tmp_path).open()
    assert (tmp_path / name).exists() and json.loads((tmp_path / "manifest.json").read_text()) == {"checkpoints": []}


def test_nothing_good_is_left(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.latest_good() == (None, [])
    for step in (1, 2):
        (save(store, step).folder / "trainer.json").unlink()
    good, damages = store.latest_good()
    assert good is None and len(damages) == 2


def test_the_same_step_may_be_saved_twice(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 5, "resume")
    save(store, 5, "kept")
    assert [(checkpoint.step, checkpoint.kind) for checkpoint in store.checkpoints()] == [(5, "kept")]
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000005"]
    good, _ = store.latest_good()
    assert good
    assert_whole(good)


@pytest.mark.parametrize("harm", ["damage", "remove"])
def test_without_its_manifest_no_checkpoint_is_deleted(tmp_path: Path, harm: str) -> None:
    store = CheckpointStore(tmp_path)
    folder = save(store, 5).folder
    if harm == "damage":
        (tmp_path / "manifest.json").write_text('{"checkpoints": [{"folder": "st')
    else:
        (tmp_path / "manifest.json").unlink()
    with pytest.raises(UserError, match="nothing was deleted"):
        store.sweep()
    assert all((folder / name).exists() for name in FILES)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(small_disk: Path) -> None:
    store = CheckpointStore(small_disk / "checkpoints")
    save(store, 1)
    free = shutil.disk_usage(small_disk).free

    folder = store.begin(2)
    with pytest.raises(OSError) as full:
        (folder / "state" / "rank-0.pt").write_bytes(bytes(8 << 20))
    error = store.abandon(2, full.value)
    assert isinstance(error, RunError) and "The disk is full" in str(error) and "step-000001" in str(error)
    assert shutil.disk_usage(small_disk).free == free

    folder = store.begin(2)
    (folder / "state" / "rank-0.pt").write_bytes(b"x")
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with pytest.raises(RunError, match=r"The disk is full.*last good checkpoint is step-000001"):
        store.commit(2, "kept", {"step": 2})
    assert not folder.exists()

    with pytest.raises(RunError, match=r"only .* are free.*make room for 0.0 MiB"):  # seen before anything is written
        store.begin(2)
    good, damages = store.latest_good()
    assert good and good.step == 1 and not damages
    assert_whole(good)
    filler.unlink()
    assert_whole(save(store, 2))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", ["rename", "replace"])
def test_a_full_disk_at_the_commit_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)

    def refuse(source: Path, target: Path) -> None:
        if place == "rename" or Path(target).name == "manifest.json":
            raise OSError(number, os.strerror(number))
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, place, refuse)
        with pytest.raises(RunError, match=r"The disk is full.*last good checkpoint is step-000001"):
            save(store, 2)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000001"]
    assert_whole(save(store, 2))


def test_a_full_disk_told_by_other_libraries_is_recognised(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    by_torch = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    by_safetensors = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    for error in (by_torch, by_safetensors):
        assert "The disk is full" in str(store.abandon(2, error))
    assert "disk" not in str(store.abandon(2, ValueError("shape"))).replace(str(tmp_path), "")


def test_a_run_has_one_driver_and_a_killed_one_does_not_block(tmp_path: Path, start: Start) -> None:
    holder = start(HOLD_LOCK, str(tmp_path / "run"))
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} "), run_lock(tmp_path / "run"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_lock(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / "driver.lock").read_text()


def test_the_manifest_says_size_and_crc_of_every_file(tmp_path: Path) -> None:
    save(CheckpointStore(tmp_path), 3)
    (entry,) = json.loads((tmp_path / "manifest.json").read_text())["checkpoints"]
    listed = {file["path"]: (file["size"], file["crc32"]) for file in entry["files"]}
    assert set(listed) == {*FILES, "trainer.json"}
    for name in FILES:
        assert listed[name] == (3000, zlib.crc32(content(3, name)))
