r"""Tokenizer of the toy: one token per character, and one each for `<think>`, `</think>` and `\boxed{`.

A Qwen2Tokenizer, because transformers loads that for every Qwen2 model. Roles, padding and end of turn are special tokens;
the think tags are not, so that they stay in decoded text, where the rewards look for them. Other characters are dropped.
"""

from collections.abc import Sequence

from transformers import AddedToken, Qwen2Tokenizer

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
WORDS = ("<think>", "</think>", "\\boxed{")
CHARACTERS = "0123456789+=;}.ĠĊ"
"""In the spelling of byte-level BPE: the last two are a space and a line break."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer() -> Qwen2Tokenizer:
    """Tokenizer with its chat template."""
    tokenizer = tokenizer_of((PAD, END, UNKNOWN, *ROLES, *WORDS, *CHARACTERS), model_max_length=256)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS])
    return tokenizer


def tokenizer_of(tokens: Sequence[str], **settings: int) -> Qwen2Tokenizer:
    """Tokenizer without merges, with the chat template; `tokens` by id, special ones and roles among them."""
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        **settings,
    )
