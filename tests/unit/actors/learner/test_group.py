"""What the trainer's side of the learner hands to its ranks, with ranks that only remember it."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.learner.group import LearnerGroup
from openrs_ray.algorithm.packing import MicroBatch
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.records import Completion, Group, Problem, Rollout, Scored, Status, TokenLogprobs, Verdict, VersionSpan
from openrs_ray.run.step_settings import Changes, StepSettings


class Rank:
    """Stands for a learner actor: `rank.train_step.remote(...)`. Its log-probability of a token is minus the token's place
    among the sampled ones of its completion."""

    def __init__(self) -> None:
        self.train_step = self
        self.token_logprobs = SimpleNamespace(remote=lambda: asyncio.ensure_future(self._scored()))

    async def remote(self, batches: list[MicroBatch], *rest: Any) -> dict[str, float]:
        self.batches, (*self.numbers, self.settings) = batches, rest
        return {}

    async def _scored(self) -> list[TokenLogprobs]:
        parts = [[-np.arange(size, dtype=np.float32) for size in batch.completion_lengths] for batch in self.batches]
        return [TokenLogprobs(*(factor * np.concatenate([*part, []]) for factor in (1, 2, 3))) for part in parts]


def group(position: int, rewards: list[float]) -> Group:
    tokens = [np.full(1 + sample, 7, dtype=np.int32) for sample in range(len(rewards))]
    return Group(
        position,
        Problem(0, "1 + 1", (1, 2), ("2",)),
        tuple(
            Rollout.of(
                [
                    Completion(
                        position, i, ids, np.zeros(len(ids), np.float32), "stop", (VersionSpan(0, 0, len(ids)),), 0
                    )
                ]
            )
            for i, ids in enumerate(tokens)
        ),
        tuple(Verdict(Status.CORRECT, {}, reward) for reward in rewards),
    )


@pytest.mark.parametrize(("kind", "advantages"), [("grpo", [-0.5, -0.5, -0.5, 1.5]), ("dr_grpo", [-1, -1, -1, 3])])
def test_what_is_left_out_is_counted_and_dr_grpo_keeps_the_scale(kind: str, advantages: list[float]) -> None:
    sections: dict[str, Any] = {
        "run": {"name": "r", "folder": "/runs", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 2, "completions_per_problem": 4, "max_completion_tokens": 8},
        "loss": {"kind": kind, "advantage_epsilon": 0.0},
    }
    ranks = [Rank(), Rank()]
    learners = LearnerGroup(RunConfig.model_validate(sections), lambda: ranks)
    # Rewards 0 0 0 4 have mean 1 and standard deviation 2; the other group has no spread.
    update = asyncio.run(learners.train([group(0, [0, 0, 0, 4]), group(1, [1, 1, 1, 1])], step=5))
    np.testing.assert_allclose(update.advantages, [advantages, [0] * 4])
    for rank in ranks:
        assert rank.numbers == [20, 5, 10, 4]  # tokens of the step, step, tokens and completions left out
    of_tokens = np.concatenate([batch.advantages for rank in ranks for batch in rank.batches])
    assert sorted(of_tokens) == pytest.approx(sorted(np.repeat(advantages, [1, 2, 3, 4])))


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_teacher_teaches_on_completions_without_an_advantage(weight: float) -> None:
    """Those of a group without spread, and one without verdict; one whose sampler gave no number is left out."""
    sections: dict[str, Any] = {
        "run": {"name": "r", "folder": "/runs", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 2, "completions_per_problem": 4, "max_completion_tokens": 8},
        "loss": {"kind": "distill", "advantage_epsilon": 0.0, "teacher": {"path": "toy-teacher", "weight": weight}},
    }
    ranks = [Rank()]
    learners = LearnerGroup(RunConfig.model_validate(sections), lambda: ranks)
    flat, broken = group(1, [1, 1, 1, 1]), Verdict(Status.ERROR, {}, None)
    odd = replace(flat.rollouts[3], logprobs=np.full(4, np.nan, np.float32))
    flat = replace(
        flat,
        rollouts=(*flat.rollouts[:3], odd),
        verdicts=(*flat.verdicts[:2], Verdict(Status.TIMEOUT, {}, None), broken),
    )
    update = asyncio.run(learners.train([group(0, [0, 0, 0, 4]), flat], step=5))
    # The record keeps the advantages of what was judged.
    np.testing.assert_allclose(update.advantages, [[-0.5, -0.5, -0.5, 1.5], [0, 0, np.nan, np.nan]])
    assert ranks[0].numbers == [16, 5, 0, 0]
    of_tokens = np.concatenate([batch.advantages for batch in ranks[0].batches])
    assert sorted(of_tokens) == sorted(np.repeat([-0.5, -0.5, -0.5, 1.5, 0, 0, 0], [1, 2, 3, 4, 1, 2, 3]))


def test_a_completion_without_verdict_makes_its_own_published_micro_batch_smaller_and_moves_no_other() -> None:
    sections: dict[str, Any] = {
        "fidelity": "as_published",
        "run": {"name": "r", "folder": "/runs", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 4, "completions_per_problem": 3, "max_completion_tokens": 8},
        "placement": {"num_learner_gpus": 2},
    }
    ranks = [Rank(), Rank()]
    learners = LearnerGroup(RunConfig.model_validate(sections), lambda: ranks)
    groups = [group(position, [position, 0, 0]) for position in range(1, 5)]
    verdicts = (Verdict(Status.TIMEOUT, {}, None), *groups[0].verdicts[1:])
    asyncio.run(learners.train([replace(groups[0], verdicts=verdicts), *groups[1:]], step=5))
    lengths = [[batch.completion_lengths for batch in rank.batches] for rank in ranks]
    assert lengths == [[(2, 3), (1, 2, 3)], [(1, 2, 3), (1, 2, 3)]]


def test_an_update_without_a_verdict_is_left_out_and_a_step_without_one_is_refused() -> None:
    sections: dict[str, Any] = {
        "run": {"name": "r", "folder": "/runs", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 4, "completions_per_problem": 3, "max_completion_tokens": 8},
        "learner": {"updates_per_batch": 2},
    }

    class Counted(Rank):
        async def remote(self, batches: list[MicroBatch], *numbers: int) -> dict[str, float]:
            figures = {"completion_tokens": float(numbers[0]), "packed_tokens": 0.0, "seconds": 1.0, "mismatch_kl": 0.0}
            return figures | {"learning_rate": 0.1, **await super().remote(batches, *numbers)}

    ranks = [Counted()]
    learners = LearnerGroup(RunConfig.model_validate(sections), lambda: ranks)
    groups = [group(position, [position, 0, 0]) for position in range(1, 5)]
    unjudged = tuple(Verdict(Status.TIMEOUT, {}, None) for _ in range(3))
    silent = [replace(one, verdicts=unjudged) for one in groups]
    update = asyncio.run(learners.train([*silent[:2], *groups[2:]], step=3))
    assert ranks[0].numbers == [12, 3, 0, 0]  # tokens of the second share alone
    assert np.isnan(update.advantages[:2]).all() and not np.isnan(update.advantages[2:]).any()
    # One update of two was done: its tokens, of version 0, were two steps of two updates old.
    assert update.metrics["age_in_updates_max"] == 4 and update.metrics["completion_tokens"] == 12
    assert update.metrics["updates"] == 1
    with pytest.raises(RunError, match="step 3 has no judged completion"):
        asyncio.run(learners.train(silent, step=3))


def test_the_log_probabilities_of_the_ranks_come_back_to_their_rollouts() -> None:
    """Of two updates on two ranks, with a group without spread that is not computed and a completion without a verdict."""
    sections: dict[str, Any] = {
        "run": {"name": "r", "folder": "/runs", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 4, "completions_per_problem": 5, "max_completion_tokens": 8},
        "learner": {"updates_per_batch": 2, "micro_batch_tokens": 600},
    }

    class Counted(Rank):
        async def remote(self, batches: list[MicroBatch], *numbers: int) -> dict[str, float]:
            await super().remote(batches, *numbers)
            names = ("completion_tokens", "packed_tokens", "seconds", "mismatch_kl", "learning_rate")
            return dict.fromkeys(names, 1.0)

    groups = [group(0, [0, 1, 2, 3, 5]), group(1, [1] * 5), group(2, [4, 0, 0, 0, 1]), group(3, [0, 1, 0, 1, 0])]
    unjudged = (*groups[2].verdicts[:1], Verdict(Status.TIMEOUT, {}, None), *groups[2].verdicts[2:])
    groups[2] = replace(groups[2], verdicts=unjudged)
    learners = LearnerGroup(RunConfig.model_validate(sections), lambda: [Counted(), Counted()])

    async def scored() -> Scored | None:
        update = await learners.train(groups, step=1)
        assert update.scored is not None
        return await update.scored

    found = asyncio.run(scored())
    assert found is not None
    assert found.keys() == {(g, s) for g in (0, 2, 3) for s in range(5)} - {(2, 1)}
    for (place, sample), tokens in found.items():
        expected = -np.arange(len(groups[place].rollouts[sample].token_ids))
        np.testing.assert_array_equal(tokens.policy, expected)
        assert tokens.reference is not None
        np.testing.assert_array_equal(tokens.reference, 2 * expected)
        np.testing.assert_array_equal(tokens.entropy, 3 * expected)


def config(updates: int = 1, sequences: int | None = None, **loss: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"name": "r", "folder": "/runs", "steps": 1},
            "model": {"path": "toy"},
            "data": {"path": "toy"},
            "rollout": {"problems_per_step": 2, "completions_per_problem": 4, "max_completion_tokens": 8},
            "learner": {"updates_per_batch": updates, "micro_batch_sequences": sequences},
            "loss": loss,
            "placement": {"num_learner_gpus": 2},
        }
    )


def with_cut(one: Group, *samples: int) -> Group:
    """The group with some of its completions cut at the limit."""
    cut = {n: replace(one.rollouts[n], finish_reason="length") for n in samples}
    return replace(one, rollouts=tuple(cut.get(n, rollout) for n, rollout in enumerate(one.rollouts)))


def test_truncated_completions_leave_the_loss_its_denominator_and_the_record_but_not_the_mean() -> None:
    ranks = [Rank()]
    groups = [with_cut(group(0, [0, 0, 0, 4]), 1, 3), group(1, [1, 1, 1, 1])]
    learners = LearnerGroup(config(truncated_completions="leave_out", advantage_epsilon=0.0), lambda: ranks)
    update = asyncio.run(learners.train(groups, step=5))
    np.testing.assert_allclose(update.advantages, [[-0.5, np.nan, -0.5, np.nan], [0] * 4])
    # Of the completions of 1, 2, 3 and 4 tokens two are left; those without spread count in the denominator as ever.
    assert ranks[0].numbers == [4 + 10, 5, 10, 4]
    assert sorted(batch.completion_tokens for batch in ranks[0].batches) == [4]
    kept = LearnerGroup(config(advantage_epsilon=0.0), lambda: ranks)
    assert not np.isnan(asyncio.run(kept.train(groups, step=5)).advantages).any()


@pytest.mark.parametrize("normalization", ["tokens", "sequences", "local_micro_batch"])
def test_a_step_of_truncated_completions_alone_has_nothing_to_learn_from_and_goes_on(normalization: str) -> None:
    ranks = [Rank(), Rank()]
    size = 4 if normalization == "local_micro_batch" else None
    of = config(sequences=size, truncated_completions="leave_out", normalization=normalization)
    learners = LearnerGroup(of, lambda: ranks)
    update = asyncio.run(learners.train([with_cut(group(n, [0, 0, 0, 4]), 0, 1, 2, 3) for n in range(2)], step=5))
    assert np.isnan(update.advantages).all()
    for rank in ranks:
        assert rank.numbers == [0, 5, 0, 0] and [batch.completion_tokens for batch in rank.batches] == [0]


def test_an_entropy_weight_computes_groups_without_spread() -> None:
    ranks = [Rank()]
    learners = LearnerGroup(config(entropy_weight=0.01), lambda: ranks)
    asyncio.run(learners.train([group(0, [0, 0, 0, 4]), group(1, [1, 1, 1, 1])], step=5))
    assert ranks[0].numbers == [20, 5, 0, 0] and sum(batch.completion_tokens for batch in ranks[0].batches) == 20
    settings = StepSettings.of(learners.config, Changes(entropy_weight=0.0))
    asyncio.run(learners.train([group(0, [0, 0, 0, 4]), group(1, [1, 1, 1, 1])], step=6, settings=settings))
    assert ranks[0].numbers == [20, 6, 10, 4], "by the step's weight, not the recipe's"


def test_the_batch_of_a_standard_deviation_is_the_step_not_the_update() -> None:
    """Rewards 0 0 0 4 and 0 0 0 8: distances from the means with a sum of squares of 12 + 48 over 8 - 1."""

    seen: list[np.ndarray] = []

    class Each(Rank):
        async def remote(self, batches: list[MicroBatch], *numbers: Any) -> dict[str, float]:
            await super().remote(batches, *numbers)
            seen.append(np.unique(np.concatenate([batch.advantages for batch in batches])))
            figures = {"packed_tokens": 0.0, "seconds": 1.0, "mismatch_kl": 0.0, "learning_rate": 0.1}
            return figures | {"completion_tokens": float(numbers[0])}

    learners = LearnerGroup(config(updates=2, advantage="batch_std", advantage_epsilon=0.0), lambda: [Each()])
    update = asyncio.run(learners.train([group(0, [0, 0, 0, 4]), group(1, [0, 0, 0, 8])], step=1))
    expected = np.array([[-1, -1, -1, 3], [-2, -2, -2, 6]]) / np.sqrt(60 / 7)
    np.testing.assert_allclose(update.advantages, expected)
    np.testing.assert_allclose(seen, expected[:, 2:], rtol=1e-6)


def test_leaving_one_out_reaches_the_ranks() -> None:
    ranks = [Rank()]
    learners = LearnerGroup(config(advantage="leave_one_out"), lambda: ranks)
    update = asyncio.run(learners.train([group(0, [0, 0, 0, 4]), group(1, [0, 0, 1, 1])], step=1))
    np.testing.assert_allclose(update.advantages[0], [-4 / 3] * 3 + [4.0])
    np.testing.assert_allclose(update.advantages[1], [-2 / 3] * 2 + [2 / 3] * 2)
