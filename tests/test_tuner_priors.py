"""Priors: uniform points of the cube are draws from them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuner import Categorical, Float, Int, Ordinal, Space, SpaceError
from tuner.priors import Near, Weights, prior_from_json

CUBE = (np.arange(20_000) + 0.5) / 20_000


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("doubt", [0.2, 0.9])
def test_near_is_a_bell_cut_off_at_the_ends_and_mixed_with_a_uniform_share(log, doubt):
    domain = Float(1e-4, 1.0, log=log, prior=Near(0.01, spread=0.1, doubt=doubt))
    places = np.array([domain.natural(domain.decode(u)) for u in CUBE[::20]])
    centre = Float(1e-4, 1.0, log=log).encode(0.01)
    bell = stats.truncnorm((0 - centre) / 0.1, (1 - centre) / 0.1, centre, 0.1)
    wanted = (1 - doubt) * bell.cdf(places) + doubt * places
    np.testing.assert_allclose(wanted, CUBE[::20], atol=2e-3)


@pytest.mark.parametrize("kind", [Categorical, Ordinal])
def test_weights_are_shares_but_for_doubt(kind):
    domain = kind(["a", "b", "c"], prior=Weights([6, 3, 0], doubt=0.3))
    values = [domain.decode(u) for u in CUBE]
    shares = [values.count(v) / len(CUBE) for v in domain.choices]
    np.testing.assert_allclose(shares, [0.7 * 6 / 9 + 0.1, 0.7 * 3 / 9 + 0.1, 0.1], atol=2e-4)


def test_a_prior_of_whole_numbers_peaks_at_its_value_and_rules_nothing_out():
    domain = Int(1, 64, log=True, prior=Near(8, spread=0.1))
    values = [domain.decode(u) for u in CUBE]
    counts = np.bincount(values, minlength=65)[1:]
    without = np.bincount([Int(1, 64, log=True).decode(u) for u in CUBE], minlength=65)[1:]
    assert np.argmax(counts / without) == 7
    assert (counts >= 0.19 * without - 1).all()


PRIORS = st.one_of(
    st.builds(Near, st.just(3), st.floats(1e-3, 10), st.floats(0.01, 1)),
    st.builds(
        Weights, st.lists(st.floats(0, 5), min_size=5, max_size=5).filter(lambda w: sum(w) > 0.01), st.floats(0.01, 1)
    ),
)


@given(PRIORS, st.floats(0, 1))
def test_values_come_back_through_the_cube_and_cells_tile_it(prior, u):
    for domain in (Int(1, 5, prior=prior), Ordinal([1, 2, 3, 4, 5], prior=prior)):
        value = domain.decode(u)
        assert domain.decode(domain.encode(value)) == value
        edges, places = domain.edges, domain.places
        assert edges[0] == 0
        assert edges[-1] == 1
        assert (np.diff(edges) > 0).all()
        assert ((edges[:-1] < places) & (places < edges[1:])).all()
        np.testing.assert_allclose([domain.encode(v) for v in range(1, 6)], places, atol=1e-12)


@given(st.floats(1, 5), st.floats(0.01, 2), st.floats(0.01, 1))
def test_continuous_values_come_back_through_the_cube(value, spread, doubt):
    domain = Float(1, 5, prior=Near(2.5, spread, doubt))
    assert domain.decode(domain.encode(value)) == pytest.approx(value, abs=1e-9)


@given(PRIORS)
def test_priors_survive_json(prior):
    again = prior_from_json(json.loads(json.dumps(prior.to_json())))
    assert again == prior
    space = Space({"a": Int(1, 5, prior=prior)})
    assert Space.from_json(space.to_json()) == space
    assert Space.from_json(space.to_json()).decode([0.3]) == space.decode([0.3])
    assert space != Space({"a": Int(1, 5)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Near(1, spread=0), "spread must be a number above 0, got 0"),
        (lambda: Near(1, spread=float("inf")), "spread must be a number above 0"),
        (lambda: Near(1, doubt=0), r"doubt must be a number in \(0, 1\], got 0"),
        (lambda: Near(1, doubt=True), "doubt must be"),
        (lambda: Weights([]), "not all 0"),
        (lambda: Weights([0, 0]), "not all 0"),
        (lambda: Weights([1, -1]), "at least 0"),
        (lambda: Weights([1, float("nan")]), "at least 0"),
        (lambda: Weights("ab"), "must be a list of numbers, got 'ab'"),
        (lambda: Weights(3), "must be a list of numbers, got 3"),
        (lambda: Categorical(["a", "b"], prior=Weights([1, 2, 3])), "3 weights for the 2 values"),
        (lambda: Float(0, 1, prior=Near(2)), "2 is not in Float"),
        (lambda: Float(0, 1, prior=0.5), "prior must be a"),
        (lambda: prior_from_json({"kind": "strange"}), "does not describe a prior"),
        (lambda: prior_from_json({"kind": []}), "does not describe a prior"),
        (lambda: prior_from_json("near"), "does not describe a prior"),
        (lambda: prior_from_json({"kind": "near", "value": 1, "more": 2}), "does not describe a prior"),
    ],
)
def test_a_prior_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()
