"""GRPO on the toy in one process of plain PyTorch, with every token exactly k versions old, to test corrections at that age.

Only the loss is this project's. Sampling, rewards, advantages and the optimizer step are written out with transformers alone:
the quickstart's model and problems in a fraction of its time, without engines.
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrs_ray.algorithm.losses import LossInput, policy_loss
from openrs_ray.config.loss import Loss
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.toy.arithmetic import Sum, distinct

PROBLEMS, COMPLETIONS, TOKENS, HELD_OUT = 16, 8, 48, 300


@dataclass(frozen=True)
class Sampled:
    """All arrays [completions, ...]; the prompts are equally long."""

    ids: torch.Tensor
    prompt: int
    lengths: torch.Tensor
    """Sampled tokens, the end of the turn included."""
    logprobs: torch.Tensor
    correct: np.ndarray
    each: int
    """Completions of a prompt, which follow each other."""

    @property
    def mask(self) -> torch.Tensor:
        return torch.arange(self.logprobs.shape[1]) < self.lengths[:, None]


class Toy:
    def __init__(self, seed: int, folder: Path | None = None) -> None:
        start = folder or resolve_model("toy")
        self.tokenizer = AutoTokenizer.from_pretrained(start)
        self.model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
        torch.manual_seed(seed)

    @torch.no_grad()
    def sample(self, sums: list[Sum], each: int, temperature: float) -> Sampled:
        chats = [[{"role": "user", "content": one.text}] for one in sums for _ in range(each)]
        asked = [self.tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
        prompts = torch.tensor(asked)
        end = self.tokenizer.eos_token_id
        out = self.model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=TOKENS,
            pad_token_id=end,
            eos_token_id=end,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = out.sequences[:, prompts.shape[1] :]
        table = torch.stack(out.logits, dim=1).float().log_softmax(-1)
        ended = new == end
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1])
        texts = [self.tokenizer.decode(row[:n], skip_special_tokens=True) for row, n in zip(new, lengths, strict=True)]
        golds = [f"\\boxed{{{one.answer}}}" for one in sums for _ in range(each)]
        correct = np.array([text.strip().endswith(gold) for text, gold in zip(texts, golds, strict=True)], dtype=float)
        return Sampled(
            out.sequences, prompts.shape[1], lengths, table.gather(-1, new[..., None])[..., 0], correct, each
        )

    def loss(self, batch: Sampled, loss: Loss) -> tuple[torch.Tensor, dict[str, float]]:
        logits = self.model(batch.ids).logits[:, batch.prompt - 1 : -1].float()
        new = batch.ids[:, batch.prompt :]
        return mean_loss(loss_input(batch, logits.log_softmax(-1).gather(-1, new[..., None])[..., 0][batch.mask]), loss)


def loss_input(batch: Sampled, logprobs: torch.Tensor) -> LossInput:
    """`logprobs`: [sampled tokens], with gradient."""
    rewards = 2.0 * batch.correct.reshape(-1, batch.each)
    centred = rewards - rewards.mean(1, keepdims=True)
    advantages = torch.tensor(centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)).reshape(-1, 1)
    mask, lengths = batch.mask, tuple(batch.lengths.tolist())
    return LossInput(logprobs, batch.logprobs[mask], advantages.expand(mask.shape)[mask].float(), lengths)


def mean_loss(tokens: LossInput, loss: Loss) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss per token, and its sums."""
    out = policy_loss(tokens, loss)
    return out.total / len(tokens.logprobs), {name: float(value) for name, value in out.sums.items()}


@dataclass(frozen=True)
class Trained:
    held_out: np.ndarray
    """float64 [problems, 1] after the last step."""
    mismatch: list[float]
    """k3 per token, of each step."""
    effective: list[float]
    masked: list[float]
    rewarded: list[float]
    """Share of right answers in each step's samples."""
    lines: list[dict[str, float]]
    """Figures of each step, by their names in `metrics.jsonl`."""


def _line(batch: Sampled, sums: dict[str, float]) -> dict[str, float]:
    lengths, solved = batch.lengths.numpy(), batch.correct.reshape(-1, batch.each).mean(1)
    return {
        "accuracy": float(batch.correct.mean()),
        "groups_with_spread": float(((solved > 0) & (solved < 1)).sum()),
        "truncated_share": float((lengths == TOKENS).mean()),
        "mean_length": float(lengths.mean()),
        **{name: sums[name] / sums["tokens"] for name in ("mismatch_kl", "entropy")},
    }


def train(seed: int, staleness: int, loss: Loss, steps: int, rate: float) -> Trained:
    """Linear fall of the rate to 2 %, as in the quickstart; each batch is learned from when it is `staleness` versions old."""
    toy = Toy(seed)
    sums = distinct("train", PROBLEMS * steps, seed)
    optimizer = torch.optim.AdamW(toy.model.parameters(), lr=rate, weight_decay=0.0)
    waiting: deque[Sampled] = deque()
    seen = Trained(np.zeros((HELD_OUT, 1)), [], [], [], [], [])
    for step in range(steps):
        for number in range(step + staleness if step else 0, min(step + staleness + 1, steps)):
            waiting.append(toy.sample(sums[PROBLEMS * number : PROBLEMS * (number + 1)], COMPLETIONS, 1.0))
        batch = waiting.popleft()
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - 0.98 * (step + 1) / steps)
        optimizer.zero_grad()
        total, figures = toy.loss(batch, loss)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(toy.model.parameters(), 1.0)
        optimizer.step()
        seen.mismatch.append(figures["mismatch_kl"] / figures["tokens"])
        seen.effective.append(figures["ratio"] ** 2 / (figures["tokens"] * figures["ratio_squared"]))
        seen.masked.append(figures["masked_sequences"] / figures["sequences"])
        seen.rewarded.append(float(batch.correct.mean()))
        seen.lines.append({"step": step + 1, "grad_norm": float(norm), **_line(batch, figures)})
    seen.held_out[:, 0] = toy.sample(distinct("heldout", HELD_OUT, 0), 1, 0.6).correct
    return seen
