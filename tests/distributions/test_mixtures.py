"""Mixtures: supports, derivatives, moments."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError

pytestmark = pytest.mark.fast


@pytest.mark.slow
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


def windows(t, gap):
    """Two uniform ones, the second of which begins ``gap`` after the end of the first, and their weights."""
    low, width = np.stack([t, 2 * t + 1 + gap]), np.stack([0 * t + 1, 0 * t + 2.5])
    return dist.Uniform(low, low + width), np.stack([0 * t, 1.5 * t])


def window_mean(t, gap, power=2):
    """E[z^power] of that mixture."""
    ends = np.array([[t, t + 1], [2 * t + 1 + gap, 2 * t + 3.5 + gap]])
    moments = np.diff(ends ** (power + 1), axis=1)[:, 0] / ((power + 1) * np.diff(ends, axis=1)[:, 0])
    weight = 1 / (1 + np.exp(-1.5 * t))
    return (1 - weight) * moments[0] + weight * moments[1]


def slopes(cost, t):
    rng = np.random.default_rng(0)
    found = scg.trace(cost, np.array(t), rng=rng).gradients(rng=rng, replicates=40_000)
    return np.mean(found), np.std(found) / 200


@pytest.mark.parametrize("gap", [-1.3, -0.4, 0.8])
def test_components_that_lie_apart_are_chosen_by_a_sample(gap):
    """The gap is one of 0.4 + gap at t = 0.4: the jump of the quantile function over it moves with the weights, and no
    path knows of it. What is advised is unbiased, and so is the path where the weights stay, or without a gap."""
    h, at = 1e-4, 0.4
    exact = (window_mean(at + h, gap) - window_mean(at - h, gap)) / (2 * h)

    def by_path(t, rng):
        component, logits = windows(t, gap)
        return scg.sample(dist.Mixture(component, logits=logits), scg.Reparameterized(), rng=rng) ** 2

    def chosen(t, rng):
        component, logits = windows(t, gap)
        x = scg.sample(component, scg.Reparameterized(), rng=rng)
        k = scg.sample(dist.OneHotCategorical(logits=logits), scg.ScoreFunction(), rng=rng)
        return np.sum(k * x, axis=-1) ** 2

    for cost in [chosen] + [by_path] * (gap + at <= 0):
        mean, error = slopes(cost, at)
        assert abs(mean - exact) < 5.3 * error  # two tails of 1e-7 each
    if gap + at > 0:
        with pytest.raises(EstimatorError, match=r"np.sum\(k \* x, axis=-1\).*OneHotCategorical"):
            slopes(by_path, at)


def test_components_may_lie_apart_where_their_weights_stay():
    def cost(t, rng, weights=np.array([0.3, 0.7])):
        component = windows(t, 0.8)[0]
        return scg.sample(dist.Mixture(component, weights=weights), scg.Reparameterized(), rng=rng)

    mean, error = slopes(cost, 0.4)
    assert abs(mean - (0.3 + 2 * 0.7)) < 5.3 * error + 1e-9


def test_a_gap_that_opens_in_another_run_is_refused():
    """The gap is one of t - 1."""

    def cost(t, rng):
        component = dist.Uniform(np.stack([0 * t, t]), np.stack([0 * t + 1, 0 * t + 4]))
        mixture = dist.Mixture(component, logits=np.stack([0 * t, t]))
        return scg.sample(mixture, scg.Reparameterized(), rng=rng, name="z") ** 2

    rng = np.random.default_rng(0)
    graph, step = scg.trace(cost, np.array(0.3), rng=rng), scg.compile(scg.value_and_grad(cost))
    for t in (0.3, 0.9):
        graph.run(parameters=np.array(t), rng=rng)
        step(np.array(t), rng)
    for call in (lambda t: graph.run(parameters=t, rng=rng), lambda t: step(t, rng)):
        with pytest.raises(EstimatorError, match="z.*: Reparameterized needs .*lie apart"):
            call(np.array(1.2))


def test_windows_that_touch_by_rounding_do_not_lie_apart():
    low = np.cumsum(np.full(40, 0.1))
    component = dist.Uniform(low, np.append(low[1:], 4.1) * (1 - 2**-53))

    def cost(logits, rng):
        return scg.sample(dist.Mixture(component, logits=logits), scg.Reparameterized(), rng=rng)

    assert np.isfinite(scg.grad(cost)(np.zeros(40), rng=np.random.default_rng(0))).all()


def test_an_exact_mean_needs_no_path_over_a_gap():
    """By the score function, where the windows stay: d/dt of sigmoid(t) (E2 - E1)."""
    apart = dist.TruncatedNormal(np.array([0.0, 3.0]), 1.0, np.array([-1.0, 2.0]), np.array([1.0, 4.0]))

    def cost(t, rng):
        mixture = dist.Mixture(apart, logits=np.stack([0 * t, t]))
        return scg.sample(mixture, scg.ScoreFunction(), rng=rng) ** 2

    second = apart.variance + apart.mean**2
    p = 1 / (1 + np.exp(-0.3))
    np.testing.assert_allclose(
        scg.exact.gradient(cost, np.array(0.3)), p * (1 - p) * (second[1] - second[0]), rtol=1e-8
    )
