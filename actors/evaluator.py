"""Samples, checks and soon writes the missing completions of an evaluated model."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.data.completions import Decoder, completion_texts
from openrs_ray.evaluation.benchmarks import Task
from openrs_ray.evaluation.check import Answered
from openrs_ray.evaluation.protocol import Protocol
from openrs_ray.evaluation.store import CompletionStore, Done
from openrs_ray.records import Completion, Verdict
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.single.language import language_share
from openrs_ray.seeds import completion_seed

_WRITE_S = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    benchmark: str
    task: Task
    sample: int

    def request(self, number: int, run_seed: int, how: Protocol) -> Request:
        """Its seed does not depend on the others."""
        problem = self.task.problem
        seed = completion_seed(run_seed, f"evaluation/{self.benchmark}", 0, problem.index, self.sample)
        return Request(number, self.sample, problem.prompt_ids, seed, how.temperature, how.max_tokens, how.top_p)


@dataclass(frozen=True)
class Reading:
    """Makes texts of token ids."""

    tokenizer: PreTrainedTokenizerBase
    opening: str
    """The chat template's beginning of every answer."""

    def text(self, completion: Completion, end_ids: Sequence[int]) -> str:
        return self.opening + completion_texts([completion.token_ids], self.tokenizer, end_ids)[0]

    def prompts(self, wanted: Sequence[Wanted]) -> dict[tuple[int, ...], str]:
        """By token ids."""
        ids = [*dict.fromkeys(want.task.problem.prompt_ids for want in wanted)]
        return dict(zip(ids, Decoder.of(self.tokenizer).decode(ids), strict=True))


async def sample(
    engines: EnginePool,
    settings: EngineSettings,
    reading: Reading,
    protocol: Protocol,
    wanted: Sequence[Wanted],
    store: CompletionStore,
    checks: CheckPool[Answered, Verdict],
    progress: Callable[[int, int], None],
) -> None:
    """Sample, check and write everything wanted, by engines that have been started with `settings`.

    `progress` gets the completions and tokens so far. RunError when an engine failed or the deadline passed; finished
    completions are written.
    """
    requests = [want.request(i, settings.seed, protocol) for i, want in enumerate(wanted)]
    prompts = reading.prompts(wanted)
    finished: list[Done] = []
    ended = tokens = 0

    def flush() -> None:
        store.write(finished)
        finished.clear()
        progress(ended, tokens)

    async def flush_often() -> None:
        while True:
            await asyncio.sleep(_WRITE_S)
            flush()

    async def check(completion: Completion) -> None:
        nonlocal ended, tokens
        want, seed = wanted[completion.position], requests[completion.position].seed
        text = reading.text(completion, settings.end_ids)
        verdict = await _checked(want, text, checks)
        share, prompt = language_share(text, "en"), prompts[want.task.problem.prompt_ids]
        finished.append(Done(want.benchmark, want.task, completion, verdict, text, share, seed, prompt))
        ended, tokens = ended + 1, tokens + len(completion.token_ids)

    progress(0, 0)
    writer = asyncio.create_task(flush_often())
    working = {writer}
    try:
        async for completion in engines.completions(requests):
            working.add(asyncio.create_task(check(completion)))
            for task in [each for each in working if each.done()]:
                working.remove(task)
                task.result()  # a full disk, say
        await asyncio.gather(*working - {writer})
    finally:
        writer.cancel()
        await asyncio.gather(*working, return_exceptions=True)  # what has ended is checked and written in any case
        flush()


async def _checked(want: Wanted, text: str, checks: CheckPool[Answered, Verdict]) -> Verdict:
    answer = Answered(text, want.task.problem.gold, want.task.tolerance, want.task.answer, want.task.problem.row)
    return await asyncio.wrap_future(checks.submit(answer))
