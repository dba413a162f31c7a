"""A run's spans at times of the tests' own making."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EPOCH = 1_790_000_000.0


class MadeUp:
    """Writes spans at times of its own making."""

    def __init__(self, folder: Path) -> None:
        self.now = EPOCH
        self._folder = folder
        folder.mkdir(parents=True)

    def add(self, process: str, name: str, start: float, seconds: float, **attributes: Any) -> None:
        line = {"name": name, "ph": "X", "ts": 1e6 * start, "dur": 1e6 * seconds, "pid": 7, "args": attributes}
        with (self._folder / f"{process}.jsonl").open("a") as file:
            file.write(f"\n{json.dumps(line)}\n")

    @contextmanager
    def stage(self, name: str, seconds: float | None = None, **attributes: Any) -> Iterator[float]:
        start = self.now
        yield start
        self.now = self.now if seconds is None else start + seconds
        self.add("driver", name, start, self.now - start, **attributes)


NORMAL = {
    "queue": 0.1,
    "decode": 6.0,
    "judge": 1.0,
    "train": 2.0,
    "send": 0.4,
    "write": 0.1,
    "save": 0.0,
    "other": 0.05,
}


def made_up_run(folder: Path, steps: int = 8, attempt: int = 1, **slow: float) -> Path:
    """Two groups of two on two engines; the last completion takes `decode`, the others 4 s; `slow`: planted seconds."""
    times = NORMAL | slow
    trace = MadeUp(folder / "attempts" / f"{attempt:03d}" / "trace")
    (folder / "config.json").write_text(json.dumps({"run": {}, "rollout": {}, "data": {}}))
    for step in range(1, steps + 1):
        with trace.stage("step", step=step):
            positions = [2 * step, 2 * step + 1]
            asked = times["queue"] + 0.2 + times["decode"]
            with trace.stage("take", asked + times["judge"], positions=positions) as begins:
                for i, position in enumerate(positions):
                    for sample in range(2):
                        long = (i, sample) == (1, 1)
                        which = {"position": position, "sample": sample}
                        seconds = times["decode"] if long else min(4.0, times["decode"])
                        trace.add(f"engine-{i}", "queue", begins, times["queue"], **which)
                        trace.add(f"engine-{i}", "prefill", begins + times["queue"], 0.2, **which, tokens=9)
                        decoded = begins + times["queue"] + 0.2
                        trace.add(f"engine-{i}", "decode", decoded, seconds, **which, tokens=128)
                        whose = {"positions": [position], "completions": 1}
                        trace.add("driver", "judge", decoded + seconds, times["judge"], **whose)
                        trace.add("rewards", "judge", decoded + seconds, times["judge"])
            with trace.stage("train", times["train"], step=step) as begins:
                for rank in range(2):
                    share = times["train"] * (0.8 + 0.1 * rank)
                    trace.add(f"learner-{rank}", "forward_backward", begins, share, micro_batch=0)
            with trace.stage("push", times["send"] + 0.1, version=step) as begins:
                trace.add("learner-0", "send_bucket", begins, times["send"], bucket=3)
            with trace.stage("write", times["write"], step=step):
                pass
            trace.now += times["other"]
        if times["save"] and step % 2 == 0:
            with trace.stage("save", 2 * times["save"], kind="kept"):
                pass
    return folder
