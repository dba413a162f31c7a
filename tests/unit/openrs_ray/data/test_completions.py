"""Texts of rollouts equal those that transformers decodes one by one, also in a process that never imports it."""

import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from places import ROOT
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from openrs_ray.data.completions import Decoder, RolloutDecoder, completion_texts
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Completion, Rollout, VersionSpan

WORDS = [
    "<pad>",
    "<end>",
    "<|stop|>",
    "<think>",
    "</think>",
    "a",
    "b",
    " ",
    "é",
    "ĠĠ",
    "Ġc",
    "2",
    "+",
    "?",
    ".",
    "##d",
    "n't",
]


def qwen() -> PreTrainedTokenizerFast:
    made = Qwen2Tokenizer(vocab={word: place for place, word in enumerate(WORDS)}, merges=[])
    made.add_special_tokens({"pad_token": "<pad>", "eos_token": "<end>"})
    made.add_special_tokens({"additional_special_tokens": ["<|stop|>", "<think>", "</think>"]})
    return made


def cleaning() -> PreTrainedTokenizerFast:
    """Word pieces, whose spaces transformers changes after the library has decoded them."""
    pieces = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="a"))
    pieces.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", eos_token="<end>", clean_up_tokenization_spaces=True
    )


TOKENIZERS = {"qwen": qwen, "toy": make_tokenizer, "cleaning": cleaning}


def one_by_one(completions: Iterable[Iterable[int]], tokenizer: Any, end_ids: Sequence[int]) -> list[str]:
    """The plain way: transformers decodes each completion up to its first stop token."""
    kept = [
        [int(i) for i in takewhile(lambda i: int(i) not in end_ids, ids) if int(i) != tokenizer.pad_token_id]
        for ids in completions
    ]
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in kept]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_are_those_of_transformers_byte_for_byte(name: str) -> None:
    tokenizer, rng = TOKENIZERS[name](), np.random.default_rng(0)
    completions = [rng.integers(0, len(tokenizer), rng.integers(0, 40)).astype(np.int32) for _ in range(300)]
    for ends in ((), (1,), (2, 1)):
        expected = one_by_one(completions, tokenizer, ends)
        assert completion_texts(completions, tokenizer, ends) == expected
        moved = pickle.loads(pickle.dumps(Decoder.of(tokenizer)))
        assert moved.texts(completions, ends) == expected, "and so does one that has travelled to an actor"
    assert len({*expected}) > 200


def test_transformers_itself_decodes_where_it_changes_what_the_library_makes() -> None:
    assert [Decoder.of(make()).light for make in TOKENIZERS.values()] == [True, True, False]
    words = [[5, 14], [5, 16]]
    assert cleaning()._tokenizer.decode_batch(words) != (cleaned := completion_texts(words, cleaning(), ()))
    assert cleaned == ["a.", "an't"]


def test_rollouts_of_one_turn_and_of_several_have_all_their_texts() -> None:
    decode = RolloutDecoder(Decoder.of(qwen()), (1, 2), "<think>")

    def turn(*ids: int) -> Completion:
        spans = (VersionSpan(0, 0, len(ids)),)
        return Completion(0, 0, np.array(ids, np.int32), np.zeros(len(ids), np.float32), "stop", spans, 0)

    one, several = decode([Rollout.of([turn(5, 4, 6, 2, 5)]), Rollout.of([turn(5, 1), (2, 3), turn(6, 4, 5, 1)])])
    assert (one.whole, one.judged, one.turns) == ("<think>a</think>b", "<think>a</think>b", ())
    assert several.whole == "<think>a<end><|stop|><think>b</think>a"
    assert several.judged == "<think>b</think>a" and several.turns == ("<think>a", "<think>b</think>a")


def test_the_reward_pools_process_needs_no_transformers() -> None:
    content = pickle.dumps(RolloutDecoder(Decoder.of(qwen()), (1,), ""))
    script = (
        "import pickle, sys, numpy as np\nimport actors.pools.reward\nfrom types import SimpleNamespace as S\n"
        "decode = pickle.loads(sys.stdin.buffer.read())\n"
        "(texts,) = decode([S(token_ids=np.array([5, 6, 1]), sampled=np.ones(3, bool))])\n"
        "assert texts.whole == 'ab' and not {'transformers', 'torch'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", script], input=content, cwd=ROOT, check=True, timeout=60)
