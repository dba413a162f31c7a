"""Recorded log-probabilities beside those of transformers, with prompts made from what lies beside a policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from openrs_ray.export.prompting import Prompting


def recorded_gaps(
    folder: Path, rows: Sequence[dict[str, Any]], dtype: torch.dtype, told_by: Path | None = None
) -> np.ndarray:
    """How far the record's rows of one turn are from the model in a folder, token by token.

    Args:
        told_by: the folder whose prompt.json says how to prompt (default: the model's).
    """
    tokenizer, told = AutoTokenizer.from_pretrained(folder), Prompting.read(told_by or folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    assert told is not None
    gaps = []
    for row in rows:
        asked = told.first.messages(row["problem"])
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        gaps.append(np.abs(logprobs(model, prompt, row["token_ids"]) - np.array(row["logprobs"])))
    return np.concatenate(gaps)


@torch.no_grad()
def logprobs(model: PreTrainedModel, prompt: Sequence[int], completion: Sequence[int]) -> np.ndarray:
    """Of a completion's tokens, without a cache; logits in the model's format, softmax in float32."""
    ids = torch.tensor([[*prompt, *completion]])
    table = model(ids).logits[0].float().log_softmax(-1)
    return np.array([float(table[place - 1, ids[0, place]]) for place in range(len(prompt), ids.shape[1])])
