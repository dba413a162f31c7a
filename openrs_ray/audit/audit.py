"""All checks of an audit, in order. A check that cannot go on is itself a finding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from openrs_ray.audit.chain import check_chain
from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun
from openrs_ray.common.foreign import why_with_kind
from openrs_ray.errors import RunError, UserError
from openrs_ray.run.coverage import prove
from openrs_ray.run.state import check_attempts

UNPROVEN = (
    "that the sampling happened at that time on that machine: whoever owns the folder can make all of it anew, chain and all; "
    "only a head that was told to others before shows it",
    "that the weights follow from the losses: the optimizer's steps are not repeated",
    "anything in no entry: logs, traces, TensorBoard's files, cost.json, the learner's state (its CRC-32 are in the manifest)",
    "figures that nothing in the record gives: grad_norm, learning_rate, times, ages, push_bytes, probe_difference, cost_usd",
    "completions that were not drawn to be scored again, and all that no kept policy sampled",
    "verdicts on the completions of launch.evaluate and of a teacher, which are not judged again, and the teacher's own score",
    "in the reports of launch.evaluate: intervals over problems, tests, majority votes, and the looks of a sequential comparison",
)
"""Claims that no audit shows."""


@dataclass(frozen=True)
class Asked:
    """Example: Asked(head="3f7a", processes=2, scored=8)"""

    head: str | None = None
    """A digest that the ledger is known to have had."""
    processes: int = 1
    """That judge."""
    scored: int = 8
    """Completions of each kept policy to score again; 0: none, without loading a model."""
    seed: int | None = None
    """Of drawing them; None: one that nobody knows before."""


def audit(folder: Path, asked: Asked) -> Iterator[Check]:
    """UserError where the folder is no run's."""
    yield _guarded("chain of digests", partial(check_chain, folder, asked.head))
    try:
        run = AuditedRun.read(folder)
    except UserError as error:
        check = Check("settings and problems")
        check.find("config.json", str(error))
        yield check
        return
    except Exception as error:
        yield _failed("settings and problems", why_with_kind(error))
        return
    from openrs_ray.audit.losses import check_losses  # torch and transformers take seconds to import
    from openrs_ray.audit.statistics import check_statistics
    from openrs_ray.audit.verdicts import check_verdicts

    yield _guarded("positions and rows", partial(check_coverage, run))
    yield _guarded("figures, computed again", partial(check_statistics, run))
    yield _guarded("advantages and losses, computed again", partial(check_losses, run))
    yield _guarded("verdicts, judged again", partial(check_verdicts, run, asked.processes))
    if asked.scored:
        from openrs_ray.audit.scores import check_scores

        yield _guarded("log-probabilities, scored again", partial(check_scores, run, asked.scored, asked.seed))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (UserError, RunError) as error:
        return _failed(name, str(error))
    except Exception as error:  # of content that no version of this project writes, whatever a library says about it
        return _failed(name, why_with_kind(error))


def _failed(name: str, reason: str) -> Check:
    failed = Check(name)
    failed.find("the run", f"this check cannot go on: {reason}")
    return failed


def check_coverage(run: AuditedRun) -> Check:
    """The proof of `launch.coverage`: each position used once, by rows that can be."""
    check = Check("positions and rows")
    check_attempts(run.folder)
    proof = prove(run.folder, run.config, run.problems)
    for kind, positions in proof.wrong_positions.items():
        if positions:
            check.find("completions", f"positions {kind}: {', '.join(map(str, positions[:10]))}")
    for kind, where in proof.faults.items():
        check.find("completions", f"{kind}: {', '.join(where[:10])}")
    check.looked_at = f"{proof.rows:,} rows of {proof.coverage.steps} steps"
    if proof.unchecked:
        check.notes.append(f"{proof.unchecked} files of an older version have no checksum")
    return check
