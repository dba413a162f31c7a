"""Part learner_rank: one learner rank, every ZeRO stage, against plain transformers in float64 on the CPU."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.learner.rank import LearnerRank
from launch.performance.gpu_suite.rows import Row, Size, at_most, noted, true
from launch.performance.models import model_path
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.packing import MicroBatch, split
from openrs_ray.algorithm.policy import Policy
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.models.pretrained import read_model

_CASES = (("bfloat16", 1), ("bfloat16", 2), ("bfloat16", 3), ("float32", 2))
_GRADIENT_ERROR = {"bfloat16": 3e-2, "float32": 1e-4}
"""Of the whole gradient's norm, relative."""
_SCORE_ERROR = {"bfloat16": 5e-3, "float32": 1e-4}
_COUNT, _TOKENS = 9, 48
Weights = dict[str, Tensor]


class PlainSteps(LearnerRank):
    """SGD at learning rate 1 moves the weights by exactly the gradient."""

    def make_optimizer(self, policy: Policy) -> torch.optim.Optimizer:
        return torch.optim.SGD(policy.parameters(), lr=1.0)


def learner_rank(size: Size) -> Iterator[Row]:
    """All on a tiny model: large ones are for speed and memory."""
    device, model = ("cuda:0" if size == "full" else "cpu"), str(model_path("tiny"))
    sequences, expected = _reference(model)
    with tempfile.TemporaryDirectory() as scratch:
        for dtype, stage in _CASES:
            start = partial(_started, scratch, model, device, dtype, stage)
            for row in _case(start, sequences, expected, dtype, Path(scratch) / f"{dtype}-{stage}"):
                yield replace(row, what=f"ZeRO-{stage} {dtype}: {row.what}")


def _case(start: Any, sequences: list[TrainingSequence], expected: Weights, dtype: str, folder: Path) -> Iterator[Row]:
    began = time.monotonic()
    rank = start(PlainSteps, 1.0)
    ready = time.monotonic()
    scores = rank.score([(s.prompt_ids, s.completion_ids) for s in sequences], 1.0)
    yield noted("start", ready - began, "s")
    yield noted("first score", time.monotonic() - ready, "s")
    differences = np.concatenate([a - s.sampler_logprobs for a, s in zip(scores, sequences, strict=True)])
    yield at_most("scores, mean error", float(np.abs(differences).mean()), _SCORE_ERROR[dtype])
    before = _weights(rank)
    rank.train_step(*_step(sequences), 1)
    after = _weights(rank)
    error = sum(float((before[n] - after[n] - g).norm() ** 2) for n, g in expected.items()) ** 0.5
    whole = sum(float(gradient.norm() ** 2) for gradient in expected.values()) ** 0.5
    yield at_most("gradient", error / whole, _GRADIENT_ERROR[dtype])
    yield true("a gradient that is not finite is refused and changes no weight", _refuses_infinity(rank, sequences))
    yield true("save and load, bit-equal", _saves(start, sequences, folder))


def _refuses_infinity(rank: LearnerRank, sequences: list[TrainingSequence]) -> bool:
    before = _weights(rank)
    broken = replace(sequences[4], advantage=1e39)  # infinite in float32
    try:
        rank.train_step(*_step([*sequences[:4], broken, *sequences[5:]]), 2)
    except RunError:
        return _same(before, _weights(rank))
    return False


def _saves(start: Any, sequences: list[TrainingSequence], folder: Path) -> bool:
    """Weights, master weights and moments after two steps of AdamW."""
    rank = start(LearnerRank, 1e-2)
    for number in (1, 2):
        rank.train_step(*_step(sequences), number)
    rank.save(folder)
    resumed = start(LearnerRank, 1e-2)
    changed = not _same(_weights(rank), _weights(resumed))  # else the comparison below would show nothing
    resumed.load(folder)
    return changed and _same(_state(rank), _state(resumed))


def _started(
    scratch: str, model: str, device: str, dtype: str, stage: int, kind: type[LearnerRank], rate: float
) -> LearnerRank:
    config = RunConfig.model_validate(
        {
            "run": {"name": "rank", "folder": scratch, "steps": 10},
            "model": {"path": model, "dtype": dtype},
            "data": {"path": "toy"},
            "rollout": {
                "problems_per_step": 3, "completions_per_problem": 3, "max_prompt_tokens": 16, "temperature": 1.0,
                "max_completion_tokens": _TOKENS,
            },
            "learner": {
                "zero_stage": stage, "learning_rate": rate, "schedule": "constant", "warmup_share": 0.0,
                "max_grad_norm": 1e9, "micro_batch_tokens": 256, "logprob_chunk_tokens": 50,
            },
            "placement": {"num_rollout_gpus": 1, "num_learner_gpus": 1},
        }
    )  # fmt: skip
    rank = kind(config, model, 0, 1, device)
    rank.start(*rank.address())
    return rank


def _reference(model: str) -> tuple[list[TrainingSequence], Weights]:
    """Random sequences with their own log-probabilities, and the gradient of the loss: ratios are 1, so nothing is clipped."""
    plain = read_model(model, torch.float64, "eager")
    rng = np.random.default_rng(0)
    sequences, loss = [], torch.zeros((), dtype=torch.float64)
    for i in range(_COUNT):
        ids = rng.integers(0, plain.config.vocab_size, int(rng.integers(8, _TOKENS))).astype(np.int32)
        prompt, completion = ids[: 1 + i % 4], ids[1 + i % 4 :]
        table = plain(torch.from_numpy(ids).long()[None]).logits[0].log_softmax(-1)
        places = torch.arange(len(prompt), len(ids))
        logprobs = table[places - 1, torch.from_numpy(completion).long()]
        advantage = float(rng.normal())
        loss = loss - advantage * (logprobs - logprobs.detach()).exp().sum()
        sequences.append(TrainingSequence(prompt, completion, logprobs.detach().float().numpy(), advantage))
    (loss / sum(len(s.completion_ids) for s in sequences)).backward()
    return sequences, {name: parameter.grad for name, parameter in plain.named_parameters()}


def _step(sequences: Sequence[TrainingSequence]) -> tuple[list[MicroBatch], int]:
    return split(sequences, 1, micro_batch_tokens=256)[0], sum(len(s.completion_ids) for s in sequences)


def _weights(rank: LearnerRank) -> Weights:
    """On the CPU in float64: the float32 masters, where there are any."""
    from deepspeed.utils import safe_get_full_fp32_param

    return {n: safe_get_full_fp32_param(p).double().cpu() for n, p in rank.policy.model.named_parameters()}


def _state(rank: LearnerRank) -> Weights:
    """The moments as the optimizer has them, which the model is too small to have in several parts."""
    parts = rank.engine.optimizer.optimizer.state.values()
    moments = {
        f"moment {name} {part}": tensor.cpu().clone()
        for part, state in enumerate(parts)
        for name, tensor in state.items()
    }
    used = {
        f"{spec.name}.used": tensor.cpu().clone()
        for bucket, tensors in rank.full_parameters(1 << 24)
        for spec, tensor in zip(bucket.parameters, tensors, strict=True)
    }
    assert moments, "no moments to compare"
    return _weights(rank) | moments | used


def _same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
