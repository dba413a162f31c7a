"""Tiny random models and sequences, and a naive float64 reference, shared by the learner's tests."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.config.schema import RunConfig

VOCABULARY = 64
RECORDED_LOSSES: dict[str, dict[str, object]] = {
    "grpo": {"kl_beta": 0.3},
    "dapo": {"kind": "dapo", "correction": "token_mask", "entropy_weight": 0.1},
    "gspo": {"kind": "gspo", "kl_beta": 0.1},
    "cispo": {"kind": "cispo", "correction": "sequence_mask", "mask_ratio": 1.2},
    "sapo": {"kind": "sapo", "entropy_weight": 0.1, "kl_beta": 0.1},
}
"""Losses that are computed again from what the ranks keep of a step."""

# These models are so small that more threads only wait for each other: on a busy machine ten times slower.
torch.set_num_threads(1)


def save_model(
    folder: Path, family: str = "qwen2", tied: bool = False, kv_heads: int = 1, vocabulary: int = 64
) -> Path:
    """A random two-layer model with biases and norms that are not at their neutral start values."""
    kind = {"qwen2": Qwen2Config, "llama": LlamaConfig}[family]
    config = kind(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=kv_heads,
        head_dim=32, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def write_model(folder: Path, **changes: object) -> Path:
    """The configuration of a model with heads of 32, but for the changes."""
    folder.mkdir(parents=True)
    content = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "intermediate_size": 96, "vocab_size": 64,
        "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(content | changes))
    return folder


def make_sequences(count: int, seed: int = 0) -> list[TrainingSequence]:
    """Random tokens, the first sequence as short as can be; log-probabilities far enough off that ratios are clipped."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        prompt = rng.integers(0, VOCABULARY, rng.integers(1, 16) if i else 1).astype(np.int32)
        completion = rng.integers(0, VOCABULARY, rng.integers(1, 24) if i else 1).astype(np.int32)
        logprobs = (-4.5 + 0.5 * rng.normal(size=len(completion))).astype(np.float32)
        made.append(TrainingSequence(prompt, completion, logprobs, float(rng.normal())))
    return made


def make_turns(count: int, seed: int = 0) -> list[TrainingSequence]:
    """The same with one to four turns of sampled tokens and given ones between them; in some, two turns touch."""
    rng = np.random.default_rng(seed)
    made = []
    for sequence in make_sequences(count, seed):
        size = int(rng.integers(7, 24))
        cuts = np.sort(rng.choice(np.arange(1, size), int(rng.integers(0, 4)) * 2, replace=False))
        sampled = np.ones(size, dtype=np.bool_)
        for start, end in cuts.reshape(-1, 2):
            sampled[start:end] = False
        logprobs = np.where(sampled, -4.5 + 0.5 * rng.normal(size=size), 0.0).astype(np.float32)
        ids = rng.integers(0, VOCABULARY, size).astype(np.int32)
        made.append(TrainingSequence(sequence.prompt_ids, ids, logprobs, sequence.advantage, sampled))
    assert any(len(np.flatnonzero(np.diff(s.mask))) >= 4 for s in made), "one of three turns"
    return made


def make_temperatures(count: int) -> list[TrainingSequence]:
    """The same, sampled in turn at the temperatures of two stages."""
    return [replace(one, temperature=(0.5, 1.5, 1.5)[n % 3]) for n, one in enumerate(make_sequences(count))]


def make_config(folder: Path, ranks: int = 1, **changes: dict) -> RunConfig:
    """A small run on a CPU; `changes` by section."""
    sections: dict[str, dict] = {
        "run": {"name": "test", "folder": str(folder), "steps": 10},
        "model": {"path": str(folder), "dtype": "float32"},
        "data": {"path": "toy"},
        "rollout": {
            "problems_per_step": 4, "completions_per_problem": 4, "max_prompt_tokens": 16, "max_completion_tokens": 24,
        },
        "learner": {
            "learning_rate": 1.0, "warmup_share": 0, "schedule": "constant", "max_grad_norm": 1e9,
            "micro_batch_tokens": 64, "logprob_chunk_tokens": 7,
        },
        "placement": {"device": "cpu", "num_rollout_gpus": 1, "num_learner_gpus": ranks, "threads": 1},
    }  # fmt: skip
    for section, values in changes.items():
        sections[section] = values if isinstance(values, list) else {**sections.get(section, {}), **values}
    return RunConfig.model_validate(sections)


def naive_model(folder: Path) -> PreTrainedModel:
    """The model as plain transformers runs it, in float64, with attention written out."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")


def naive_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int], temperature: float = 1.0
) -> torch.Tensor:
    """One sequence alone, unpacked, with the full table of logits."""
    return _naive_table(model, prompt, completion, temperature)[range(len(completion)), list(map(int, completion))]


def naive_entropies(
    model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int], temperature: float = 1.0
) -> torch.Tensor:
    """The same for the entropy of the distribution that each token was one of."""
    table = _naive_table(model, prompt, completion, temperature)
    return -(table.exp() * table).sum(-1)


def _naive_table(
    model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int], temperature: float
) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary at each token of the completion."""
    ids = torch.tensor([*map(int, prompt), *map(int, completion)])
    logits = model(ids[None]).logits[0] / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


def naive_turns(model: PreTrainedModel, sequence: TrainingSequence, temperature: float = 1.0) -> torch.Tensor:
    """Of the sampled tokens, each turn alone: what comes before it is its prompt, and nothing that follows is there."""
    ids, edges = sequence.completion_ids, [0, *(np.flatnonzero(np.diff(sequence.mask)) + 1), len(sequence.mask)]
    turns = [(start, end) for start, end in pairwise(edges) if sequence.mask[start]]
    parts = [
        naive_logprobs(model, [*sequence.prompt_ids, *ids[:start]], ids[start:end], temperature) for start, end in turns
    ]
    return torch.cat(parts)
