"""A run's folder for the page, made at once: figures, log, trace and evaluations of as many steps as a test wants."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from openrs_ray.common.files import append_line, write_json
from openrs_ray.config.schema import RunConfig
from openrs_ray.evaluation import report
from openrs_ray.evaluation.analysis import analyse
from openrs_ray.evaluation.figures import Samples
from openrs_ray.records import Completion, Group, Problem, Rollout, Status, Verdict, VersionSpan
from openrs_ray.run.account import Spent
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.completions import CompletionRecord
from openrs_ray.run.progress import Progress

CAP, PROBLEMS, PER_STEP, SAMPLES = 64, 60, 3, 4
_FIGURES = ("reward", "reward_accuracy", "reward_format", "accuracy", "mean_length", "max_length", "kl", "mismatch_kl")
_MORE = (
    "entropy",
    "clipped_share",
    "truncated_share",
    "age_mean",
    "age_max",
    "grad_norm",
    "cost_usd",
    "groups_with_spread",
)


def made_run(
    folder: Path,
    steps: int = 40,
    problem: str = "1 + 1",
    completion: str = "It is \\boxed{2}.",
    warning: str = "",
    recorded: Sequence[int] = (1, 2, 40),
    after: float = 0.9,
    changes: dict[str, Any] | None = None,
) -> Path:
    """`recorded`: the steps whose completions are written. `after`: share of held-out problems solved at the end."""
    config = RunConfig.model_validate(
        {
            "run": {"name": "made", "folder": str(folder.parent), "steps": steps},
            "model": {"path": "toy"},
            "data": {"path": "toy"},
            "evaluation": {"path": "toy-heldout", "problems": PROBLEMS},
            "rollout": {
                "problems_per_step": PER_STEP,
                "completions_per_problem": SAMPLES,
                "max_completion_tokens": CAP,
            },
            "cost": {"price_per_gpu_hour": 0.44, "budget_usd": 42.0},
            **(changes or {}),
        }
    )
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "cost.json", {"spent": asdict(Spent(1.5, 3.0, 0.75))})
    start_attempt(folder, 0)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in figures(steps)))
    for step, share in ((0, 0.4), (steps, after)):
        rows = _held_out(step, share, problem, completion)
        CompletionRecord(folder).write(step, 1, rows, [[completion]] * PROBLEMS, None, "evaluation")
        solved = float(np.mean([group.verdicts[0].status is Status.CORRECT for group in rows]))
        line = {
            "step": step,
            "attempt": 1,
            "phase": "evaluation",
            "accuracy": solved,
            "low": solved - 0.1,
            "high": solved + 0.08,
        }
        append_line(folder / "metrics.jsonl", line | {"unjudged": 0.0})
    for step in recorded:
        write_step(folder, step, problem, completion)
    write_log(folder, steps, warning)
    write_trace(folder, steps)
    write_json(folder / "result.json", asdict(Progress(step=steps, ended="steps")))
    return folder


def figures(steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`: noisy curves, with one spike of the length in the middle."""
    rng = np.random.default_rng(seed)
    rise = 1 - np.exp(-np.arange(1, steps + 1) / max(1, steps / 4))
    noise = rng.normal(0, 0.02, (steps, len(_FIGURES) + len(_MORE)))
    lines = []
    for step in range(1, steps + 1):
        level = rise[step - 1]
        values = {name: float(abs(level + noise[step - 1, place])) for place, name in enumerate((*_FIGURES, *_MORE))}
        values |= {
            "mean_length": 30 + 10 * values["mean_length"],
            "max_length": 60.0,
            "mismatch_kl": 1e-4,
            "age_mean": 0.0,
        }
        if step == steps // 2:
            values["mean_length"] = 63.0
        times = {"collect_s": 1.0, "train_s": 0.5, "push_s": 0.2, "step_s": 1.8}
        more = {
            "sampled_tokens": 500.0,
            "timeouts": 0.0,
            "cost_usd": step / 1000,
            "rollout_wait_share": 0.3,
            "learner_wait_share": 0.6,
        }
        lines.append({"step": step, "attempt": 1, "phase": "train"} | values | times | more)
    return lines


def write_step(folder: Path, step: int, problem: str, completion: str) -> None:
    groups = [_group(PER_STEP * (step - 1) + place, place, problem, SAMPLES, 0.5) for place in range(PER_STEP)]
    advantages = np.zeros((PER_STEP, SAMPLES))
    CompletionRecord(folder).write(step, 1, groups, [[completion] * SAMPLES] * PER_STEP, advantages)


def _held_out(step: int, share: float, problem: str, completion: str) -> list[Group]:
    return [
        _group(place, place, f"{problem} #{place}", 1, 1.0 if place < share * PROBLEMS else 0.0)
        for place in range(PROBLEMS)
    ]


def _group(position: int, index: int, problem: str, samples: int, right: float) -> Group:
    rollouts, verdicts = [], []
    for sample in range(samples):
        tokens = np.arange(5, dtype=np.int32)
        own = Completion(
            position, sample, tokens, np.full(5, -0.5, dtype=np.float32), "stop", (VersionSpan(0, 0, 5),), 0
        )
        solved = sample < right * samples
        reward = 3.0 if solved else 1.0
        rollouts.append(Rollout.of([own]))
        verdicts.append(
            Verdict(Status.CORRECT if solved else Status.WRONG, {"accuracy": float(solved)}, reward, "2", 0.01)
        )
    return Group(position, Problem(index, problem, (1, 2), ("2",)), tuple(rollouts), tuple(verdicts))


def write_log(folder: Path, steps: int, warning: str) -> None:
    path = folder / "attempts" / "001" / "log.txt"
    path.parent.mkdir(parents=True)
    said = [
        "started on somewhere (commit: abc): python -m launch.train quickstart --run.steps 40",
        f"[{folder.name}] held-out accuracy after 0 steps: 40.0 % [28.6, 52.6]",
        *(f"[{folder.name}] step {step}/{steps}  reward 1.0" for step in range(1, min(steps, 20))),
        f"[{folder.name}] WARNING: Rollout worker 0 died and is replaced: it was killed.",
        *([f"[{folder.name}] WARNING: {warning}"] if warning else []),
        f"[{folder.name}] WARNING: step 7: 1 completions could not be judged and were left out of the loss.",
    ]
    lines = (f"2026-01-01T00:00:{place % 60:02d}.000+00:00 {line}\n" for place, line in enumerate(said))
    path.write_text("".join(lines))
    write_json(
        path.parent / "environment.json", {"command": "python -m launch.train quickstart --run.steps 40", "folder": "/"}
    )


def write_trace(folder: Path, steps: int) -> None:
    """The last eight steps of 1.8 seconds, of a driver, an engine and a learner rank."""
    shown = range(max(1, steps - 7), steps + 1)
    spans: dict[str, list[dict[str, Any]]] = {"driver": [], "engine-0": [], "learner-0": []}

    def add(process: str, name: str, start: float, seconds: float, **attributes: Any) -> None:
        spans[process].append(
            {"name": name, "ph": "X", "ts": 1e6 * start, "dur": 1e6 * seconds, "pid": 1, "args": attributes}
        )

    for step in shown:
        start = 1000 + 1.8 * step
        add("driver", "take", start, 1.0, step=step)
        add("driver", "judge", start + 0.93, 0.05, positions=[step])
        add("driver", "train", start + 1.0, 0.5, step=step)
        add("driver", "push", start + 1.5, 0.2, version=step)
        add("driver", "step", start, 1.75, step=step)
        add("learner-0", "optimizer", start + 1.0, 0.5, step=step)
        for sample in range(12):
            add("engine-0", "decode", start + 0.01 * sample, 0.9, position=sample // 4, sample=sample % 4)
        add("engine-0", "load", start + 1.55, 0.1)
    trace = folder / "attempts" / "001" / "trace"
    trace.mkdir(parents=True, exist_ok=True)
    for process, own in spans.items():
        (trace / f"{process}.jsonl").write_text("".join(json.dumps(span) + "\n" for span in own))


def write_report(folder: Path, title: str = "Own problems") -> None:
    """What `launch.evaluate` leaves, of two models on ten problems with four samples each."""
    rng = np.random.default_rng(3)
    models = {}
    for name, share in (("made, step 40", 0.8), ("start model", 0.3)):
        correct = (rng.random((10, 4)) < share).astype(float)
        whole = np.ones_like(correct)
        models[name] = {"own": Samples(correct, correct.astype(int), 20 * whole, 0 * whole, whole)}
    how = {"protocol": "robust", "prompt": "run", "temperature": 0.6, "top_p": 0.95, "max_tokens": 64, "rules": "boxed"}
    content = report.document(
        how | {"max_unjudged_share": 0.1},
        {"own": title},
        analyse(models, "start model", 0.1),
        dict.fromkeys(models),
        {"sampling": 1, "resampling": 2},
    )
    place = folder / "evaluation" / "robust" / "step-000040"
    place.mkdir(parents=True)
    report.write(place, content)
