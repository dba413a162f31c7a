"""Groups of equal rewards are replaced, within a bound, and every drawn position is accounted for."""

import asyncio

import numpy as np
import pytest
from system import SETTINGS, rollout_section

from actors.loop.batch import has_spread
from actors.loop.lookahead import Lookahead
from openrs_ray.records import Group, Problem, Status, Verdict
from openrs_ray.run.step_settings import StepSettings

PROBLEM = Problem(0, "1+1", (1, 2), ("2",))


def group(position: int, *rewards: float | None) -> Group:
    verdicts = [Verdict(Status.TIMEOUT if reward is None else Status.WRONG, {}, reward) for reward in rewards]
    return Group(position, PROBLEM, (), tuple(verdicts))


def collect(uniform: set[int], positions: list[int], wanted: int) -> tuple[list[int], list[int], list[list[int]]]:
    """Trained positions, replaced positions, and the rounds they were asked for in; engines and checks take their time."""
    rounds: list[list[int]] = []
    lateness, under_way = np.random.default_rng(sum(positions)), set[int]()

    async def sample(position: int, problem: Problem, settings: StepSettings) -> Group:
        if not under_way:
            rounds.append([])
        rounds[-1].append(position)
        under_way.add(position)
        await asyncio.sleep(1e-4 * lateness.random())
        under_way.remove(position)
        return group(position, 1.0, 1.0 if position in uniform else 0.0)

    async def take() -> tuple[list[int], list[int]]:
        drawn = ((position, PROBLEM) for position in positions)
        section = rollout_section(wanted, 0, 60, len(positions) // wanted - 1)
        sampling = Lookahead(sample, drawn, section, 1, SETTINGS)
        batch = await sampling.take(1)
        assert len(sampling) == 0
        replaced = batch.metrics()
        assert replaced["replaced_groups"] == len(batch.replaced)
        assert replaced["replaced_share"] == pytest.approx(len(batch.replaced) / sum(map(len, rounds)))
        return [g.position for g in batch.groups], [g.position for g in batch.replaced]

    return *asyncio.run(take()), rounds


def test_others_are_drawn_until_all_groups_have_spread() -> None:
    trained, replaced, rounds = collect({3, 5, 8}, [3, 4, 5, 7, 8, 9, 10, 11, 12], wanted=3)
    assert rounds == [[3, 4, 5], [7, 8], [9]], "as many as are missing, round by round"
    assert trained == [4, 7, 9] and replaced == [3, 5, 8]


def test_at_the_bound_the_last_uniform_groups_fill_the_step_up() -> None:
    trained, replaced, rounds = collect({0, 1, 3, 4, 5}, [0, 1, 2, 3, 4, 5], wanted=3)
    assert rounds == [[0, 1, 2], [3, 4], [5]]
    assert trained == [2, 4, 5] and replaced == [0, 1, 3]


def test_without_further_candidates_nothing_is_replaced() -> None:
    assert collect({0, 1, 2}, [0, 1, 2], wanted=3) == ([0, 1, 2], [], [[0, 1, 2]])


def test_at_random_nothing_is_lost_and_no_group_with_spread_is_wasted() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        wanted, more = int(rng.integers(1, 9)), int(rng.integers(0, 4))
        uniform = {position for position in range(60) if rng.random() < rng.random()}
        trained, replaced, rounds = collect(uniform, list(range(wanted * (1 + more))), wanted)
        drawn = [position for positions in rounds for position in positions]
        assert drawn == list(range(len(drawn))) and sorted(trained + replaced) == drawn
        assert len(trained) == wanted and set(replaced) <= uniform
        if len(drawn) < wanted * (1 + more):
            assert not uniform & {*trained}, "short of the bound, all that is trained on has spread"


def test_spread_is_between_judged_rewards() -> None:
    assert has_spread(group(0, 1.0, 1.0, 0.5)) and has_spread(group(0, None, 1.0, 0.0))
    assert not has_spread(group(0, 0.1, 0.1, 0.1)) and not has_spread(group(0, 0.0, 0.0, None))
    assert not has_spread(group(0, None, 3.0)) and not has_spread(group(0, None, None)), "fewer than two are judged"
