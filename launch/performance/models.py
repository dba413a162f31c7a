"""Random models to measure with, made on first use and cached: their speed is that of a trained model of the same shape."""

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from openrs_ray.models.bundled import cached


@dataclass(frozen=True, slots=True)
class Shape:
    """A Qwen2, as transformers names its sizes."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool = False


SHAPES = {
    # DeepSeek-R1-Distill-Qwen-1.5B: 1.78 billion parameters.
    "random-1.5b": Shape(1536, 28, 12, 2, 8960, 151_936),
    # Qwen2.5-0.5B: 0.49 billion parameters.
    "random-0.5b": Shape(896, 24, 14, 2, 4864, 151_936, tie_word_embeddings=True),
    # As small as vLLM's attention takes, for dry runs on a CPU.
    "tiny": Shape(64, 2, 2, 1, 96, 512),
}


def model_path(name: str) -> Path:
    """Folder of a random model with its tokenizer; made first where it is not in the cache (a minute for 1.5b)."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return cached(name, {**asdict(SHAPES[name]), "code": code}, partial(_build, shape=SHAPES[name]))


def _build(folder: Path, shape: Shape) -> None:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config

    from openrs_ray.models.toy.tokenizer import END, PAD, ROLES, UNKNOWN, tokenizer_of

    # One token per byte, then words that nothing is encoded to, so that every sampled id has a text to decode.
    tokens = [PAD, END, UNKNOWN, *ROLES, *sorted(ByteLevel.alphabet())]
    tokens += [f"Ġw{index}" for index in range(len(tokens), shape.vocab_size)]
    tokenizer = tokenizer_of(tokens)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        Qwen2Config(**asdict(shape), max_position_embeddings=32768, bos_token_id=None, **special),
        dtype=torch.bfloat16,
    )
    model.generation_config = GenerationConfig(do_sample=True, **special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
