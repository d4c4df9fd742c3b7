"""Dominance, crowding and hypervolume against brute force and closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.pareto import best, crowding, hypervolume, losses, non_dominated_ranks, order, pareto_front


def clouds(least=0):
    """Few distinct values, so that ties and equal points are frequent."""
    return st.integers(1, 4).flatmap(
        lambda m: st.lists(
            st.lists(st.integers(0, 5).map(float), min_size=m, max_size=m), min_size=least, max_size=12
        ).map(lambda rows: np.array(rows).reshape(-1, m))
    )


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b)) and any(x < y for x, y in zip(a, b))


def peeled(points):
    """Ranks by taking front after front away."""
    ranks, left, front = np.zeros(len(points), int), set(range(len(points))), 0
    while left:
        gone = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for i in gone:
            ranks[i] = front
        left -= gone
        front += 1
    return ranks


@given(clouds())
def test_ranks_are_those_of_fronts_taken_away_one_by_one(points):
    np.testing.assert_array_equal(non_dominated_ranks(points), peeled(points))
    np.testing.assert_array_equal(pareto_front(points), peeled(points) == 0)


@given(clouds(1))
def test_the_volume_is_that_of_the_unit_cells_it_covers(points):
    m = points.shape[1]
    cells = itertools.product(range(6), repeat=m)
    covered = sum(any(all(p <= c) for p in points) for c in map(np.array, cells))
    assert hypervolume(points, [6.0] * m) == covered


def test_the_volume_of_many_points_in_four_objectives():
    points = np.random.default_rng(0).random((30, 4))
    drawn = np.random.default_rng(1).random((200_000, 4))
    covered = np.mean([(points <= row).all(axis=1).any() for row in drawn[:20_000]])
    assert hypervolume(points, [1.0] * 4) == pytest.approx(covered, abs=0.01)
    assert hypervolume(points, [0.0] * 4) == 0.0
    assert hypervolume(np.empty((0, 4)), [1.0] * 4) == 0.0


def test_the_volume_under_a_line_and_a_sphere():
    t = np.linspace(0, 1, 4001)
    assert hypervolume(np.column_stack([t, 1 - t]), [1.0, 1.0]) == pytest.approx(0.5, abs=1e-3)
    angles = np.linspace(0, math.pi / 2, 30)
    sphere = [(math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)) for a in angles for b in angles]
    assert hypervolume(1 - np.array(sphere), [1.0] * 3) == pytest.approx(math.pi / 6, rel=0.08)


def test_crowding_of_a_front_by_hand():
    front = np.array([[0.0, 10.0], [1.0, 6.0], [3.0, 4.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding(front), [math.inf, 3 / 4 + 6 / 10, 3 / 4 + 6 / 10, math.inf])
    both = np.concatenate([front, front + 100])[[0, 4, 1, 5, 2, 6, 3, 7]]
    apart = crowding(both, np.array([0, 1] * 4))
    np.testing.assert_allclose(apart[0::2], crowding(front))
    np.testing.assert_allclose(apart[1::2], crowding(front))
    assert crowding(np.array([[1.0, 1.0]])).tolist() == [math.inf]
    assert crowding(np.empty((0, 2))).tolist() == []
    np.testing.assert_allclose(crowding(np.ones((5, 2)))[1:4], 0.0)


@given(clouds())
def test_the_order_goes_by_front_and_then_by_crowding(points):
    ranks = peeled(points)
    key = [(ranks[i], -crowding(points[ranks == ranks[i]])[(ranks[:i] == ranks[i]).sum()]) for i in range(len(points))]
    assert order(points).tolist() == sorted(range(len(points)), key=lambda i: (key[i], i))


def test_losses_of_one_objective_are_its_values():
    assert losses([1.0, math.nan, -2.0], -1).tolist() == [-1.0, math.inf, 2.0]
    assert losses([[1.0], [2.0]], (1,)).tolist() == [1.0, 2.0]
    assert losses([], 1).tolist() == []


def test_losses_of_two_objectives_are_places():
    values = [(1.0, 1.0), (0.0, 2.0), (math.nan, 9.0), (0.5, 0.5)]  # small first, large second
    assert losses(values, (1, -1))[2] == 3
    assert losses(values, (1, -1)).tolist() == [1.0, 0.0, 3.0, 2.0]


def test_the_best_of_a_curve_is_the_last_step_that_none_dominates():
    assert best([3.0, 1.0, 2.0, 1.0], 1) == 3
    assert best([3.0, 1.0, 2.0], -1) == 0
    assert best([(3.0, 0.0), (1.0, 1.0), (2.0, 2.0)], (1, 1)) == 1
    assert best([math.nan], 1) == 0


def test_thousands_of_points_take_no_time():
    import time

    rng = np.random.default_rng(0)
    for m, seconds in ((2, 0.5), (3, 2.0)):
        begin = time.process_time()
        order(rng.random((3000, m)))
        assert time.process_time() - begin < seconds


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto_front(np.zeros(3)), r"points must have the shape \(n, objectives\), got \(3,\)"),
        (lambda: hypervolume(np.zeros((3, 2)), [1.0]), "reference must have one number per objective"),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
