"""Moments of estimators that look at the cost at other values of a sample, where an ``if`` looks at it as well."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import GuardError

pytestmark = pytest.mark.fast

T = np.array([0.3, -0.2, 0.4])
ESTIMATORS = [
    scg.DisARM,
    scg.Enumerate,
    scg.MeasureValued,
    lambda: scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    scg.CoupledPairs,
]


def coins(t, rng, estimator, **options):
    return scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng, **options)


def matrix(b):
    return np.stack([np.stack([2 + b[0], 0.3 * b[1]]), np.stack([0.2 + 0 * b[2], b[2] - 1.5])])


def asserted(t, rng, estimator, checks):
    b = coins(t, rng, estimator)
    if checks:
        assert np.all(b < 2)
        if not np.isfinite(np.sum(b * t)):
            raise ValueError
    return np.sum(b * t) ** 2


def spectral(t, rng, estimator, checks):
    """The eigenvalues of a matrix of 2 x 2 whose discriminant is positive; NumPy's are real then, and complex else."""
    m = matrix(coins(t, rng, estimator))
    if checks:
        return np.max(np.linalg.eigvals(m)) * t[0]
    half, determinant = (m[0, 0] + m[1, 1]) / 2, m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]
    return (half + np.sqrt(half**2 - determinant)) * t[0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("cost", [asserted, spectral])
def test_a_check_that_holds_everywhere_changes_no_moment(cost, estimator):
    found, plain = (scg.exact.moments(cost, T, estimator=estimator, checks=checks) for checks in (True, False))
    np.testing.assert_allclose(found.mean, plain.mean, rtol=1e-10, atol=1e-14)
    if cost is asserted:  # the other cost is taken apart in another way
        np.testing.assert_allclose(found.variance, plain.variance, rtol=1e-9, atol=1e-14)
    exact = scg.exact.gradient(cost, T, estimator=scg.ScoreFunction, checks=False)
    np.testing.assert_allclose(found.mean, exact, rtol=1e-10)


def test_a_check_that_holds_everywhere_makes_nothing_wider():
    t = np.linspace(-0.3, 0.4, 6)
    leave_one_out = ESTIMATORS[3]
    one, two = (scg.exact.moments(asserted, t, estimator=leave_one_out, checks=c, full=True) for c in (True, False))
    assert one.width == two.width
    np.testing.assert_allclose(one.value.variance, two.value.variance, rtol=1e-10)


def test_a_check_that_few_samples_fail_leaves_these_out():
    """The way on which both coins are one, of probability 1e-14, is none of those that count."""

    def cost(t, rng):
        b = coins(t, rng, scg.ScoreFunction)
        assert np.sum(b) < 2
        return np.sum(b) / (2 - np.sum(b))

    t = np.full(2, np.log(1e-7))
    found = scg.exact.moments(cost, t)
    p = 1e-7 / (1 + 1e-7)
    np.testing.assert_allclose(found.mean, p * (1 - p) * (1 - 2 * p), rtol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_if_on_another_sample_is_no_matter(estimator):
    def cost(t, rng, choose=None):
        b, k = coins(t, rng, estimator), scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(), rng=rng)
        if choose is not None:
            return choose(k > 0, np.sum(b) ** 2, 3 * np.sum(b))
        return np.sum(b) ** 2 if k > 0 else 3 * np.sum(b)

    found, plain = scg.exact.moments(cost, T), scg.exact.moments(cost, T, choose=np.where)
    np.testing.assert_allclose(found, plain, rtol=1e-9)


def test_an_if_that_comes_out_otherwise_there_is_refused():
    def cost(t, rng):
        b = coins(t, rng, scg.DisARM)
        return np.sum(b * t) if np.sum(b) > 2 else np.sum(b) ** 2

    with pytest.raises(GuardError, match="comes? out otherwise.*use ScoreFunction|came out .* otherwise"):
        scg.exact.moments(cost, T)
