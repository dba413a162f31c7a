"""Text as it comes: whole characters only, once each, without the stop token."""

import torch
from chat_templates import QWEN25, tokenizer_with

from openrs_ray.data.completions import Decoder
from openrs_ray.export.conversation import Spoken


def test_pieces_are_whole_characters_and_together_the_text() -> None:
    tokenizer = tokenizer_with(QWEN25, "<|im_end|>")
    text = "Größe: 你好 😀\n\nthe answer is <|User|>42\nand so on"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text) / 2, "several tokens for one character"
    pieces: list[str] = []
    spoken = Spoken(Decoder.of(tokenizer), [tokenizer.eos_token_id], pieces.append)
    spoken.put(torch.tensor([[5, 6, 7]]))  # the prompt
    for token in [*ids, tokenizer.eos_token_id]:
        spoken.put(torch.tensor([token]))
    spoken.end()
    assert "".join(pieces) == text == "".join(spoken.pieces)
    assert len(pieces) > 10 and not any("\ufffd" in piece for piece in pieces)
