"""The search space: values <-> unit cube, conditions, JSON, and what is refused."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner import Categorical, Float, Int, Ordinal, Space, SpaceError
from tuner.priors import Near, Weights
from tuner.space import domain_from_json, from_jsonable, to_jsonable

UNIT = st.floats(0, 1)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3), st.floats(-1, 1))


@st.composite
def floats(draw):
    low = draw(st.floats(-1e6, 1e6, allow_subnormal=False))
    span = draw(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)))
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "log":
        low = abs(low) + 1e-8
        return Float(low, low * (1 + span), log=True)
    return Float(low, low + span, step=draw(st.floats(1e-3, 10)) if kind == "step" else None)


@st.composite
def ints(draw):
    low = draw(st.integers(-1000, 1000))
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "log":
        low = abs(low) + 1
    high = low + draw(st.integers(0, 100_000))
    return Int(low, high, log=kind == "log", step=draw(st.integers(1, 7)) if kind == "step" else None)


def choices(kind):
    return st.lists(PLAIN, min_size=1, max_size=9, unique_by=lambda c: (type(c).__name__, repr(c))).map(kind)


DOMAINS = st.one_of(floats(), ints(), choices(Ordinal), choices(Categorical))


def same(a, b):
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isclose(a, b, rel_tol=1e-9)))


# ------------------------------------------------------------------------------------------- domains


@given(DOMAINS, UNIT)
def test_a_decoded_value_is_in_its_domain_and_comes_back(domain, u):
    value = domain.decode(u)
    assert value in domain
    back = domain.decode(domain.encode(value))
    if domain.size is None and not domain.log:
        assert abs(back - value) <= 1e-11 * (domain.high - domain.low)
    else:
        assert same(back, value)


@given(DOMAINS)
def test_the_ends_of_the_unit_interval_are_the_ends_of_the_range(domain):
    first, last = (domain.low, domain.high) if hasattr(domain, "low") else (domain.choices[0], domain.choices[-1])
    assert same(domain.decode(0.0), first)
    assert same(domain.decode(1.0), last)


@given(st.one_of(floats(), ints()), UNIT, UNIT)
def test_numbers_keep_their_order(domain, u, v):
    assert (u <= v) <= (domain.decode(min(u, v)) <= domain.decode(max(u, v)))


@given(DOMAINS)
def test_a_domain_survives_json(domain):
    assert domain_from_json(domain.to_json()) == domain


NAN = math.nan
ODD = [True, False, 1, 0, 1.0, 0.0, -0.0, np.float64(1), np.int64(0), NAN, float("nan"), None, "1", (1,), (True,), [1],
       [True], {1}, frozenset({1}), ([1],), ((1,),), 2**70, float(2**70)]  # fmt: skip


def is_given(choice, value):
    return choice is value


def is_alike(choice, value):
    return type(choice) is type(value) and bool(choice == value)


def is_equal(choice, value):
    return isinstance(choice, bool) == isinstance(value, bool) and bool(choice == value)


@given(st.lists(st.sampled_from(range(len(ODD))), min_size=1, max_size=8, unique=True), st.sampled_from(ODD))
def test_a_choice_is_found_as_by_looking_at_one_after_the_other(places, value):
    choices = {(type(c).__name__, repr(c)): c for c in (ODD[i] for i in places)}
    domain = Categorical(choices.values())
    for _ in range(2):
        for wanted in (value, copy.copy(value), *domain.choices):
            found = (i for fits in (is_given, is_alike, is_equal) for i, c in enumerate(domain.choices)
                     if fits(c, wanted))  # fmt: skip
            assert domain.index(wanted) == next(found, None)
        domain = pickle.loads(pickle.dumps(domain))


def test_one_of_many_choices_is_found_without_comparing_it_to_all():
    compared = []

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    domain = Categorical([Name(i) for i in range(5000)])
    domain.index(Name(4999))
    compared.clear()
    assert domain.index(Name(4321)) == 4321
    assert domain.encode(Name(1234)) == 1234.5 / 5000
    assert len(compared) < 10
    assert len(pickle.dumps(Categorical(range(5000)))) == len(pickle.dumps(indexed(Categorical(range(5000)))))


def indexed(domain):
    domain.index(0)
    return domain


@pytest.mark.parametrize("domain", [Int(0, 4), Ordinal([1, 2, 4, 8, 16]), Categorical("abcde"[i] for i in range(5))])
def test_every_value_of_a_discrete_domain_gets_the_same_share(domain):
    values = [domain.decode(u) for u in (np.arange(1000) + 0.5) / 1000]
    assert {values.count(v) for v in values} == {200}


def test_log_ranges_are_even_in_the_logarithm():
    assert Float(1e-4, 1.0, log=True).decode(0.5) == 0.01
    values = [Int(1, 64, log=True).decode(u) for u in (np.arange(5000) + 0.5) / 5000]
    assert values.count(1) > 2 * values.count(2) * 0.9 > 2 * values.count(5) * 0.9


def test_steps_are_decimal():
    assert [Float(0.1, 0.5, step=0.1).decode(u) for u in (0, 0.25, 0.5, 0.7, 1)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert Float(0, 1, step=0.3).high == 0.9
    assert Int(1, 10, step=4).high == 9
    assert 0.3 in Float(0.1, 0.5, step=0.1)
    assert 0.35 not in Float(0.1, 0.5, step=0.1)


@pytest.mark.parametrize("value", [0.01, 0.003, 0.9, 1e-4, 1.0])
def test_values_that_people_type_come_back_exactly(value):
    for domain in (Float(1e-4, 1.0, log=True), Float(-1, 1), Float(0, 7.3)):
        assert domain.decode(domain.encode(value)) == value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Float(2, 1), "low must not be above high, got low=2.0, high=1.0"),
        (lambda: Float(0, 1, log=True), "low > 0, got 0"),
        (lambda: Float(float("nan"), 1), "low must be a finite number, got nan"),
        (lambda: Float(0, float("inf")), "high must be a finite number, got inf"),
        (lambda: Float(0, 1, step=0), "step must be positive"),
        (lambda: Float(1, 2, log=True, step=0.1), "cannot be combined"),
        (lambda: Float("a", 1), "low must be a finite number, got 'a'"),
        (lambda: Int(0, 1.5), "high must be a whole number, got 1.5"),
        (lambda: Int(0, 9, log=True), "low >= 1, got 0"),
        (lambda: Int(True, 9), "low must be a whole number, got True"),
        (lambda: Int(0, 9, step=-2), "step must be positive"),
        (lambda: Categorical([]), "choices is empty"),
        (lambda: Categorical("abc"), "must be a list of values, got 'abc'"),
        (lambda: Ordinal([1, 2, 1]), "listed twice"),
        (lambda: Float(0, 1).encode(2), "2 is not in Float"),
        (lambda: Float(0, 1).decode(float("nan")), "NaN"),
        (lambda: Int(0, 9, step=3).encode(4), "4 is not in Int"),
        (lambda: Categorical([1, 2]).encode(True), "True is not in Categorical"),
        (lambda: domain_from_json({"kind": "complex"}), "'complex' of a parameter is unknown"),
        (lambda: domain_from_json({"kind": "float", "low": 0}), "does not describe a float"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, message):
    with pytest.raises(SpaceError, match=message.replace("(", r"\(")):
        make()


def test_odd_numbers_are_not_in_a_range():
    for value in (float("nan"), float("inf"), True, "1", None):
        assert value not in Int(0, 3)
        assert value not in Float(0, 3)
    assert np.int64(2) in Int(0, 3)
    assert 2.0 in Int(0, 3)


def test_choices_tell_equal_values_of_different_types_apart():
    domain = Categorical([True, 1, 1.5, "1", None, (1, 2)])
    for value in domain.choices:
        assert same(domain.decode(domain.encode(value)), value)
    assert domain.encode(1.0) == domain.encode(1)


# --------------------------------------------------------------------------------------------- spaces

NETWORK = Space(
    {
        "width_2": Int(8, 256, log=True),
        "n_layers": Int(1, 3),
        "lr": Float(1e-4, 1.0, log=True),
        "optimizer": Categorical(["sgd", "adam"]),
        "momentum": Float(0.0, 0.99),
        "nesterov": Categorical([False, True]),
    },
    conditions={
        "width_2": {"parent": "n_layers", "at_least": 2},
        "momentum": {"parent": "optimizer", "in": ["sgd"]},
        "nesterov": {"parent": "momentum", "at_least": 0.5},
    },
    defaults=[{"lr": 0.01, "optimizer": "sgd", "momentum": 0.9}],
)


def test_inactive_parameters_are_dropped_also_when_their_parent_is_inactive():
    assert NETWORK.decode([0.5, 0.0, 0.5, 0.9, 0.9, 0.9]) == {"n_layers": 1, "lr": 0.01, "optimizer": "adam"}
    assert NETWORK.decode([0.0, 0.5, 0.5, 0.0, 0.0, 0.9]) == {
        "width_2": 8,
        "n_layers": 2,
        "lr": 0.01,
        "optimizer": "sgd",
        "momentum": 0.0,
    }


@given(st.lists(UNIT, min_size=6, max_size=6))
def test_settings_come_back_through_the_cube(point):
    settings = NETWORK.decode(point)
    encoded = NETWORK.encode(settings)
    assert encoded.shape == (6,)
    assert ((encoded >= 0) & (encoded <= 1)).all()
    again = NETWORK.decode(encoded)
    assert again.keys() == settings.keys()
    assert all(same(again[name], settings[name]) for name in settings)


@given(st.lists(st.tuples(st.text(max_size=5), DOMAINS), max_size=6, unique_by=lambda pair: pair[0]))
def test_a_space_survives_json(parameters):
    space = Space(dict(parameters))
    again = Space.from_json(space.to_json())
    assert again == space
    point = np.linspace(0, 1, space.dimensions)
    assert again.decode(point) == space.decode(point)


def test_conditions_and_defaults_survive_json():
    again = Space.from_json(NETWORK.to_json())
    assert again.conditions == NETWORK.conditions
    assert again.defaults == NETWORK.defaults
    assert again.names == NETWORK.names


def test_given_values_stand_in_place_of_the_points():
    settings = NETWORK.decode([0.5] * 6, fixed={"n_layers": 1, "optimizer": "sgd"})
    assert settings["n_layers"] == 1
    assert "width_2" not in settings
    assert "momentum" in settings


def test_an_empty_space_has_one_setting():
    assert Space({}).decode([]) == {}
    assert Space({}).encode({}).shape == (0,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space({"a": 1}), "'a' must be a name with a Float"),
        (lambda: Space({}, {"a": {"parent": "b", "equals": 1}}), "'a', which is not a parameter"),
        (lambda: Space({"a": Int(0, 1)}, {"a": {"parent": "b", "equals": 1}}), "names the parent 'b'"),
        (lambda: Space({"a": Int(0, 1)}, {"a": {"parent": "a", "equals": 1}}), "not another parameter"),
        (lambda: Space({"a": Int(0, 1), "b": Int(0, 1)}, {"a": {"parent": "b", "is": 1}}), "must be {"),
        (lambda: Space({"a": Int(0, 1), "b": Int(0, 1)}, {"a": {"parent": "b"}}), "must be {"),
        (lambda: Space({"a": Int(0, 1), "b": Int(0, 1)}, {"a": {"parent": "b", "in": [7]}}), r"never takes: \[7\]"),
        (
            lambda: Space(
                {"a": Int(0, 1), "b": Int(0, 1)},
                {"a": {"parent": "b", "equals": 1}, "b": {"parent": "a", "equals": 1}},
            ),
            "in a circle: a -> b -> a",
        ),
        (lambda: Space({"a": Int(0, 1)}, defaults=[{"a": 5}]), "a=5 is not in Int"),
        (lambda: NETWORK.decode([0.5]), "point has 1 coordinates, the space has 6"),
        (lambda: NETWORK.encode({"lr": 0.1}), "settings lack 'n_layers', 'optimizer'"),
        (lambda: NETWORK.encode({"rate": 0.1}), "'rate' is not a parameter of the space"),
        (lambda: Space.from_json("{"), "not the JSON of a search space"),
        (lambda: Space.from_json("[1]"), "not the JSON of a search space"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


JSONABLE = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "tuple", "dict"]), inner, max_size=2),
    ),
    max_leaves=6,
)


@given(JSONABLE)
def test_values_survive_json_with_their_types(value):
    again = from_jsonable(json.loads(json.dumps(to_jsonable(value))))
    assert again == value
    assert repr(again) == repr(value)


def test_what_json_does_not_know_is_refused_by_name():
    with pytest.raises(SpaceError, match="of type object cannot be stored as JSON"):
        to_jsonable([object()])
    assert to_jsonable(np.float32(0.5)) == 0.5


# --------------------------------------------------------------------------------- files that mean harm

HARMLESS = json.loads(
    Space(
        {"n": Int(1, 3, prior=Near(2)), "x": Float(0, 1), "c": Categorical(["a", "b"], prior=Weights([1, 2]))},
        {"x": {"parent": "n", "at_least": 2}},
        [{"n": 2}],
        ["n > 0", "x < 0.9"],
    ).to_json()
)
JUNK = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=2), st.dictionaries(st.sampled_from(["kind", "n", "tuple"]), PLAIN, max_size=2),
    st.sampled_from([10**400, -(10**30), 1e308, 1e-320, math.inf, math.nan, "near", "weights", "int", "n", "x"]),
)  # fmt: skip


def places_in(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places_in(value[key], (*path, key))


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_gives_a_space_or_a_space_error(data):
    damaged = copy.deepcopy({"root": HARMLESS})
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = ("root", *data.draw(st.sampled_from(list(places_in(damaged["root"])))))
        at = damaged
        for key in path:
            at = at[key]
        at[last] = data.draw(JUNK)
    try:
        space = Space.from_json(json.dumps(damaged["root"]))
        points = np.linspace(0, 1, 3)[:, None] * np.ones(space.dimensions)
        for point in points:
            space.encode(space.decode(point))
            space.key(point)
        again = Space.from_json(space.to_json())
    except SpaceError:
        return
    assert again == space


def test_a_file_nested_too_deep_is_refused():
    with pytest.raises(SpaceError, match="not the JSON of a search space"):
        Space.from_json('{"parameters": ' + "[" * 100_000 + "]" * 100_000 + "}")


# ---------------------------------------------------------------------------------- points, all at once


@given(st.lists(st.lists(UNIT, min_size=6, max_size=6), min_size=1, max_size=5))
def test_snapping_and_activity_agree_with_settings(points):
    points = np.array(points)
    snapped, active = NETWORK.snap(points), NETWORK.active(points)
    for point, place, counts in zip(points, snapped, active, strict=True):
        chosen = NETWORK.decode(point)
        assert [name in chosen for name in NETWORK.names] == counts.tolist()
        np.testing.assert_allclose(place[counts], NETWORK.encode(chosen)[counts], atol=1e-10)
        np.testing.assert_array_equal(NETWORK.snap(place), place)


@given(st.lists(UNIT, min_size=6, max_size=6), st.lists(UNIT, min_size=6, max_size=6))
def test_points_have_the_same_key_exactly_if_they_have_the_same_settings(a, b):
    a, b = np.array(a), np.array(b)
    b[2] = a[2]  # a continuous one, else they would never be the same
    keys = NETWORK.keys(np.stack([a, b]))
    same = repr(NETWORK.decode(a)) == repr(NETWORK.decode(b))
    close = np.abs(a - b)[NETWORK.active(a[None])[0]].max() < 1e-8
    assert (keys[0] == keys[1]) == same or close
    assert NETWORK.key(a) == keys[0]
    encoded = NETWORK.encode(NETWORK.decode(a))
    missing = np.where(NETWORK.active(encoded[None])[0], encoded, np.nan)
    assert NETWORK.key(encoded) == NETWORK.key(missing)


def test_the_number_of_combinations_is_known_unless_there_is_no_end_of_them():
    assert Space({"a": Int(1, 9), "b": Categorical("xy"[i] for i in range(2)), "c": Float(0, 1, step=0.5)}).size == 54
    assert Space({}).size == 1
    assert NETWORK.size is None
