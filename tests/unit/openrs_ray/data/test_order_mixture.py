"""The order over several tasks: shares that hold at every position, and each task's epochs."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from openrs_ray.data.order import Mixture, Order, Part, Turns

WEIGHTS = [
    [1.0],
    [3.0, 1.0],
    [1.0, 1.0, 1.0],
    [0.7, 0.2, 0.1],
    [1.0, 0.001],
    [0.123456789, 0.87, 3.3],
    [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 0.5],
    *(
        list(map(float, np.round(np.random.default_rng(seed).exponential(size=2 + seed % 9) + 0.01, 3)))
        for seed in range(30)
    ),
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_task_is_a_whole_position_off_its_share(weights: list[float]) -> None:
    """Against exact fractions, at each of the first positions and in every window of them."""
    turns, total = Turns(weights), sum(Fraction(str(weight)) for weight in weights)
    shares = [Fraction(str(weight)) / total for weight in weights]
    used = Counter[int]()
    for position in range(2000):
        number, use = turns.at(position)
        assert use == used[number]
        used[number] += 1
        for task, share in enumerate(shares):
            assert abs(used[task] - (position + 1) * share) < 1, (position, task)


@pytest.mark.parametrize(
    ("weights", "block"), [([3.0, 1.0], 4), ([0.7, 0.2, 0.1], 10), ([2.0, 2.0], 2), ([1.5, 1.0], 5)]
)
def test_a_block_has_exactly_the_weights(weights: list[float], block: int) -> None:
    turns = Turns(weights)
    for start in range(0, 40 * block, block):
        found = Counter(turns.at(position)[0] for position in range(start, start + block))
        assert [Fraction(found[n], block) for n in range(len(weights))] == [
            Fraction(str(weight)) / sum(map(Fraction, map(str, weights))) for weight in weights
        ]


def mixture(*parts: Part, seed: int = 7) -> Mixture:
    return Mixture(seed, parts)


def test_each_epoch_of_a_task_has_each_of_its_problems_once() -> None:
    both = mixture(Part("sums", 3.0, 10), Part("products", 1.0, 4))
    places = [both.place(position) for position in range(400)]
    for task, problems in {"sums": range(10), "products": range(10, 14)}.items():
        epochs: dict[int, list[int]] = {}
        for place in places:
            if place.task == task:
                epochs.setdefault(place.epoch, []).append(place.problem)
        whole = [found for found in epochs.values() if len(found) == len(problems)]
        assert len(whole) >= 20 and all(sorted(found) == [*problems] for found in whole)
        assert list(epochs) == sorted(epochs) and len({tuple(found) for found in whole}) > 10, "in new orders"


def test_positions_mean_the_same_in_any_order_of_asking() -> None:
    forwards = mixture(Part("a", 0.31, 9), Part("b", 1.0, 5), Part("c", 2.0, 7))
    backwards = mixture(Part("a", 0.31, 9), Part("b", 1.0, 5), Part("c", 2.0, 7))
    assert [forwards.place(p) for p in range(300)] == [backwards.place(p) for p in reversed(range(300))][::-1]
    far = 10**12 + 5
    assert forwards.place(far) == backwards.place(far)


def test_a_single_task_without_a_name_has_the_order_that_runs_always_had() -> None:
    for shuffle in (True, False):
        alone, order = mixture(Part("", 1.0, 50, shuffle)), Order(7, 50, shuffle)
        assert [alone.index(position) for position in range(220)] == order.draw(0, 220)
        assert [alone.place(position).epoch for position in (0, 49, 50, 219)] == [0, 0, 1, 4]


def test_a_tasks_own_order_does_not_depend_on_the_others() -> None:
    def firsts(*parts: Part, seed: int = 7) -> list[int]:
        both = mixture(*parts, seed=seed)
        return [place.problem for place in map(both.place, range(300)) if place.task == "a"][:40]

    alone = firsts(Part("a", 1.0, 30))
    assert firsts(Part("a", 1.0, 30), Part("b", 2.0, 8)) == alone != firsts(Part("a", 1.0, 30), seed=8)
    assert firsts(Part("a", 0.5, 30), Part("c", 2.0, 30)) == alone
    both = mixture(Part("a", 1.0, 30), Part("c", 1.0, 30))
    other = [place.problem - 30 for place in map(both.place, range(200)) if place.task == "c"][:40]
    assert other != alone, "nor are two tasks of one size drawn alike"
