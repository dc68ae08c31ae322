"""Mixtures: supports, derivatives, moments."""

import numpy as np
import pytest

import scg
from scg import distributions as dist

pytestmark = pytest.mark.fast


def test_a_mixture_covers_what_any_of_its_components_covers():
    distribution = dist.Mixture(dist.Uniform(np.array([0.0, 2.0]), np.array([3.0, 5.0])), weights=np.array([0.5, 0.5]))
    np.testing.assert_allclose(
        distribution.icdf(np.array([1.0, 0.0, 0.1, 0.5, 0.9])), [5.0, 0.0, 0.6, 2.5, 4.4], rtol=1e-12
    )
    assert np.all(
        distribution.support.contains(distribution.sample(np.random.default_rng(0), 50))
    ) and not distribution.support.contains(5.1)
    scg.testing.check_distribution(distribution, rng=np.random.default_rng(0))
    counts = dist.Mixture(dist.Binomial(np.array([2, 5]), 0.5), weights=np.array([0.5, 0.5]))
    np.testing.assert_array_equal(counts.support.contains(np.array([0, 5, 6, 1.5])), [True, True, False, False])


def test_a_mixture_of_moving_ends_is_reparameterized():
    """d/dt E[z] by differences of the mean."""
    low = np.array([-1.0, -2.0])

    def distribution(t):
        return dist.Mixture(dist.TruncatedNormal(t, 1.0, low, 2.0), weights=np.array([0.5, 0.5]))

    theta = np.array([0.0, 1.0])
    graph = scg.trace(
        lambda t, rng: scg.sample(distribution(t), scg.Reparameterized(), rng=rng), theta, rng=np.random.default_rng(0)
    )
    draws = graph.gradients(rng=np.random.default_rng(1), replicates=4000)
    step = 1e-5 * np.eye(2)
    exact = [(distribution(theta + h).mean - distribution(theta - h).mean) / 2e-5 for h in step]
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.mean(draws, axis=0) - exact) < 5.3 * error)  # two tails of 1e-7 each


def test_mixtures_of_components_without_finite_moments():
    """An infinite mean makes the mean and the variance infinite, unless its weight is zero; no variance (nan) is none
    of the mixture either."""
    for shape, weights, mean, variance in (
        ([0.5, 3.0], [0.5, 0.5], np.inf, np.inf),
        ([0.5, 3.0], [0.0, 1.0], 1.5, 0.75),
        ([0.5, 3.0], [1.0, 0.0], np.inf, np.inf),
        ([1.5, 3.0], [0.5, 0.5], 2.25, np.inf),
        ([3.0, 3.0], [0.5, 0.5], 1.5, 0.75),
    ):
        distribution = dist.Mixture(dist.Pareto(1.0, np.array(shape)), weights=np.array(weights))
        np.testing.assert_allclose([distribution.mean, distribution.variance], [mean, variance], rtol=1e-15)
        by_logits = dist.Mixture(
            dist.Pareto(1.0, np.array(shape)), logits=np.array([-np.inf if w == 0 else 0.0 for w in weights])
        )
        np.testing.assert_allclose([by_logits.mean, by_logits.variance], [mean, variance], rtol=1e-15)
    vectors = dist.Mixture(
        dist.Independent(dist.Pareto(1.0, np.array([[0.5, 3.0], [3.0, 3.0]])), 1), weights=np.array([0.5, 0.5])
    )
    np.testing.assert_allclose([vectors.mean, vectors.variance], [[np.inf, 1.5], [np.inf, 0.75]], rtol=1e-15)
    assert np.isnan(dist.Mixture(dist.StudentT(np.array([0.5, 3.0])), weights=np.array([0.5, 0.5])).variance)
    assert dist.Mixture(dist.StudentT(np.array([0.5, 3.0])), weights=np.array([0.0, 1.0])).variance == 3
    a, w = scg.parameter(np.array([0.5, 3.0])), scg.parameter(np.array([0.0, 1.0]))
    mixture = dist.Mixture(dist.Pareto(1.0, a), weights=w)
    for moment, slope in ((mixture.mean, -0.25), (mixture.variance, -1.25)):  # d/da a/(a-1), and of a / ((a-1)^2 (a-2))
        np.testing.assert_allclose(scg.gradients(moment, [a])[0], [0, slope], rtol=1e-14)
