"""Settings: checks, conditions, text, JSON, the schedule and the search space."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonet.errors import OptionError
from nanonet.settings import Settings

NAMES = [field.name for field in Settings.fields()]
SEARCHABLE = [
    f.name for f in Settings.fields() if f.name == "hidden" or f.type is bool or f.choices or f.low is not None
]


def values_of(field):
    """Values that a setting accepts."""
    if field.type is bool:
        return st.booleans()
    if field.type is tuple:
        return st.lists(st.integers(1, 512), max_size=4).map(tuple)
    if field.type is str:
        return st.sampled_from(field.options or field.choices)
    low, high = (field.low, field.high) if field.low is not None else (1, 1000)
    return st.integers(int(low), int(high)) if field.type is int else st.floats(low, high)


@st.composite
def drawn_settings(draw):
    values = {field.name: draw(values_of(field)) for field in Settings.fields()}
    return Settings(**{**values, "nesterov": values["nesterov"] and values["momentum"] > 0})


def points(space):
    """Points of a search space, as a sampler would give them: inactive parameters are absent."""

    @st.composite
    def draw_point(draw):
        point = {}
        for row in space:
            condition = row["condition"]
            if condition is not None and point.get(condition["parent"]) not in condition["in"]:
                continue
            if "choices" in row:
                point[row["name"]] = draw(st.sampled_from(row["choices"]))
            else:
                point[row["name"]] = draw((st.integers if row["kind"] == "int" else st.floats)(row["low"], row["high"]))
        return point

    return draw_point()


# -------------------------------------------------------------------------------- the declaration


def test_every_setting_is_declared_in_full():
    for field in Settings.fields():
        assert field.help
        assert field.check(field.default) == field.default
        assert field.type in (int, float, bool, str, tuple)
        if field.low is not None:
            assert field.low < field.high
            assert field.check(field.type(field.low)) == field.low
            assert field.check(field.type(field.high)) == field.high
            assert not field.log or field.low > 0
        for choice in field.choices or ():
            assert field.check(choice) == choice
        for parent, values in (field.condition or {}).items():
            assert NAMES.index(parent) < NAMES.index(field.name)
            assert all(Settings.field(parent).check(value) == value for value in values)


def test_immutable_and_equal_by_value():
    settings = Settings(hidden=[128, 64])
    assert settings == Settings(hidden=(128, 64)) != Settings()
    assert hash(settings) == hash(Settings(hidden=(128, 64)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.epochs = 3


def test_numpy_numbers_become_pythons():
    settings = Settings(
        hidden=np.array([3, 4]), epochs=np.int32(7), learning_rate=np.float32(0.5), nesterov=np.True_, momentum=1 / 2
    )
    json.dumps(settings.to_dict())
    assert settings == Settings(hidden=(3, 4), epochs=7, learning_rate=0.5, nesterov=True, momentum=0.5)
    assert type(Settings(dropout=0).dropout) is float


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("hidden", 128, "a tuple of widths"),
        ("hidden", "128", "a tuple of widths"),
        ("hidden", (128, 0), r"each width to be an integer in \[1, 65536\]"),
        ("hidden", (128, 6.5), "a tuple of widths"),
        ("hidden", (True,), "a tuple of widths"),
        ("activation", "rleu", "did you mean 'relu'"),
        ("optimizer", None, "wanted one of sgd, adam"),
        ("initializer", "he", "did you mean|wanted one of"),
        ("initializer", "normal(std=-1.0)", "std is -1.0"),
        ("initializer", 3, "a name such as"),
        ("dropout", 1.0, r"a number in \[0, 1\)"),
        ("dropout", "0.1", r"a number in \[0, 1\)"),
        ("dropout", True, r"a number in \[0, 1\)"),
        ("learning_rate", 0.0, r"a number in \(0, inf\)"),
        ("learning_rate", math.inf, r"a number in \(0, inf\)"),
        ("learning_rate", math.nan, r"a number in \(0, inf\)"),
        ("learning_rate", None, r"a number in \(0, inf\)"),
        ("batch_size", 32.0, r"an integer in \[1, inf\)"),
        ("batch_size", 0, r"an integer in \[1, inf\)"),
        ("epochs", -1, r"an integer in \[1, inf\)"),
        ("nesterov", 1, "True or False"),
        ("seed", -1, "an integer in"),
    ],
)
def test_a_bad_value_is_named(name, value, wanted):
    for make in (lambda: Settings(**{name: value}), lambda: Settings.from_dict({name: value})):
        with pytest.raises(OptionError, match=wanted):
            make()


def test_unknown_settings_are_named_with_the_nearest():
    for make in (
        lambda: Settings.from_dict({"learning_rat": 1.0}),
        lambda: Settings().replace(learning_rat=1.0),
        lambda: Settings.field("learning_rat"),
        lambda: Settings.search_space(["learning_rat"]),
        lambda: Settings.from_search({"learning_rat": 1.0}),
    ):
        with pytest.raises(OptionError, match=r"'learning_rat' \(did you mean 'learning_rate'"):
            make()


def test_nesterov_wants_momentum():
    with pytest.raises(OptionError, match="momentum is 0"):
        Settings(optimizer="sgd", nesterov=True, momentum=0.0)


def test_what_is_active():
    assert "momentum" not in Settings(optimizer="adam").active()
    assert "momentum" in Settings(optimizer="sgd").active()
    assert "beta1" not in Settings(optimizer="sgd").active()
    assert "schedule_gamma" in Settings(schedule="step").active()


# ---------------------------------------------------------------------------------- other forms


@given(settings=drawn_settings())
def test_json_gives_it_back(settings):
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@given(settings=drawn_settings())
def test_text_gives_it_back(settings):
    for field in Settings.fields():
        value = getattr(settings, field.name)
        text = ",".join(map(str, value)) if field.type is tuple else str(value)
        assert field.parse(text) == value


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("hidden", "128;64", "widths such as 128,64"),
        ("hidden", "-5", "each width"),
        ("epochs", "ten", r"an integer in \[1, inf\)"),
        ("epochs", "0", r"an integer in \[1, inf\)"),
        ("dropout", "2", r"a number in \[0, 1\)"),
        ("nesterov", "maybe", "true or false"),
        ("schedule", "cosin", "did you mean 'cosine'"),
    ],
)
def test_bad_text_is_named(name, text, wanted):
    with pytest.raises(OptionError, match=wanted):
        Settings.field(name).parse(text)


def test_no_hidden_layers_can_be_typed():
    assert Settings.field("hidden").parse("none") == ()


@pytest.mark.parametrize("schedule", Settings.field("schedule").options)
def test_schedules_are_in_epochs(schedule):
    settings = Settings(schedule=schedule, schedule_gamma=0.9, schedule_step=3, epochs=12, schedule_end=0.1, warmup=0)
    by_update = settings.learning_rate_schedule(7)
    epochs = np.arange(13)
    expected = {
        "constant": np.ones(13),
        "step": 0.9 ** (epochs // 3),
        "exponential": 0.9**epochs,
        "inverse_time": 1 / (1 + 0.1 * epochs),
        "polynomial": 0.1 + 0.9 * (1 - epochs / 12),
        "cosine": 0.1 + 0.9 * (1 + np.cos(np.pi * epochs / 12)) / 2,
    }
    if schedule in expected:
        np.testing.assert_allclose(by_update(epochs * 7), expected[schedule], rtol=1e-9)
    else:
        factors = by_update(np.arange(84))
        assert factors.max() == pytest.approx(1, abs=0.01)
        assert factors[-1] < 1e-4


def test_warm_up_multiplies():
    by_update = Settings(warmup=0.5).learning_rate_schedule(10)
    np.testing.assert_allclose(by_update(np.arange(7)), [0.1, 0.28, 0.46, 0.64, 0.82, 1, 1])


# ------------------------------------------------------------------------------------ the search


@pytest.mark.parametrize("names", [None, SEARCHABLE, ["hidden"], ["learning_rate"]], ids=str)
@given(data=st.data())
def test_points_of_the_search_space_are_settings_and_back(names, data):
    space = Settings.search_space(names)
    point = data.draw(points(space))
    if point.get("nesterov"):
        point["nesterov"] = False
    settings = Settings.from_search(point)
    assert settings.to_search(names) == point


def test_search_space_rows():
    space = Settings.search_space(SEARCHABLE)
    names = [row["name"] for row in space]
    assert len(set(names)) == len(names)
    for row in space:
        keys = {"choices"} if row["kind"] in ("ordinal", "categorical") else {"low", "high", "log"}
        assert set(row) == {"name", "kind", "condition", "default"} | keys
        if "choices" in row:
            assert row["default"] in row["choices"]
        else:
            assert row["low"] <= row["default"] <= row["high"]
        if row["condition"] is not None:
            parent = next(other for other in space if other["name"] == row["condition"]["parent"])
            assert names.index(parent["name"]) < names.index(row["name"])
            assert row["condition"]["in"]
            assert set(row["condition"]["in"]) <= set(parent.get("choices", row["condition"]["in"]))
    json.dumps(space)


def test_layers_and_widths():
    assert Settings.from_search({"layers": 2, "width_1": 50, "width_2": 20}).hidden == (50, 20)
    assert Settings.from_search({"layers": 1, "width_1": 50}).hidden == (50,)
    assert Settings.from_search({"layers": np.int64(3), "width_1": 50}, Settings(hidden=(9, 8))).hidden == (50, 8, 8)
    assert Settings.from_search({"dropout": 0.1}, Settings(hidden=(9, 8))).hidden == (9, 8)
    assert Settings(hidden=(60, 40)).to_search(["hidden"]) == {"layers": 2, "width_1": 60, "width_2": 40}
    for wrong in ({"width_9": 3}, {"layers": "two"}):
        with pytest.raises(OptionError, match=r"width_9|two"):
            Settings.from_search(wrong)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_is_not_searched_decides_what_can_be(optimizer):
    names = ["learning_rate", "momentum"]
    base = Settings(optimizer=optimizer, learning_rate=0.02)
    space = Settings.search_space(names, base)
    found = [row["name"] for row in space]
    assert found == (["learning_rate_sgd", "momentum"] if optimizer == "sgd" else ["learning_rate"])
    assert all(row["condition"] is None for row in space)
    assert Settings.from_search(base.to_search(names), base) == base


def test_settings_outside_the_space_are_moved_into_it():
    point = Settings(hidden=(1000,), optimizer="rmsprop", weight_decay=0.0, batch_size=7).to_search()
    assert point["width_1"] == 256
    assert point["optimizer"] == "adam"
    assert point["weight_decay"] == 1e-6
    assert point["batch_size"] == 32


def test_a_setting_without_a_range_cannot_be_searched():
    with pytest.raises(OptionError, match="seed has no range"):
        Settings.search_space(["seed"])


def test_the_tuner_understands_the_search_space():
    space = pytest.importorskip("tuner.space")
    rows = Settings.search_space(SEARCHABLE)
    domains = {row["name"]: space.domain_from_json(row) for row in rows}
    conditions = {row["name"]: row["condition"] for row in rows if row["condition"]}
    built = space.Space(domains, conditions, [Settings().to_search(SEARCHABLE)])
    rng = np.random.default_rng(0)
    for _ in range(20):
        point = built.decode(rng.random(built.dimensions))
        Settings.from_search({**point, "nesterov": False})
