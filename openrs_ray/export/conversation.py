"""A conversation with a policy through transformers, prompted as in training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from openrs_ray.data.completions import UNFINISHED, Decoder
from openrs_ray.data.turns import Message
from openrs_ray.errors import UserError
from openrs_ray.export.prompting import TaskPrompt
from openrs_ray.models.templating import rendered

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Example: Sampling(end_ids=(0,), temperature=0.0, max_tokens=128)"""

    end_ids: tuple[int, ...]
    temperature: float
    """0: greedy."""
    max_tokens: int

    def generation_config(self) -> GenerationConfig:
        """Whole: of a model's own, which may cut the distribution, nothing is left."""
        sampled = {"do_sample": True, "temperature": self.temperature, "top_p": 1.0, "top_k": 0}
        return GenerationConfig(
            **(sampled if self.temperature else {"do_sample": False}),
            max_new_tokens=self.max_tokens,
            eos_token_id=list(self.end_ids),
            pad_token_id=self.end_ids[0],
            use_cache=True,
        )


@dataclass
class Conversation:
    """Life cycle: ask() for each turn of the user; begin_anew() forgets the turns so far."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt: TaskPrompt
    sampling: Sampling
    turns: list[Message] = field(default_factory=list)
    """With the prompt's suffix, without system prompt and examples, which `prompt` puts before them."""

    def ask(self, text: str, say: Say) -> str:
        """The answer, said piece by piece as it comes. UserError for a turn that the model has no room for."""
        ids = self._ids(self._asked(text))
        if ids.shape[1] >= self._room:
            raise UserError(f"{ids.shape[1]} tokens are too many for this model, which takes {self._room}")
        config = self.sampling.generation_config()
        config.max_new_tokens = min(self.sampling.max_tokens, self._room - ids.shape[1])
        self.model.generation_config = config
        spoken = Spoken(Decoder.of(self.tokenizer), self.sampling.end_ids, say)
        with torch.inference_mode():
            self.model.generate(ids, attention_mask=torch.ones_like(ids), streamer=spoken)
        answer = "".join(spoken.pieces)
        shown = {"role": "user", "content": text + self.prompt.suffix}
        self.turns += [shown, {"role": "assistant", "content": answer}]
        return answer

    def fits(self, text: str) -> bool:
        """True where the turns so far leave room for another and its answer."""
        return int(self._ids(self._asked(text)).shape[1]) + self.sampling.max_tokens <= self._room

    def _asked(self, text: str) -> list[Message]:
        return self.prompt.messages((*self.turns, {"role": "user", "content": text}))

    def begin_anew(self) -> None:
        self.turns.clear()

    @property
    def _room(self) -> int:
        """Tokens that the model takes."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    def _ids(self, asked: Sequence[Message]) -> torch.Tensor:
        (text,) = rendered(self.tokenizer, [list(asked)], tools=self.prompt.tools)
        ids: torch.Tensor = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return ids.to(self.model.device)


class Spoken:
    """Hands on an answer's text as its tokens come, without the stop token that ends it; a streamer of transformers."""

    def __init__(self, decoder: Decoder, end_ids: Sequence[int], say: Say) -> None:
        self._decoder, self._end_ids, self._say = decoder, {*end_ids}, say
        self._line: list[int] = []
        self._said = 0
        """Characters of the line."""
        self._began = False
        self.pieces: list[str] = []

    def put(self, value: torch.Tensor) -> None:
        """Take the ids of the prompt first, then those of each token."""
        ids, prompt, self._began = value.flatten().tolist(), not self._began, True
        if prompt:
            return
        self._line += [token for token in ids if token not in self._end_ids]
        (text,) = self._decoder.decode([self._line])
        if not text.endswith(UNFINISHED):
            self._hand_on(text)

    def end(self) -> None:
        (text,) = self._decoder.decode([self._line])
        self._hand_on(text)

    def _hand_on(self, text: str) -> None:
        if new := text[self._said :]:
            self.pieces.append(new)
            self._say(new)
        self._said = len(text)
        if text.endswith("\n"):  # or each token would decode the whole answer
            self._line, self._said = [], 0
