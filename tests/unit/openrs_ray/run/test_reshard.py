"""Converting a learner's state for another number of ranks; that it goes on as before is in test_learner."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from openrs_ray.errors import RunError
from openrs_ray.run import reshard as universal
from openrs_ray.run.checkpoints import CheckpointStore


def test_a_disk_without_room_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "step-000004" / "state"
    state.mkdir(parents=True)
    (state / "a").write_bytes(bytes(3 << 20))
    (state / "b").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(universal.shutil, "disk_usage", lambda path: SimpleNamespace(free=(8 << 20) - 1))
    with pytest.raises(RunError, match=r"room, or set placement\.num_learner_gpus back"):
        universal.convert(state, tmp_path / "step-000004.universal.tmp" / "state")
    assert not any(path.is_file() for path in (tmp_path / "step-000004.universal.tmp").rglob("*"))


def test_a_broken_off_conversion_is_swept_away(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    (store.begin(4) / "state" / "rank-0.pt").write_bytes(b"x")
    store.commit(4, "kept", {})
    (tmp_path / "step-000004.universal.tmp" / "state" / "zero").mkdir(parents=True)
    store.sweep()
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000004"]
