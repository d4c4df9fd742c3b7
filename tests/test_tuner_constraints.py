"""Constraints between parameters: what expressions mean, that they do no harm, how often they turn points away."""

import contextlib
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuner
from tuner import Categorical, Float, Int, Ordinal, Space, SpaceError
from tuner.constraints import Constraint
from tuner.proposals import admissible

VALUES = {"a": 3, "b": 0.5, "c": "relu", "d": None, "e": True}


@pytest.mark.parametrize(
    "expression",
    [
        "a + b > 3", "a - b < 2", "a * b == 1.5", "a / 2 >= 1.5", "a // 2 == 1", "a % 2 != 1", "a ** 2 <= 9", "-a < +b",
        "c == 'relu'", "c in ['relu', 'tanh']", "c not in ('relu',)", "d is None", "d is not None", "not e",
        "e and a > 2",
        "a > 5 or b < 1", "0 < b < a <= 3", "0 < b < 0.4 < a", "abs(-a) == max(a, 1, 2)", "min(a, b) == 0.5",
        "sqrt(a + 1) == 2", "log(1) == 0", "True", "a if_", "a == 3 != b", "b == 0 or 1 / b > 1",
    ],
)  # fmt: skip
def test_an_expression_means_what_it_means_in_python(expression):
    if expression == "a if_":
        with pytest.raises(SpaceError, match="is not an expression"):
            Constraint(expression)
        return
    import math

    wanted = bool(eval(expression, {"log": math.log, "sqrt": math.sqrt}, dict(VALUES)))
    assert Constraint(expression).holds(VALUES) is wanted


def test_what_python_would_not_compute_is_not_computed_either():
    assert Constraint("b != 0 and 1 / b > 1").holds({"b": 0.0}) is False
    assert Constraint("0 < b < 1 / b").holds({"b": 0.0}) is False


def test_a_constraint_that_names_an_inactive_parameter_holds():
    assert Constraint("a > 5 and z > 1").holds({"a": 1})
    assert not Constraint("a > 5").holds({"a": 1})


ATTACKS = [
    "(" * 3000 + "1" + ")" * 3000, "-" * 9000 + "1", "not " * 2000 + "a", "1+" * 4000 + "1", "[" * 150 + "]" * 150,
    "a" * 20_000, "9" * 5000, "a.__class__", "__import__('os').system('true')", "().__class__", "abs(*[1])", "a\x00",
    "(lambda: 1)()", "f'{a}'", "a := 3", "max(a, key=1)", "[x for x in [1]]", "a if a else a", "{1: 2}", "a[0]", "...",
    "1j == 0", "await a", "print(a)", "abs.x(1)", "", "a; b", "b'x' == a", "a @ a", "a << 9", "~a", "1 if", "eval('1')",
]  # fmt: skip


@pytest.mark.parametrize("expression", ATTACKS, ids=lambda e: e[:12])
def test_what_is_more_than_a_comparison_is_refused(expression):
    with pytest.raises(SpaceError) as refusal:
        Constraint(expression)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "expression",
    ["'a' * 10**9 == c", "'%999999999d' % a == c", "[1] * 10**9 == c", "9**9**9**9 > 1", "c + c == c", "a / 0 > 1",
     "log(-a) > 1", "c < a", "min() > 1", "a in b", "(-8) ** 0.5 > 1", "d + 1 > 0"],
)  # fmt: skip
def test_what_cannot_be_computed_or_would_fill_the_memory_is_an_error_that_names_it(expression):
    with pytest.raises(SpaceError, match="cannot be computed for"):
        Constraint(expression).holds(VALUES)


@given(st.text(alphabet="ab01 ()[]+-*/%<>=!.,'\"notadrfimx_:{}\\\x00é", max_size=40))
def test_any_text_is_a_constraint_or_a_space_error(text):
    with warnings.catch_warnings(), contextlib.suppress(SpaceError):
        warnings.simplefilter("ignore")  # of Python about odd literals
        Constraint(text).holds({"a": 1, "b": "x"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constraint(3), "must be text"),
        (lambda: Constraint("a > 1", weight=1.5), r"weight must be a number in \[0, 1\], got 1.5"),
        (lambda: Constraint("a > 1", weight=True), "weight must be a number"),
        (lambda: Constraint("a > 1", weight=float("nan")), "weight must be a number"),
        (lambda: Space({"a": Int(0, 1)}, constraints=["a + zebra > 1"]), "names 'zebra', not among the parameters"),
        (lambda: Constraint("a > a.real"), "'a.real' is not understood"),
    ],
)
def test_a_constraint_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


# ------------------------------------------------------------------------------------------ in a space

PAIR = Space({"a": Int(1, 9), "b": Float(0, 1)}, constraints=["a * b <= 2", Constraint("a % 2 == 0", weight=0.25)])


def test_weights_multiply_and_hard_constraints_allow_nothing():
    assert PAIR.weight({"a": 2, "b": 0.5}) == 1
    assert PAIR.weight({"a": 3, "b": 0.5}) == 0.25
    assert PAIR.weight({"a": 9, "b": 1.0}) == 0
    assert PAIR.allows({"a": 3, "b": 0.5})
    assert not PAIR.allows({"a": 4, "b": 0.6})
    two = Space({"a": Int(0, 1)}, constraints=[Constraint("a > 0", 0.5), Constraint("a > 0.5", 0.5)])
    assert two.weight({"a": 0}) == 0.25


def test_constraints_survive_json():
    again = Space.from_json(PAIR.to_json())
    assert again == PAIR
    assert again != Space(PAIR.parameters)
    assert again.weight({"a": 3, "b": 0.5}) == 0.25


@pytest.mark.parametrize("expression", ["().__class__", "__import__('os')", "-" * 9000 + "1", "x" * 99_999])
def test_a_file_with_an_evil_constraint_is_refused(expression):
    data = json.loads(PAIR.to_json())
    data["constraints"] = [{"expression": expression, "weight": 0}]
    with pytest.raises(SpaceError):
        Space.from_json(json.dumps(data))


# ------------------------------------------------------------------------------------------- proposals


def test_a_point_that_may_be_tried_stays_as_it_is():
    point = np.array([0.3, 0.1])
    assert admissible(PAIR, point, set(), 0, 0) is point or PAIR.decode(point)["a"] % 2
    free = Space({"a": Float(0, 1)})
    assert admissible(free, point[:1], {b"other"}, 0, 0)[0] == 0.3


def test_instead_of_a_tried_point_comes_its_nearest_neighbour():
    space = Space({"a": Int(0, 9), "b": Int(0, 9)})
    point = space.encode({"a": 4, "b": 4})
    tried: set[bytes] = set()
    given = []
    for number in range(9):
        given.append(admissible(space, point, tried, number, 0))
        tried.add(space.key(given[-1]))
    cells = [tuple(space.decode(p).values()) for p in given]
    assert cells[0] == (4, 4)
    assert set(cells[1:5]) == {(3, 4), (5, 4), (4, 3), (4, 5)}
    assert len(set(cells)) == 9


def test_a_space_is_used_up_to_the_last_combination_and_then_repeats():
    space = Space(
        {"a": Int(0, 5), "b": Categorical("xyz"[i] for i in range(3)), "c": Ordinal([1, 2])},
        {"c": {"parent": "b", "in": ["x"]}},
        constraints=["a > 0"],
    )
    tried: set[bytes] = set()
    for number in range(5 * 4):
        point = admissible(space, np.array([0.0, 0.0, 0.0]), tried, number, 3)
        assert space.key(point) not in tried
        tried.add(space.key(point))
    again = admissible(space, np.array([0.0, 0.0, 0.0]), tried, 99, 3)
    assert space.key(again) in tried
    assert space.decode(again)["a"] > 0


@pytest.mark.parametrize("space", [
    Space({"a": Float(0, 1)}, constraints=["a < 0.3", "a > 0.6"]),
    Space({"a": Int(0, 9)}, constraints=["a < 3", "a > 6"]),
    Space({"a": Float(0, 1), "b": Float(0, 1)}, constraints=["a < b", "b < a"]),
])  # fmt: skip
def test_constraints_that_contradict_each_other_are_named(space):
    with pytest.raises(SpaceError, match="a < .*, Constraint"):
        admissible(space, np.full(space.dimensions, 0.5), set(), 0, 0)


def test_a_thin_allowed_region_is_found():
    space = Space({"a": Float(0, 1), "b": Float(0, 1)}, constraints=["abs(a - b) < 0.005"])
    for number in range(10):
        point = np.random.default_rng(number).random(2)
        a, b = space.decode(admissible(space, point, set(), number, 0)).values()
        assert abs(a - b) < 0.005


def test_soft_constraints_turn_away_as_many_points_as_they_say():
    space = Space({"a": Float(0, 1)}, constraints=[Constraint("a > 0.5", weight=0.25)])
    study = tuner.create_study(space=space, sampler=tuner.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: 0.0, n_trials=600)
    share = np.mean([t.params["a"] <= 0.5 for t in study.trials])
    assert abs(share - 0.5 * 0.25) < 0.054  # four standard errors


def test_where_a_soft_constraint_leaves_nothing_it_gives_way():
    space = Space({"a": Float(0, 1)}, constraints=[Constraint("a > 2", weight=0.1)])
    for number in range(3):
        assert 0 <= admissible(space, np.array([0.7]), set(), number, 0)[0] <= 1
