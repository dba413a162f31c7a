"""Asks a model about many problems, in chunks, on engines that hold its own weights.

One more chunk than there are engines is asked at once: no engine waits for the last reply of a chunk.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from actors.cluster.placement import place_engines
from actors.rollout.loaded import loaded_engines
from actors.rollout.pool import EnginePool
from actors.rollout.settings import EngineSettings
from actors.rollout.worker import Request
from openrs_ray.curation.fates import Reply
from openrs_ray.curation.pipeline import Question, Tell
from openrs_ray.curation.recipe import Judged, Recipe, Solved
from openrs_ray.data.completions import completion_texts
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.pretrained import read_config, read_tokenizer
from openrs_ray.models.stop_tokens import stop_tokens
from openrs_ray.records import Completion

_Chunk = Sequence[Question]


async def ask(
    recipe: Recipe, stage: Solved | Judged, questions: _Chunk, tell: Tell, report: Callable[[str], None]
) -> None:
    """Ask all questions in the connected cluster.

    `tell` takes the replies to a finished chunk, from one thread at a time. UserError when the cluster has no place for the
    engines, RunError when they did not start, broke, or were late.
    """
    path = resolve_model(stage.model)
    tokenizer = read_tokenizer(path)
    vocabulary = read_config(path).get_text_config().vocab_size
    end_ids = tuple(token.id for token in stop_tokens(path, vocabulary, tokenizer))
    settings = _settings(recipe, stage, path, end_ids)
    chunks = iter([questions[start : start + recipe.chunk] for start in range(0, len(questions), recipe.chunk)])
    telling = asyncio.Lock()

    async def work(pool: EnginePool) -> None:
        for chunk in chunks:  # shared: each is asked once
            completions = [completion async for completion in pool.completions(_requests(stage, chunk))]
            async with telling:
                await asyncio.to_thread(_hand_on, completions, tokenizer, end_ids, tell)

    placement = place_engines(recipe.placement, recipe.engine)
    async with loaded_engines(settings, placement, report) as pool:
        tasks = [asyncio.create_task(work(pool)) for _ in range(len(placement.layout.rollout) + 1)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


def _settings(recipe: Recipe, stage: Solved | Judged, path: str, end_ids: tuple[int, ...]) -> EngineSettings:
    return EngineSettings(
        engine=recipe.engine,
        model_path=path,
        end_ids=end_ids,
        max_sequence_tokens=stage.max_prompt_tokens + stage.max_tokens,
        dtype=stage.dtype,
        seed=recipe.seed,
        deadline_s=recipe.chunk_deadline_s,
        deadline_field="chunk_deadline_s",
    )


def _requests(stage: Solved | Judged, chunk: _Chunk) -> list[Request]:
    return [
        Request(question.row, sample, question.prompt_ids, seed, stage.temperature, stage.max_tokens, stage.top_p)
        for question in chunk
        for sample, seed in enumerate(question.seeds)
    ]


def _hand_on(
    completions: Sequence[Completion], tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int], tell: Tell
) -> None:
    ordered = sorted(completions, key=lambda completion: (completion.position, completion.sample))
    texts = completion_texts([completion.token_ids for completion in ordered], tokenizer, end_ids)
    replies: dict[int, list[Reply]] = defaultdict(list)
    for said, text in zip(ordered, texts, strict=True):
        ids = said.token_ids.tolist()
        replies[said.position].append(Reply(text, len(ids), said.finish_reason, ids, said.worker))
    tell({row: tuple(several) for row, several in replies.items()})
