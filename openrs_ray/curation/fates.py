"""Outcomes of problems in a curation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from openrs_ray.curation.recipe import Judged, Mix, ModelStage, Solved
from openrs_ray.curation.texts import OverlapIndex
from openrs_ray.data.texts import same_text_key
from openrs_ray.errors import UserError
from openrs_ray.records import FinishReason, Status
from openrs_ray.rewards.answers.extraction import after_reasoning, last_boxed
from openrs_ray.seeds import completion_seed

_VERDICT = re.compile(r"[*_`#\s]*verdict[*_`]*\s*:[*_`\s]*([\w.-]*\w)[*_`.\s]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Candidate:
    r"""Example: Candidate(17, "s1", "What is 1 + 1?", r"\boxed{2}", ("2",))"""

    row: int
    """Among all rows of all sources, 0-based."""
    source: str
    problem: str
    solution: str | None
    answer: tuple[str, ...]
    """Accepted answers."""


@dataclass(frozen=True, slots=True)
class Fate:
    """Outcome of a stage. Example: Fate(False, "solved: 3 of 4 correct")"""

    kept: bool
    reason: str = ""
    """Counted by the part before the colon."""


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    tokens: int
    finish_reason: FinishReason
    token_ids: Sequence[int] = field(default=(), compare=False)
    worker: int = 0


KEPT = Fate(True)


def boxed(candidates: Sequence[Candidate]) -> list[Fate]:
    """Keeps closed, non-empty boxes (arXiv 2503.16219, section 2)."""
    boxes = [last_boxed(candidate.solution or "") for candidate in candidates]
    return [KEPT if box else Fate(False, "no box: the solution has no \\boxed{} with an answer") for box in boxes]


def duplicates(candidates: Sequence[Candidate]) -> list[Fate]:
    """Keeps the first of problems with the same text."""
    first: dict[str, Candidate] = {}
    earlier = [first.setdefault(same_text_key(candidate.problem), candidate) for candidate in candidates]
    return [
        KEPT if one is candidate else Fate(False, f"duplicate: of row {one.row} ({one.source})")
        for one, candidate in zip(earlier, candidates, strict=True)
    ]


def overlaps(candidates: Sequence[Candidate], index: OverlapIndex) -> list[Fate]:
    reasons = index.overlaps([candidate.problem for candidate in candidates])
    return [Fate(not reason, reason) for reason in reasons]


def mix(candidates: Sequence[Candidate], stage: Mix, seed: int) -> list[Fate]:
    """Draws the asked number of each source. UserError where one has too few."""
    drawn: set[int] = set()
    for source, count in mix_counts(stage).items():
        rows = [candidate.row for candidate in candidates if candidate.source == source]
        if len(rows) < count:
            raise UserError(
                f"the mix asks for {count:,} problems of {source} but {len(rows):,} are left: lower its counts or total, or "
                "add rows to the source"
            )
        rng = np.random.default_rng(completion_seed(seed, f"mix/{source}", 0, 0, 0))
        drawn.update(rng.permutation(rows)[:count].tolist())
    return [KEPT if candidate.row in drawn else Fate(False, "not drawn: into the mix") for candidate in candidates]


def mix_counts(stage: Mix) -> dict[str, int]:
    """The largest remainders of fractions round up."""
    if stage.total is None:
        return dict(stage.counts)
    exact = {source: share * stage.total for source, share in stage.fractions.items()}
    counts = {source: int(value) for source, value in exact.items()}
    rest = stage.total - sum(counts.values())
    for source in sorted(exact, key=lambda source: counts[source] - exact[source])[:rest]:
        counts[source] += 1
    return counts


def user_turn(stage: Solved | Judged, candidate: Candidate) -> str:
    values = {
        "problem": candidate.problem,
        "answer": " or ".join(candidate.answer),
        "solution": candidate.solution or "",
    }
    return re.sub(r"\{(problem|answer|solution)\}", lambda match: values[match[1]], stage.prompt)


def unclear(stage: ModelStage, why: str) -> Fate:
    return Fate(stage.unclear == "keep", f"unclear: {why}")


def solved_fate(stage: Solved, statuses: Sequence[Status]) -> Fate:
    """Fate by checked completions; unclear where an unjudged one would decide."""
    correct = statuses.count(Status.CORRECT)
    unjudged = [status for status in statuses if not status.judged]
    of_all = f"{correct} of {len(statuses)} correct"
    if correct >= stage.solved_from:
        return Fate(False, f"solved: {of_all}")
    if correct + len(unjudged) < stage.rare_below:
        return Fate(False, f"rarely solved: {of_all}")
    if correct + len(unjudged) >= stage.solved_from or correct < stage.rare_below:
        return unclear(stage, f"{', '.join(sorted(set(unjudged)))}, {of_all}")
    return KEPT


def judged_fate(stage: Judged, reply: Reply) -> Fate:
    """Fate by the reply's last line, if it is nothing but a known verdict."""
    lines = after_reasoning(reply.text).strip().splitlines()
    found = _VERDICT.fullmatch(lines[-1]) if lines and reply.finish_reason == "stop" else None
    words = {word.casefold(): KEPT for word in stage.keep}
    words |= {word.casefold(): Fate(False, f"{word}: so the model says") for word in stage.drop}
    fate = words.get(found[1].casefold()) if found else None
    if fate is not None:
        return fate
    return unclear(stage, "the reply was cut" if reply.finish_reason == "length" else "no verdict in the last line")
