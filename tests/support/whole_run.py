"""A run's folder as a run leaves it, made in milliseconds, and ways to damage it that its checksums do not show."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.loop.batch import Batch
from openrs_ray.algorithm.advantages import advantages
from openrs_ray.algorithm.step_metrics import step_metrics
from openrs_ray.common.files import append_line, write_json
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Order
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.account import Spent
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.completion_files import Phase, current_files, write_file
from openrs_ray.run.completions import SCHEMA, CompletionRecord
from openrs_ray.run.problems import RunProblems, text_digests
from openrs_ray.run.progress import Progress

P, SAMPLES, STEPS, STALENESS, TIMES = 3, 4, 6, 1, 1
TEXTS = [f"{index} + {index + 1}" for index in range(7)]
PROBLEMS = [Problem(index, text, (1, 2), (str(2 * index + 1),)) for index, text in enumerate(TEXTS)]


def write_run(folder: Path) -> Path:
    """Six steps one version ahead; the second attempt goes on from step 2 after three. Step 4 replaces a group, one check of
    step 5 timed out."""
    config = RunConfig.model_validate(
        {
            "run": {"name": folder.name, "folder": str(folder.parent), "steps": STEPS},
            "model": {"path": "toy"},
            "data": {"path": "toy"},
            "rollout": {
                "problems_per_step": P,
                "completions_per_problem": SAMPLES,
                "max_completion_tokens": 64,
                "staleness": STALENESS,
                "replace_uniform_groups": TIMES,
            },
        }
    )
    folder.mkdir(parents=True)
    write_json(folder / "cost.json", {"spent": asdict(Spent(1.5, 3.0, 0.75)), "seconds": {"step": [2.0, 3.0]}})
    RunProblems("f00d", len(PROBLEMS), text_digests(TEXTS)).write(folder)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    store = CheckpointStore(folder / "checkpoints")
    store.open()
    order = Order(config.run.seed, len(PROBLEMS), config.tasks[0].data.shuffle)
    start_attempt(folder, 0, AttemptSettings.of(config))
    CompletionRecord(folder).write(
        0, 1, [_group(position, 0, 0, order) for position in range(2)], [[""] * SAMPLES] * 2, None, "evaluation"
    )
    for attempt, steps in ((1, (1, 2, 3)), (2, (3, 4, 5, 6))):
        if attempt > 1:
            start_attempt(folder, 2, AttemptSettings.of(config))
        for step in steps:
            _write_step(folder, step, attempt, order)
            if step in (2, STEPS):
                (store.begin(step) / "state" / "rank-0.pt").write_bytes(b"state")
                store.commit(step, "kept", asdict(Progress(step=step)))
    write_json(folder / "result.json", asdict(Progress(step=STEPS, ended="steps")))
    return folder


def _write_step(folder: Path, step: int, attempt: int, order: Order) -> None:
    first = (step - 1) * P + (step > 4)
    positions, replaced = [*range(first, first + P)], []
    if step == 4:
        positions, replaced = [first, first + 2, first + 3], [first + 1]
    batch = Batch(
        [_group(position, step, step - 1, order) for position in positions],
        [_group(position, step, step - 1, order, equal=True) for position in replaced],
    )
    values = advantages(np.stack([group.rewards() for group in batch.groups]), 1e-4)
    record = CompletionRecord(folder)
    if batch.replaced:
        record.write(step, attempt, batch.replaced, [[""] * SAMPLES], None, "replaced")
    record.write(step, attempt, batch.groups, [[""] * SAMPLES] * P, values)
    figures = step_metrics(batch.drawn) | batch.metrics()
    append_line(folder / "metrics.jsonl", {"step": step, "attempt": attempt, "phase": "train"} | figures)


def _group(position: int, step: int, version: int, order: Order, equal: bool = False) -> Group:
    rng = np.random.default_rng(100 * step + position)
    completions, verdicts = [], []
    for sample in range(SAMPLES):
        length = int(rng.integers(30, 50))
        tokens = rng.integers(0, 30000, length).astype(np.int32)
        logprobs = -rng.exponential(2.0, length).astype(np.float32)
        spans = (VersionSpan(version, 0, length),)
        if step > 1 and sample == 1:  # sampled through a push
            spans = (VersionSpan(version - 1, 0, 10), VersionSpan(version, 10, length))
        turns: list[Completion | Sequence[int]] = [Completion(position, sample, tokens, logprobs, "stop", spans, 0)]
        reward = 1.0 if equal else float(sample % 2 + position % 3)
        verdict = Verdict(Status.CORRECT, {"accuracy": reward}, reward, "3", 0.1)
        if step == 5 and position % P == 1 and sample == 0:
            verdict = Verdict(Status.TIMEOUT, {}, None, detail="killed")
        if step > 1 and sample == 2:  # of two turns, with five tokens given between them
            cuts = ((slice(12), 12), (slice(12, None), length - 12))
            first, second = (
                Completion(position, sample, tokens[cut], logprobs[cut], "stop", (VersionSpan(version, 0, size),), 0)
                for cut, size in cuts
            )
            turns = [first, range(5), second]
        completions.append(Rollout.of(turns))
        verdicts.append(verdict)
    return Group(position, PROBLEMS[order.index(position) if step else position], tuple(completions), tuple(verdicts))


Rows = list[dict[str, Any]]


def rewrite(folder: Path, step: int, change: Callable[[Rows], object], phase: Phase = "train") -> None:
    """Change the rows of a file that counts, and give it the checksum of what it holds then."""
    (file,) = [file for file in current_files(folder, phase) if file.step == step]
    rows = file.read().to_pylist()
    change(rows)
    file.path.unlink()
    write_file(folder, phase, step, file.attempt, pa.Table.from_pylist(rows, schema=SCHEMA))
