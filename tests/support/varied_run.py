"""A run's folder whose completions differ in everything that the page filters, orders and colours by."""

from pathlib import Path

import numpy as np
from made_run import made_run

from openrs_ray.data.completions import Decoder
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.completions import CompletionRecord

STEPS, PROBLEMS, SAMPLES = 8, 3, 4
TOKENIZER = make_tokenizer()


def varied_run(folder: Path) -> Path:
    """Problem 0 is learned from step to step, problem 1 stays unsolved, problem 2 stays solved and has a timeout in step 5."""
    made_run(folder, steps=STEPS, recorded=())
    policy = folder / "checkpoints" / f"step-{STEPS:06d}" / "policy"
    policy.mkdir(parents=True)
    TOKENIZER.backend_tokenizer.save(str(policy / "tokenizer.json"))
    for step in range(1, STEPS + 1):
        write_varied(folder, step)
    return folder


def write_varied(folder: Path, step: int) -> None:
    groups = [_group(step, problem) for problem in range(PROBLEMS)]
    texts = [[_text(step, group.problem.index, sample) for sample in range(SAMPLES)] for group in groups]
    values = np.array([[np.nan if v.reward is None else v.reward - 1.0 for v in group.verdicts] for group in groups])
    CompletionRecord(folder, Decoder.of(TOKENIZER)).write(step, 1, groups, texts, values)


def _text(step: int, problem: int, sample: int) -> str:
    return f"{step}+{problem}={step + problem}" + "+0" * (3 + sample) + f"\\boxed{{{40 + problem}}}"


def _group(step: int, problem: int) -> Group:
    prompt = TOKENIZER(f"<|user|>{40 + problem}+0<|end|><|assistant|>")["input_ids"]
    position = PROBLEMS * (step - 1) + problem
    rollouts, verdicts = [], []
    for sample in range(SAMPLES):
        ids = np.array(TOKENIZER(_text(step, problem, sample))["input_ids"], dtype=np.int32)
        rng = np.random.default_rng([step, problem, sample])
        logprobs = -rng.exponential(1.5, len(ids)).astype(np.float32)
        spans = tuple(
            VersionSpan(max(0, step - 2 + part), *edges) for part, edges in enumerate(((0, 3), (3, len(ids))))
        )
        rollouts.append(Rollout.of([Completion(position, sample, ids, logprobs, "stop", spans, 0)]))
        verdicts.append(_verdict(step, problem, sample))
    row = {"level": 3, "kind": "sum"}
    about = Problem(problem, f"{40 + problem}+0", tuple(prompt), (str(40 + problem),), row=row)
    return Group(position, about, tuple(rollouts), tuple(verdicts))


def _verdict(step: int, problem: int, sample: int) -> Verdict:
    if (step, problem, sample) == (5, 2, 3):
        return Verdict(Status.TIMEOUT, {}, None, detail="the check took over 5 s")
    right = problem == 2 or (problem == 0 and 4 * step > 8 * sample)
    status = Status.CORRECT if right else Status.WRONG
    parts = {"accuracy": float(right), "format": 1.0 - 0.25 * sample}
    return Verdict(status, parts, 2 * parts["accuracy"] + parts["format"], answer=str(40 + problem))
