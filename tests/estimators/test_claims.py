"""Every estimator of the package is held to what it claims: its class attributes are read here, and nothing else is
believed."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.distributions.constraints import finite
from scg.errors import EstimatorError, NotDifferentiable
from scg.extend import Distribution
from scg.stochastic.estimator import Estimator
from tests.support.oracle import first_and_second

pytestmark = pytest.mark.fast

THETA = np.array([0.3, -0.6])


def coins(estimator):
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng)
        return np.sum(b * t) ** 2 + np.prod(b + 0.5) + np.sum((b - 0.45) ** 4)

    return cost


def faces(estimator):
    def cost(t, rng):
        x = scg.sample(dist.OneHotCategorical(logits=np.stack([t[0], t[1], t[0] * t[1]])), estimator(), rng=rng)
        return np.sum(x * np.array([1.0, -2.0, 0.5])) ** 4 * t[0]

    return cost


def points(estimator):
    def cost(t, rng):
        z = scg.sample(dist.Normal(t[0], 1 + t[1] ** 2), estimator(), rng=rng)
        return z**3 * t[1] + z * z

    return cost


@dataclasses.dataclass(frozen=True, eq=False)
class Shifting(Distribution):
    """Uniform on (t, t + 1), of which nothing is known but that its derivative is a mass at t + 1 against one at t."""

    start: Any
    constraints = {"start": finite}

    def sample(self, rng, shape=()):
        return self.detached().start + rng.random(self.full_shape(shape))

    def log_prob(self, value):
        return 0 * value

    def weak_derivatives(self, z, fresh):
        return {"start": lambda: (1.0, self.start + 1 + 0 * z, self.start + 0 * z)}


# how to make one of each, and a graph that it is valid for and that tells bias from none
MADE = {
    "ARM": (scg.ARM, coins),
    "CoupledPairs": (lambda: scg.CoupledPairs(3), faces),
    "DisARM": (scg.DisARM, coins),
    "DoubleControlVariate": (scg.DoubleControlVariate, coins),
    "Enumerate": (scg.Enumerate, coins),
    "GumbelSoftmax": (lambda: scg.GumbelSoftmax(0.5, hard=True), coins),
    "Marginalize": (scg.Marginalize, coins),
    "MeasureValued": (scg.MeasureValued, points),
    "MuProp": (scg.MuProp, coins),
    "REBAR": (lambda: scg.REBAR(temperature=1.0), coins),
    "RELAX": (lambda: scg.RELAX(lambda phi, z: phi * np.tanh(z / 2), np.array(0.7)), coins),
    "RODEO": (scg.RODEO, coins),
    "ReinMax": (scg.ReinMax, faces),
    "Reparameterized": (scg.Reparameterized, points),
    "ScoreFunction": (scg.ScoreFunction, coins),
    "StochasticDerivative": (lambda: scg.StochasticDerivative(prune=True), coins),
    "StraightThrough": (scg.StraightThrough, coins),
    "UnorderedSet": (lambda: scg.UnorderedSet(2), faces),
}
NAMES = [name for name in scg.estimators.__all__ if issubclass(getattr(scg.estimators, name), Estimator)]


def test_none_is_left_out():
    assert sorted(NAMES) == sorted(MADE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_unbiased_is_so_and_biased_is_not(name):
    estimator, graph = MADE[name]
    (found, _), *_ = first_and_second(graph(estimator), THETA, order=1)
    (_, exact), *_ = first_and_second(graph(scg.Reparameterized if graph is points else scg.Enumerate), THETA, order=1)
    bias = np.max(np.abs(found - exact)) / np.max(np.abs(exact))
    if getattr(scg.estimators, name).unbiased:
        assert bias < 1e-10
    else:
        assert bias > 1e-3


ONCE = [
    (name, distribution)
    for name in NAMES
    if not getattr(scg.estimators, name).second_derivatives
    for distribution in (
        lambda t: dist.Bernoulli(logits=t[0]),
        lambda t: dist.OneHotCategorical(logits=t),
        lambda t: dist.Normal(t[0], 1.0),
        lambda t: dist.Poisson(np.exp(t[0])),
    )
    if not MADE[name][0]().objection(distribution(scg.parameter(THETA)))
]


@pytest.mark.parametrize("name, distribution", ONCE)
def test_a_second_derivative_is_refused_with_the_node_and_the_estimators_that_have_them_there(name, distribution):
    """Each that is named is tried: it has the second derivative, of the same program."""

    def cost(t, rng, estimator):
        z = scg.sample(distribution(t), estimator, rng=rng, name="here")
        return np.sum(z * z) * t[1]

    with pytest.raises(NotDifferentiable, match=rf"{name}\(\) of here.* none of higher order") as error:
        scg.hessian(cost)(THETA, rng=np.random.default_rng(0), estimator=MADE[name][0]())
    assert "test_claims.py" in str(error.value)
    offered = re.findall(r"(\w+)\(\)", str(error.value).split("second derivatives use")[1])
    assert offered
    for other in offered:
        estimator = getattr(scg, other)()
        assert estimator.second_derivatives
        found = scg.hessian(cost)(THETA, rng=np.random.default_rng(0), estimator=estimator)
        assert np.isfinite(found).all()


def test_where_no_estimator_has_a_second_derivative_the_refusal_says_so():
    def cost(t, rng):
        return scg.sample(Shifting(t), scg.MeasureValued(), rng=rng, name="here") ** 2

    with pytest.raises(NotDifferentiable, match="no estimator has them"):
        scg.hessian(cost)(np.array(0.3), rng=np.random.default_rng(0))


@pytest.mark.parametrize("name", [name for name in NAMES if getattr(scg.estimators, name).second_derivatives])
def test_a_second_derivative_that_is_claimed_is_right_where_the_first_is(name):
    estimator, graph = MADE[name]
    if not getattr(scg.estimators, name).unbiased:
        return
    _, (found, _), *_ = first_and_second(graph(estimator), THETA)
    _, (_, exact), *_ = first_and_second(graph(scg.Reparameterized if graph is points else scg.Enumerate), THETA)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_requires_is_refused_where_it_is_missing(name):
    """A distribution without a capability that the class asks for fails at the declaration, by a message that names the
    node and another estimator."""
    estimator, _ = MADE[name]
    distributions = [
        dist.Bernoulli(logits=0.1),
        dist.Normal(0.0, 1.0),
        dist.Uniform(0.0, scg.parameter(1.0)),
        dist.OneHotCategorical(logits=np.zeros(3)),
    ]
    lacking = [
        distribution
        for distribution in distributions
        for capability in estimator().requires
        if isinstance(capability, type) and not distribution.has(capability)
    ]
    for distribution in lacking:
        with pytest.raises(EstimatorError, match="here needs.*use|here.*"):
            scg.sample(distribution, estimator(), rng=np.random.default_rng(0), name="here")
    refused = []
    for distribution in distributions:
        try:
            scg.sample(distribution, estimator(), rng=np.random.default_rng(0), name="here")
        except EstimatorError as error:
            refused.append(distribution)
            assert "here" in str(error) and "test_claims.py" in str(error)
    assert refused, f"{name} accepts every distribution"
