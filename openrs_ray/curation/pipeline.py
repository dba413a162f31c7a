"""A curation: each stage once, a model's stages chunk by chunk, then the result."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from openrs_ray.config.rewards import Rewards
from openrs_ray.curation import fates
from openrs_ray.curation.fates import Candidate, Fate, Reply
from openrs_ray.curation.inputs import Inputs, prompts
from openrs_ray.curation.recipe import Boxed, Duplicates, Judged, Mix, Overlaps, Recipe, Solved
from openrs_ray.curation.store import Counts, CurationStore, Told
from openrs_ray.curation.texts import OverlapIndex
from openrs_ray.data.completions import Decoder
from openrs_ray.errors import UserError
from openrs_ray.records import Verdict
from openrs_ray.rewards.judge import WARM_UP, Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem
from openrs_ray.seeds import completion_seed


@dataclass(frozen=True, slots=True)
class Question:
    row: int
    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    """One for each reply."""


Replies = dict[int, tuple[Reply, ...]]
"""By row."""
Tell = Callable[[Replies], None]
Ask = Callable[[Solved | Judged, Sequence[Question], Tell], None]
"""Asks a stage's model; tells the replies chunk by chunk."""


@dataclass(frozen=True)
class Curation:
    """Example: Curation(recipe, inputs, CurationStore(recipe.place), ask, print).run()"""

    recipe: Recipe
    inputs: Inputs
    store: CurationStore
    ask: Ask
    say: Callable[[str], None]

    def run(self) -> list[Counts]:
        """Do the unfinished stages, write the result, and count. UserError where nothing is left or a mix lacks problems."""
        store, inputs = self.store, self.inputs
        store.open(inputs.asked)
        if not store.has(0, "sources"):
            store.write(0, "sources", inputs.candidates, inputs.fates)
        counts = [store.counts(0, "sources", self.recipe.paper)]
        candidates = store.kept(0, "sources")
        for number, (name, stage) in enumerate(self.recipe.stages.items(), start=1):
            if not store.has(number, name):
                store.write(number, name, candidates, self._fates(number, name, candidates))
            counts.append(store.counts(number, name, stage.paper))
            candidates = store.kept(number, name)
            self.say(f"{name}: {counts[-1].kept:,} of {counts[-1].entered:,} problems kept")
            if not candidates:
                raise UserError(f"stage {name} dropped every problem; {store.folder} has the reason of each")
        store.finish(candidates)
        return counts

    def _fates(self, number: int, name: str, candidates: Sequence[Candidate]) -> list[Fate]:
        stage = self.recipe.stages[name]
        match stage:
            case Boxed():
                return fates.boxed(candidates)
            case Duplicates():
                return fates.duplicates(candidates)
            case Overlaps():
                index = OverlapIndex(self.inputs.evaluations[name], stage.words, stage.shortest, stage.common)
                return fates.overlaps(candidates, index)
            case Mix():
                return fates.mix(candidates, stage, self.recipe.seed)
        return self._told(number, name, stage, candidates)

    def _told(self, number: int, name: str, stage: Solved | Judged, candidates: Sequence[Candidate]) -> list[Fate]:
        """Fates by a model; finished chunks are read, not asked again."""
        told = self.store.told(number, name)
        left = {candidate.row: candidate for candidate in candidates if candidate.row not in told}
        asked = prompts(stage, list(left.values()), self.inputs.tokenizers[name])
        questions = []
        for row, prompt in zip(left, asked, strict=True):
            if len(prompt) > stage.max_prompt_tokens:
                told[row] = fates.unclear(stage, f"its prompt of {len(prompt)} tokens is too long")
            else:
                questions.append(Question(row, prompt, self._seeds(name, row, stage)))
        if questions:
            self.say(f"{name}: asking {stage.model} about {len(questions):,} problems; {len(told):,} are decided")
            with ExitStack() as ending:
                read: Callable[[Replies], list[Told]]
                if isinstance(stage, Solved):
                    read = partial(_checked, stage, left, ending.enter_context(self._pool(stage)))
                else:
                    read = partial(_judged, stage, left)
                decoder, ids = Decoder.of(self.inputs.tokenizers[name]), {one.row: one.prompt_ids for one in questions}

                def tell(replies: Replies) -> None:
                    chunk = read(replies)
                    seen = dict(zip(replies, decoder.decode([ids[row] for row in replies]), strict=True))
                    self.store.add(number, name, chunk, seen)
                    told.update({one.candidate.row: one.fate for one in chunk})
                    tokens = sum(reply.tokens for one in chunk for reply in one.replies)
                    last = f"the last {len(chunk):,} with {tokens:,} tokens"
                    self.say(f"{name}: {len(told):,} of {len(candidates):,} problems, {last}")

                self.ask(stage, questions, tell)
        return [told[candidate.row] for candidate in candidates]

    def _seeds(self, name: str, row: int, stage: Solved | Judged) -> tuple[int, ...]:
        """The same whatever is asked together with it."""
        samples = stage.samples if isinstance(stage, Solved) else 1
        return tuple(completion_seed(self.recipe.seed, f"curation/{name}", 0, row, sample) for sample in range(samples))

    def _pool(self, stage: Solved) -> CheckPool[JudgeItem, Verdict]:
        limits = Rewards()
        check = Judge({"accuracy": 1.0}, stage.extraction)
        return CheckPool(check, self.recipe.checks, limits.deadline_s, limits.memory_gib, WARM_UP)


def _judged(stage: Judged, candidates: Mapping[int, Candidate], replies: Replies) -> list[Told]:
    return [Told(candidates[row], given, (), fates.judged_fate(stage, given[0])) for row, given in replies.items()]


def _checked(
    stage: Solved, candidates: Mapping[int, Candidate], pool: CheckPool[JudgeItem, Verdict], replies: Replies
) -> list[Told]:
    items = {
        row: [JudgeItem(reply.text, reply.tokens, reply.finish_reason, candidates[row].answer) for reply in given]
        for row, given in replies.items()
    }
    futures = {row: [pool.submit(item) for item in several] for row, several in items.items()}
    verdicts = {row: tuple(future.result() for future in several) for row, several in futures.items()}
    statuses = {row: [verdict.status for verdict in several] for row, several in verdicts.items()}
    return [
        Told(candidates[row], given, verdicts[row], fates.solved_fate(stage, statuses[row]))
        for row, given in replies.items()
    ]
