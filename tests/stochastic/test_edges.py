"""Probabilities and rates at an end of their range, where some values are never drawn."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError

FAMILIES = {  # of p: with the mean of z and of z^2
    "coin": (lambda p: dist.Bernoulli(probs=p), lambda p: (p, p)),
    "counts": (lambda p: dist.Poisson(p), lambda p: (p, p + p * p)),
    "three coins": (lambda p: dist.Binomial(3, probs=p), lambda p: (3 * p, 3 * p * (1 - p) + 9 * p * p)),
    "categories": (lambda p: dist.Categorical(probs=np.stack([1 - p, p])), lambda p: (p, p)),
    "vectors": (
        lambda p: dist.Independent(dist.Bernoulli(probs=np.stack([p]))),
        lambda p: (p, p),
    ),
}
AT_ZERO = {"score": scg.ScoreFunction, "steps": scg.StochasticDerivative, "pairs": scg.CoupledPairs}


def costs(family, estimator, inner):
    def cost(t, rng):
        z = scg.sample(family(inner(t)), estimator, rng=rng, name="z")
        return np.sum((1.0 * z + 1.0) ** 2)

    return cost


@pytest.mark.parametrize("estimator", AT_ZERO)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_second_derivative_where_a_probability_touches_an_end_is_that_of_all_values_or_refused(name, estimator):
    """E[(z + 1)^2] = E[z^2] + 2 E[z] + 1, and p = t^2 at t = 0: dp = 0, and what is never drawn counts in d2p = 2."""
    family, moments = FAMILIES[name]
    try:
        cost = costs(family, AT_ZERO[estimator](), lambda t: t * t)
        gradient = scg.grad(cost)(0.0, rng=np.random.default_rng(0))
    except EstimatorError as error:
        assert "needs" in str(error)  # no estimator of this distribution
        return
    assert gradient == 0
    with pytest.raises(EstimatorError, match=r"z ~ .*touches an end.*(Enumerate\(\)|a point beside it)") as refusal:
        scg.hessian(cost)(0.0, rng=np.random.default_rng(0))
    if "Enumerate" in str(refusal.value):
        h = 1e-4
        mean = lambda p: moments(p)[1] + 2 * moments(p)[0]
        slope = (mean(h) - mean(0.0)) / h
        found = scg.hessian(costs(family, scg.Enumerate(), lambda t: t * t))(0.0, rng=np.random.default_rng(0))
        np.testing.assert_allclose(found, 2 * slope, 1e-3)


@pytest.mark.parametrize(
    "inner",
    [
        lambda t: scg.special.softmax(t * np.arange(3.0) + np.array([0.0, -np.inf, 0.0]), -1),
        lambda t: scg.special.softmax(t * np.arange(3.0) + np.array([0.0, -900.0, 0.0]), -1),
        lambda t: np.stack([0 * t, t, 1 - t]),
    ],
)
def test_what_stays_at_the_end_has_second_derivatives(inner):
    """In the mean over the values that are drawn: (E[f])'' of f = (z + 1)^2."""
    family = lambda p: dist.Categorical(probs=p)
    values, h, t = np.arange(1.0, 4.0) ** 2, 1e-3, 0.4
    mean = lambda t: np.sum(inner(t) * values)
    expected = (mean(t + h) - 2 * mean(t) + mean(t - h)) / h**2
    graph = scg.trace(costs(family, scg.ScoreFunction(), inner), np.array(t), rng=np.random.default_rng(0))
    hessian = [
        scg.hessian(costs(family, scg.ScoreFunction(), inner))(t, rng=np.random.default_rng(s)) for s in range(200)
    ]
    assert abs(np.mean(hessian) - expected) <= 6 * np.std(hessian) / np.sqrt(200) + 1e-6
    assert np.isfinite(scg.exact.moments(graph).mean)


W = np.arange(3.0)


def masked_softmax(t):
    weights = np.exp(t * W + np.array([0.0, -np.inf, 0.0]))
    return weights / np.sum(weights)


MASKED = {  # some of three probabilities stay at an end
    "categories": (lambda t: dist.Categorical(probs=masked_softmax(t)), lambda z: (z + 1.0) ** 2),
    "one-hot": (lambda t: dist.OneHotCategorical(probs=masked_softmax(t)), lambda z: np.sum(z * np.arange(3.0) ** 2)),
    "coins": (lambda t: dist.Bernoulli(probs=np.stack([0 * t, t, 0 * t + 1])), lambda z: np.sum(z * W) ** 2),
    "counts": (lambda t: dist.Binomial(2, probs=np.stack([0 * t, t, 0 * t + 1])), lambda z: np.sum(z * W) ** 2),
    "several": (lambda t: dist.Multinomial(2, probs=masked_softmax(t)), lambda z: np.sum(z * W) ** 2),
}


@pytest.mark.parametrize("name", MASKED)
def test_exact_derivatives_take_probabilities_that_stay_at_an_end(name):
    family, f = MASKED[name]
    cost = lambda t, rng: f(scg.sample(family(t), scg.ScoreFunction(), rng=rng, name="z")) * t
    traced = lambda t: scg.trace(cost, np.array(t), rng=np.random.default_rng(0))
    graph, h = traced(0.3), 1e-3
    ahead, behind = [scg.exact.expectation(traced(t)) for t in (0.3 + h, 0.3 - h)]
    slope, bend = (ahead - behind) / (2 * h), (ahead - 2 * scg.exact.expectation(graph) + behind) / h**2
    np.testing.assert_allclose(scg.exact.gradient(graph), slope, 1e-5)
    np.testing.assert_allclose(scg.exact.hessian(graph), bend, 1e-5)
    for estimator in (scg.ScoreFunction(), scg.Enumerate(), scg.Marginalize()):
        np.testing.assert_allclose(scg.exact.moments(graph.bind(z=estimator)).mean, scg.exact.gradient(graph), 1e-12)


@pytest.mark.parametrize("estimator", [scg.DisARM, scg.CoupledPairs, scg.Enumerate, scg.ScoreFunction])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_coins_that_others_make_certain_have_no_slope_there(steps, estimator):
    """A walk that turns back to 0 is sure to go up there: exp(-|x| / t) is 1 at x = 0, whatever t is."""

    def cost(t, rng):
        x = 0 * t
        for _ in range(steps):
            x = x + 2 * scg.sample(dist.Bernoulli(probs=np.exp(-np.abs(x) / t)), estimator(), rng=rng) - 1
        return x**2

    for seed in range(3):  # runs in which the walk turns back, and others
        graph = scg.trace(cost, np.array(1.5), rng=np.random.default_rng(seed))
        np.testing.assert_allclose(scg.exact.moments(graph).mean, scg.exact.gradient(graph), 1e-10)
