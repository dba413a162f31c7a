"""Engines that say what a test has them say, turn after turn."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Completion, Problem, VersionSpan

TOKENIZER = make_tokenizer()
PROBLEM = Problem(0, "12+30", tuple(TOKENIZER("<|user|>12+30<|assistant|>")["input_ids"]), ("42",))


class Played:
    """Says one line after another, each by a newer policy."""

    def __init__(self, *lines: str, tokenizer: PreTrainedTokenizerBase = TOKENIZER, end: str = "<|end|>") -> None:
        self.lines = [tokenizer(line + end)["input_ids"] for line in lines]
        self.tokenizer = tokenizer
        self.asked: list[tuple[str, int | None]] = []
        self.max_tokens = 4000

    async def sample(self, prompt_ids: Sequence[int], max_tokens: int | None = None) -> Completion:
        ids = np.array(self.lines[len(self.asked)], dtype=np.int32)
        version = VersionSpan(len(self.asked), 0, len(ids))
        self.asked.append((self.tokenizer.decode(list(prompt_ids)), max_tokens))
        return Completion(40, 3, ids, np.full(len(ids), -0.5, dtype=np.float32), "stop", (version,), len(self.asked))
