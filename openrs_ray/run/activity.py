"""A run's present work, from the spans of its driver and of the first learner rank: stage, counts, tokens per second."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openrs_ray.common.formatting import short_clock

_STAGES = {
    "take": "sampling",
    "train": "training",
    "push": "pushing",
    "save": "saving a checkpoint",
    "evaluate": "evaluating",
}
_PHASES = {"take": "train", "evaluate": "evaluation"}
"""Stages that wait for completions, and the phase of these."""


@dataclass(slots=True)
class _Group:
    asked: int = 0
    sampled: int = 0


class Activity:
    """Follows the spans of the driver (`openrs_ray.run.spans.following`). `text` may be called from any thread.

    activity = Activity(groups=12, samples=6, ahead=False)
    with following(activity):
        activity.text()   # "sampling 41/72, 1,830 tokens/s, 2:10"
    """

    def __init__(
        self,
        groups: int,
        samples: int,
        ahead: bool = False,
        trace: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`groups` of `samples` per step; `ahead`: those of later steps are sampled, too. `trace`: folder of the spans."""
        self._most, self._samples, self._ahead = groups, samples, ahead
        self._batches = _MicroBatches(trace / "learner-0.jsonl") if trace else None
        self._clock = clock
        self._lock = threading.Lock()
        self._stages: list[tuple[str, float]] = []  # under way, with their starts; the last one is shown
        self._groups: dict[tuple[str, int], _Group] = {}  # not taken yet, by phase and position, oldest first
        self._in_hand = 0
        self._judged = 0  # completions that wait for the reward pool
        self._tokens = 0  # of completions that ended in this stage
        self._step = self._micro_batches = 0

    def began(self, name: str, attributes: dict[str, Any]) -> None:
        with self._lock:
            if name in _STAGES:
                self._stages.append((name, self._clock()))
                self._step = attributes.get("step", self._step)
                self._micro_batches = 0
                if name in _PHASES:
                    self._tokens = 0
            elif name == "rollout":
                self._groups.setdefault(_key(attributes), _Group()).asked += 1
                self._in_hand += 1
            elif name == "judge":
                self._judged += attributes["completions"]

    def ended(self, name: str, attributes: dict[str, Any]) -> None:
        with self._lock:
            if name in _STAGES:
                self._leave(name)
            if name == "take":
                self._forget("train", set(attributes.get("positions", ())))
            elif name == "evaluate":
                self._forget("evaluation")
            elif name == "pack":
                self._micro_batches = attributes.get("micro_batches", 0)
            elif name == "rollout":
                self._count(attributes)
            elif name == "judge":
                self._judged -= attributes["completions"]

    def _leave(self, name: str) -> None:
        last = max(place for place, (stage, _) in enumerate(self._stages) if stage == name)
        del self._stages[last]

    def _forget(self, phase: str, positions: set[int] | None = None) -> None:
        """Groups of a phase: of these positions, or all."""
        for key in [key for key in self._groups if key[0] == phase and (positions is None or key[1] in positions)]:
            del self._groups[key]

    def _count(self, attributes: dict[str, Any]) -> None:
        self._in_hand -= 1
        group = self._groups.get(_key(attributes))
        if group is None:
            return
        if attributes.get("error") == "CancelledError":
            group.asked -= 1
            if not group.asked:
                del self._groups[_key(attributes)]
        else:
            group.sampled += 1
            self._tokens += attributes.get("tokens", 0)

    @property
    def in_hand(self) -> int:
        """Completions that the engines have been asked for and have not delivered."""
        return self._in_hand

    @property
    def waiting_for_verdict(self) -> int:
        return self._judged

    def text(self) -> str:
        """Empty between the stages."""
        with self._lock:
            if not self._stages:
                return ""
            stage, began = self._stages[-1]
            seconds = self._clock() - began
            what = self._sampling(stage, seconds) if stage in _PHASES else f"{_STAGES[stage]}{self._trained(stage)}"
        return f"{what}, {short_clock(seconds)}"

    def _sampling(self, stage: str, seconds: float) -> str:
        asked, sampled = self._waited_for(_PHASES[stage])
        if asked and sampled == asked and self._judged:
            return f"judging {max(0, asked - self._judged)}/{asked}"
        rate = f", {self._tokens / seconds:,.0f} tokens/s" if self._tokens and seconds >= 1 else ""
        return f"{_STAGES[stage]} {sampled}/{asked}{rate}"

    def _waited_for(self, phase: str) -> tuple[int, int]:
        """Completions that the stage waits for, and how many of them are sampled."""
        groups = [group for key, group in self._groups.items() if key[0] == phase]
        if phase == "train" and self._ahead:
            groups = groups[: self._most]
        least = self._most * self._samples if phase == "train" else 0  # some may not have been asked for yet
        return max(least, sum(group.asked for group in groups)), sum(group.sampled for group in groups)

    def _trained(self, stage: str) -> str:
        if stage != "train" or not self._micro_batches:
            return ""
        done = self._batches.done(self._step) if self._batches else 0
        return f" micro-batch {min(done + 1, self._micro_batches)}/{self._micro_batches}"


def _key(attributes: dict[str, Any]) -> tuple[str, int]:
    return attributes["phase"], attributes["position"]


@dataclass(slots=True)
class _MicroBatches:
    """Reads a learner rank's trace while it grows."""

    path: Path
    _read: int = 0
    _last: dict[str, Any] = field(default_factory=dict)

    def done(self, step: int) -> int:
        """Micro-batches of the step, or of its present update, that are done."""
        try:
            self._follow()
        except (OSError, ValueError):
            return 0  # the trace is not there yet, or has another form: nothing depends on it
        return int(self._last["micro_batch"]) + 1 if self._last.get("step") == step else 0

    def _follow(self) -> None:
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            if size < self._read:  # a full file has been replaced
                self._read = 0
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole)
        for line in whole.splitlines():
            if b'"forward_backward"' in line:
                self._last = json.loads(line)["args"]
