"""Makes the toy model: a small Qwen2 taught by supervised learning until it is right about half the time.

It is taught right solutions first, then solutions that mostly forget every carry. Both procedures are then in the model and
the wrong one is preferred: reinforcement has something to reverse. The same settings give the same weights on the same
machine: random state and number of threads are its own.

The calculator's toy is taught further from that: it asks for one sum in four, and forgets every carry in the others.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    get_cosine_schedule_with_warmup,
)

from openrs_ray.models.toy.arithmetic import Sum, draw, solution
from openrs_ray.models.toy.tokenizer import make_tokenizer

IGNORED = -100
"""Label that the loss ignores."""


@dataclass(frozen=True, slots=True)
class ToySettings:
    """Shape and teaching of the toy. The defaults make 1.19 million parameters, taught in a minute on two cores."""

    hidden: int = 192
    feed_forward: int = 512
    layers: int = 3
    heads: int = 6
    """Each of 32 dimensions, the smallest head of vLLM's attention."""
    key_value_heads: int = 2
    right_steps: float = 0.7
    """Share of the steps, from the first, in which every solution is right."""
    wrong_share: float = 0.65
    """Share of solutions that forget the carries afterwards."""
    asks_share: float = 0.0
    """Share of the sums that a calculator is asked for, by a turn that ends with "="."""
    steps: int = 800
    batch: int = 20
    learning_rate: float = 1.5e-3
    """Peak; at twice as much some seeds learn nothing."""
    seed: int = 0
    threads: int = 2


CALCULATOR = ToySettings(right_steps=0.0, wrong_share=1.0, asks_share=0.25, steps=200, learning_rate=1e-3)
"""Teaching of the taught toy to ask a calculator, in half a minute."""


def build_toy(folder: Path, settings: ToySettings, start: Path | None = None) -> None:
    """Teaches a new model, or that of `start`, and writes it with its tokenizer to `folder`, as a transformers model."""
    tokenizer = make_tokenizer()
    model = teach(settings, tokenizer, start)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def teach(settings: ToySettings, tokenizer: Qwen2Tokenizer, start: Path | None = None) -> Qwen2ForCausalLM:
    """Taught model, float32, in evaluation mode."""
    with _own_randomness(settings):
        model = _new_model(settings, tokenizer)
        if start is not None:
            model.load_state_dict(load_file(start / "model.safetensors"))
        problems = random.Random(settings.seed)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        schedule = get_cosine_schedule_with_warmup(optimizer, settings.steps // 20, settings.steps)
        for step in range(settings.steps):
            ids, labels = batch(settings.batch, wrong_share(step, settings), tokenizer, problems, settings.asks_share)
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


@contextmanager
def _own_randomness(settings: ToySettings) -> Iterator[None]:
    """Seeds torch and fixes its threads, and restores both afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _new_model(settings: ToySettings, tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            intermediate_size=settings.feed_forward,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.key_value_heads,
            max_position_embeddings=tokenizer.model_max_length,
            tie_word_embeddings=False,
            bos_token_id=None,
            dtype="float32",
            **special,
        )
    )
    model.generation_config = GenerationConfig(do_sample=True, **special)
    return model


def wrong_share(step: int, settings: ToySettings) -> float:
    """Share of the solutions of `step` (from 0) that forget the carries."""
    return settings.wrong_share if step >= settings.right_steps * settings.steps else 0.0


def batch(
    size: int, wrong: float, tokenizer: Qwen2Tokenizer, problems: random.Random, asks: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """New problems: a share `asks` for a calculator, the others with solutions of which a share `wrong` forgets the carries.

    Returns ids and labels, int64 [size, longest], right-padded; no labels on what the model does not say.
    """
    rows = [
        _asking(tokenizer, problem)
        if asks and problems.random() < asks
        else _example(tokenizer, problem, carries=problems.random() >= wrong)
        for problem, _ in zip(draw("teach", problems), range(size), strict=False)
    ]
    longest = max(len(row) for row, _ in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), IGNORED)
    for row, (tokens, said) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(tokens)] = torch.where(torch.tensor(said), ids[row, : len(tokens)], IGNORED)
    return ids, labels


def _example(tokenizer: Qwen2Tokenizer, problem: Sum, *, carries: bool) -> tuple[list[int], list[bool]]:
    """Token ids of prompt and response, and which of them the model says; the end of the turn is one."""
    prompt = _prompt(tokenizer, [{"role": "user", "content": problem.text}])
    response = _turn(tokenizer, solution(problem, carries=carries))
    return prompt + response, [False] * len(prompt) + [True] * len(response)


def _asking(tokenizer: Qwen2Tokenizer, problem: Sum) -> tuple[list[int], list[bool]]:
    """The same with two turns, and a calculator's result between them."""
    conversation = [{"role": "user", "content": problem.text}]
    prompt, question = _prompt(tokenizer, conversation), _turn(tokenizer, f"{problem.text}=")
    asked = {"role": "assistant", "content": f"{problem.text}="}
    whole = _prompt(tokenizer, [*conversation, asked, {"role": "user", "content": str(problem.answer)}])
    given = len(whole) - len(prompt) - len(question)
    answer = _turn(tokenizer, f"\\boxed{{{problem.answer}}}")
    said = [False] * len(prompt) + [True] * len(question) + [False] * given + [True] * len(answer)
    return whole + answer, said


def _prompt(tokenizer: Qwen2Tokenizer, conversation: list[dict[str, str]]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
    return ids


def _turn(tokenizer: Qwen2Tokenizer, text: str) -> list[int]:
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
