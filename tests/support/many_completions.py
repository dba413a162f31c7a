"""A run's record of many steps, made quickly: files differ in step, rewards, verdicts, lengths and a word of each text."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.completion_files import Phase, write_file
from openrs_ray.run.completions import SCHEMA

STATUSES = ("correct", "wrong", "no_answer", "timeout")
TOKENS = 12


def write_many(run: Path, steps: int, problems: int, samples: int, phase: Phase = "train", visits: int = 10) -> None:
    """`steps` steps of `problems` problems, each of which comes back every `visits` steps, `samples` completions each."""
    if not (run / "attempts.jsonl").exists():
        start_attempt(run, 0)
    fixed = _fixed(problems * samples, phase)
    for step in range(1, steps + 1):
        write_file(run, phase, step, 1, _step(fixed, step, problems, samples, visits))


def _fixed(rows: int, phase: Phase) -> dict[str, pa.Array]:
    """Columns that are the same in every file."""
    tokens = pa.array(np.tile(np.arange(TOKENS, dtype=np.int32), rows))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * TOKENS)
    span = [{"version": 0, "start": 0, "end": 5}, {"version": 1, "start": 5, "end": TOKENS}]
    values = {
        "task": [""] * rows,
        "prompt": ["<user>how much?<assistant>"] * rows,
        "gold": [["42"]] * rows,
        "row": ['{"level": 3}'] * rows,
        "token_ids": pa.ListArray.from_arrays(offsets, tokens),
        "finish_reason": ["stop"] * rows,
        "answer": ["42"] * rows,
        "detail": [""] * rows,
        "worker": [0] * rows,
        "attempt": [1] * rows,
        "phase": [phase] * rows,
        "logprobs": pa.ListArray.from_arrays(offsets, pa.array(np.tile(np.float32(-0.25), rows * TOKENS))),
        "sampled": [None] * rows,
        "versions": [span] * rows,
        "mean_logprob": [-0.25] * rows,
        "check_seconds": [0.004] * rows,
        "temperature": [1.0] * rows,
        "max_completion_tokens": [TOKENS] * rows,
        **dict.fromkeys(("stage", "learner_logprobs", "reference_logprobs", "entropies"), [None] * rows),
    }
    return {name: _array(name, each) for name, each in values.items()}


def _step(fixed: dict[str, pa.Array], step: int, problems: int, samples: int, visits: int) -> pa.Table:
    rng, rows = np.random.default_rng(step), problems * samples
    group = np.repeat(np.arange(problems), samples)
    problem = (step % visits) * problems + group
    status = rng.choice(len(STATUSES), rows, p=[0.5, 0.3, 0.15, 0.05])
    reward = np.where(status == 0, 2.0, 0.0) + rng.integers(0, 2, rows)
    judged = status < 3
    values = {
        "problem_index": problem,
        "sample": np.tile(np.arange(samples), problems),
        "problem": [f"What is {each} plus one?" for each in problem],
        "text": [
            f"step {step} says word{word} of the answer, which is \\boxed{{42}}" for word in rng.integers(0, 999, rows)
        ],
        "length": rng.integers(5, 2000, rows),
        "status": [STATUSES[each] for each in status],
        "step": np.full(rows, step),
        "position": (step - 1) * problems + group,
        "reward": pa.array(reward, pa.float64(), mask=~judged),
        "rewards": [[("accuracy", float(each == 0))] if each < 3 else [] for each in status],
        "advantage": pa.array(reward - reward.mean(), pa.float64(), mask=~judged),
    }
    columns = fixed | {name: _array(name, each) for name, each in values.items()}
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _array(name: str, values: object) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, SCHEMA.field(name).type)
