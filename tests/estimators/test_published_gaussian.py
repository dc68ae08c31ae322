"""The Gaussian table of Mohamed et al. (2020): f(x) = (x - k)^2, x ~ N(mu, sigma^2), d = mu - k; exact variances by
Gauss rules."""

import math

import numpy as np
import pytest

import scg
from scg import distributions as dist
from tests.support.oracle import moments

pytestmark = pytest.mark.fast

POINTS = [(-3.0, 1.0, 1.0), (0.5, -1.2, 1.0), (2.0, 0.3, 0.4), (1.0, 1.0, 2.5)]


def quadratic(estimator, k):
    def cost(t, rng):
        return (scg.sample(dist.Normal(t[0], t[1]), estimator, rng=rng) - k) ** 2

    return cost


def check(estimator, k, mu, sigma, variances):
    mean, variance, exact = moments(quadratic(estimator, k), np.array([mu, sigma]))
    np.testing.assert_allclose(exact, [2 * (mu - k), 2 * sigma], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(mean, exact, rtol=1e-8, atol=1e-10)
    for found, expected in zip(variance, variances, strict=True):
        assert expected is None or found == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize(("k", "mu", "sigma"), POINTS)
def test_score_function(k, mu, sigma):
    d = mu - k
    variances = d**4 / sigma**2 + 14 * d**2 + 15 * sigma**2, 2 * d**4 / sigma**2 + 60 * d**2 + 74 * sigma**2
    check(scg.ScoreFunction(), k, mu, sigma, variances)
    if (k, mu, sigma) == (-3, 1, 1):
        assert variances == (495, 1546)


@pytest.mark.parametrize(("k", "mu", "sigma"), POINTS)
def test_best_constant_baseline(k, mu, sigma):
    """b = E[f s^2] / E[s^2] with s the score: d^2 + 3 sigma^2 for mu, d^2 + 5 sigma^2 for sigma."""
    d = mu - k
    for_mu, for_sigma = 8 * d**2 + 6 * sigma**2, 40 * d**2 + 24 if sigma == 1 else None
    check(scg.ScoreFunction(baseline=scg.Constant(d**2 + 3 * sigma**2)), k, mu, sigma, (for_mu, None))
    check(scg.ScoreFunction(baseline=scg.Constant(d**2 + 5 * sigma**2)), k, mu, sigma, (None, for_sigma))
    for other in (-0.5, 0.5):  # and no other constant is better
        worse = moments(
            quadratic(scg.ScoreFunction(baseline=scg.Constant(d**2 + 3 * sigma**2 + other)), k), np.array([mu, sigma])
        )[1]
        assert worse[0] > for_mu


@pytest.mark.parametrize(("k", "mu", "sigma"), POINTS)
def test_pathwise(k, mu, sigma):
    check(scg.Reparameterized(), k, mu, sigma, (4 * sigma**2, 4 * (mu - k) ** 2 + 8 * sigma**2))


@pytest.mark.parametrize(("k", "mu", "sigma"), POINTS)
def test_measure_valued_coupled(k, mu, sigma):
    variance = (mu - k) ** 2 * (16 / math.pi - 4)
    check(scg.MeasureValued(), k, mu, sigma, (variance, None))
    if (k, mu, sigma) == (-3, 1, 1):
        assert variance == pytest.approx(17.4873, abs=5e-5)


def test_measure_valued_coupled_for_sigma():
    """The normal e = u m has E[m e] = 3/2, and m^2 - e^2 = w^2 has variance 4: Var = 4 d^2 + 4 sigma^2. Sampled; 5
    standard errors, 6e-7 of false alarms."""
    n, k, mu, sigma = 40_000, -3.0, 1.0, 0.7
    graph = scg.trace(quadratic(scg.MeasureValued(), k), np.array([mu, sigma]), rng=np.random.default_rng(0))
    g = graph.gradients(rng=np.random.default_rng(1), replicates=n)[:, 1]
    squares = (g - 2 * sigma) ** 2
    assert abs(squares.mean() - 4 * (mu - k) ** 2 - 4 * sigma**2) < 5 * squares.std() / math.sqrt(n)


@pytest.mark.parametrize("shape", ["cos", "bell"])
def test_which_is_better_flips_with_k(shape):
    """For cos(kx) and exp(-k x^2) at mu = sigma = 1: pathwise for small k, score function for large ones; variances
    against closed integrals."""
    better = []
    for k in (0.1, 4.0 if shape == "cos" else 2.0):
        f = (lambda z, k=k: np.cos(k * z)) if shape == "cos" else lambda z, k=k: np.exp(-k * z * z)
        slope = (lambda z, k=k: -k * np.sin(k * z)) if shape == "cos" else lambda z, k=k: -2 * k * z * f(z)
        e = np.linspace(-12, 12, 200_001)
        p = np.exp(-e * e / 2) * (e[1] - e[0]) / math.sqrt(2 * math.pi)  # the trapezoid rule, exact here to rounding
        expected = [p @ g**2 - (p @ g) ** 2 for g in (f(1 + e) * e, slope(1 + e))]
        found = []
        for estimator in (scg.ScoreFunction(), scg.Reparameterized()):
            cost = lambda t, rng, r=estimator, f=f: f(scg.sample(dist.Normal(t[0], 1.0), r, rng=rng))
            mean, variance, exact = moments(cost, np.array([1.0]), points=170)
            assert mean == pytest.approx(exact, rel=1e-8)
            found.append(variance[0])
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        better.append("score function" if found[0] < found[1] else "pathwise")
    assert better == ["pathwise", "score function"]
