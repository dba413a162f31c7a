"""Rollouts of several turns: the model's own, and between them the answers of an environment."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from jinja2 import TemplateError

from openrs_ray.data.completions import completion_texts, response_prefix
from openrs_ray.environments.between import Between
from openrs_ray.environments.environment import Engines
from openrs_ray.environments.reply import Answer, Asked, Message, RolloutFailed
from openrs_ray.records import FAILED_ENVIRONMENT, Completion, Problem, Rollout, Status

Ask = Callable[[Asked], Awaitable[Answer]]
"""Answers a turn in a process of its own, over the loss of it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    turns: int
    turn_tokens: int | None
    """Of one turn; None: only all tokens are bounded."""


@dataclass(frozen=True)
class TurnByTurn:
    """Asks the model, then the environment, then the model, until the environment has no more to say or a bound is met.

    A rollout that a bound has ended has the finish reason "length".
    """

    between: Between
    ask: Ask
    bounds: Bounds

    async def rollout(self, problem: Problem, engines: Engines) -> Rollout:
        """RolloutFailed, with the turns so far, when the environment fails."""
        talk = _Talk(problem)
        while True:
            turn = await engines.sample(talk.ids, self.bounds.turn_tokens)
            talk.said(turn, self._text(talk.ids, turn))
            if turn.finish_reason == "length":
                return talk.rollout()
            answer = await self.ask(talk.asked())
            if answer.failed is not None:
                raise RolloutFailed(talk.rollout(), answer.failed, f"{FAILED_ENVIRONMENT}{answer.detail}")
            if not answer.messages:
                return talk.rollout()
            room = len(problem.prompt_ids) + engines.max_tokens - len(talk.ids)
            try:
                given = self.between.ids(turn.token_ids.tolist(), answer.messages, room)
            except TemplateError as error:
                refused = f"{FAILED_ENVIRONMENT}the chat template does not take its messages: {error}"
                raise RolloutFailed(talk.rollout(), Status.ERROR, refused) from error
            if given is None or talk.number_of_turns == self.bounds.turns:
                return replace(talk.rollout(), finish_reason="length")
            talk.given(given, answer)

    def _text(self, before: Sequence[int], turn: Completion) -> str:
        """With the `<think>` that the template has written before the turn."""
        tokenizer = self.between.tokenizer
        (text,) = completion_texts([turn.token_ids], tokenizer, self.between.end_ids)
        return response_prefix(tuple(before[-8:]), tokenizer) + text


@dataclass
class _Talk:
    """One rollout in the making."""

    problem: Problem
    turns: list[Completion | Sequence[int]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """All tokens, the prompt's first."""
    state: bytes | None = None
    number_of_turns: int = 0
    sampled_tokens: int = 0

    def __post_init__(self) -> None:
        self.ids += self.problem.prompt_ids
        self.messages.append({"role": "user", "content": self.problem.text})

    def said(self, turn: Completion, text: str) -> None:
        self.turns.append(turn)
        self.messages.append({"role": "assistant", "content": text})
        self.ids += map(int, turn.token_ids)
        self.number_of_turns += 1
        self.sampled_tokens += len(turn.token_ids)

    def given(self, ids: Sequence[int], answer: Answer) -> None:
        self.turns.append(ids)
        self.messages += answer.messages
        self.ids += ids
        self.state = answer.state

    def asked(self) -> Asked:
        about = self.problem
        return Asked(
            about.task, about.text, about.gold, about.row, tuple(self.messages), self.sampled_tokens, self.state
        )

    def rollout(self) -> Rollout:
        return Rollout.of(self.turns)
