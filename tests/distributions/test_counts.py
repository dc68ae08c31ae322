"""Counts of extreme parameters: entropies against sums of 40 digits, samples, quantiles and moments beyond 2^53."""

import mpmath as mp
import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgValueError
from scg.testing import check_gradient


def total(log_p, low, high):
    """-sum p log p over integers, to 40 digits."""
    found = mp.mpf(0)
    for k in range(max(0, int(low)), int(high) + 1):
        l = log_p(k)
        found -= mp.e**l * l
    return found


def poisson(rate):
    sd = mp.sqrt(rate)
    return total(lambda k: k * mp.log(rate) - rate - mp.loggamma(k + 1), rate - 14 * sd - 5, rate + 16 * sd + 60)


def negative_binomial(n, p):
    q = 1 - p
    mean, sd = n * q / p, mp.sqrt(n * q) / p

    def log_p(k):
        return mp.loggamma(n + k) - mp.loggamma(n) - mp.loggamma(k + 1) + n * mp.log(p) + k * mp.log(q)

    return total(log_p, mean - 14 * sd, mean + 18 * sd + 90 / p)


def binomial(n, p):
    q, sd = 1 - p, mp.sqrt(n * p * (1 - p))

    def log_p(k):
        ways = mp.loggamma(n + 1) - mp.loggamma(n - k + 1) - mp.loggamma(k + 1)
        return ways + k * mp.log(p) + (n - k) * mp.log(q)

    return total(log_p, n * p - 14 * sd - 3, min(n, n * p + 16 * sd + 40))


CASES = [
    *[(dist.Poisson, poisson, (r,)) for r in (1e-9, 1e-3, 0.5, 3.0, 99.0, 101.0, 1000.0)],
    *[
        (dist.NegativeBinomial, negative_binomial, (n, p))
        for n, p in (
            (0.5, 0.4),
            (1.0, 0.5),
            (1e-3, 0.2),
            (50.0, 0.3),
            (399.0, 0.5),
            (500.0, 0.6),
            (500.0, 0.4),
            (3.0, 0.05),
            (1e6, 0.9999),
            (1e7, 1 - 1e-6),
            (1.0, 1 - 1e-9),
        )
    ],
    *[
        (dist.Binomial, binomial, (n, p))
        for n, p in (
            (1, 0.3),
            (5, 0.5),
            (30, 0.999),
            (1000, 0.3),
            (1599, 0.5),
            (1601, 0.5),
            (10**5, 1e-3),
            (10**5, 1e-9),
            (10**9, 1e-9),
            (10**12, 1e-9),
        )
    ],
]


@pytest.mark.parametrize("make, exact, parameters", CASES, ids=lambda x: getattr(x, "__name__", None))
def test_entropies_have_twelve_digits(make, exact, parameters):
    with mp.workdps(40):
        expected = exact(*[x if isinstance(x, int) else mp.mpf(x) for x in parameters])
        found = float(make(*parameters).entropy())
        assert abs(mp.mpf(found) - expected) <= 1e-12 * expected


@pytest.mark.fast
def test_a_lattice_and_an_integral_meet():
    """On both sides of where one goes over into the other, and a batch of all kinds."""
    n = np.array([401.0, 399.0, 401.0, 2.0])
    p = np.array([0.5 - 1e-3, 0.5, 0.5 + 2e-3, 1e-3])
    whole = dist.NegativeBinomial(n, p).entropy()
    np.testing.assert_allclose(whole, [dist.NegativeBinomial(*x).entropy() for x in zip(n, p, strict=True)], rtol=1e-13)
    p = 0.5 + np.array([-1e-9, 1e-9])
    assert abs(np.diff(dist.NegativeBinomial(400.001, p).entropy())[0]) < 1e-6
    assert abs(dist.Binomial(1600, 0.5).entropy() - dist.Binomial(1600, 0.5 + 1e-7).entropy()) < 1e-12


@pytest.mark.fast
def test_entropies_of_what_is_certain_are_zero():
    for d in (
        dist.Binomial(7, [0.0, 1.0]),
        dist.Binomial(0, [0.3, 0.4]),
        dist.Poisson([0.0, 0.0]),
        dist.NegativeBinomial([2.0, 1e9], 1.0),
    ):
        assert np.array_equal(d.entropy(), [0.0, 0.0])
    assert dist.NegativeBinomial(np.float32(2), np.float32(0.3)).entropy().dtype == np.float32


def test_entropies_have_derivatives_and_plans():
    n, l, k = np.array([2.0, 900.0, 0.3]), np.array([0.3, -0.2, -5.0]), np.array([5.0, 1e5, 4.0])
    check_gradient(lambda n, l: dist.NegativeBinomial(n, logits=l).entropy(), n, l, order=2)
    check_gradient(lambda l: dist.Binomial(k, logits=l).entropy(), l, order=2)
    check_gradient(lambda r: dist.Poisson(r).entropy(), np.array([0.4, 50.0, 400.0]), order=2)
    fn = scg.value_and_grad(lambda l: np.sum(dist.NegativeBinomial(n, logits=l).entropy()))
    compiled = scg.compile(fn)
    for shift in (0.0, 0.5, -40.0, 3.0):  # the third is beyond the points of the first
        for found, right in zip(compiled(l + shift), fn(l + shift), strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-12)


def test_samples_of_extreme_parameters():
    """Beyond what NumPy draws a negative binomial is a Poisson of a gamma rate: mean and variance of z p / n."""
    rng = np.random.default_rng(0)
    assert np.sum(dist.Binomial(10**5, 1e-9).sample(rng, 20_000)) < 12  # 2 are expected
    for n, p in ((3.0, 1e-20), (3.0, 1e-200), (1e20, 0.5)):
        z = dist.NegativeBinomial(n, p).sample(rng, 40_000) / n * p / (1 - p)
        assert abs(np.mean(z) - 1) < 5 * max(np.std(z), 1e-16) / 200
        assert n > 1e9 or abs(np.var(z) - 1 / n) < 5 * np.std((z - 1) ** 2) / 200
    assert dist.NegativeBinomial(np.float32(3), logits=np.float32(-60)).sample(rng, 3).dtype == np.float32
    with pytest.raises(ScgValueError, match="greater than any number of float64"):
        dist.NegativeBinomial(3.0, logits=-800.0).sample(rng)
    with pytest.raises(ScgValueError, match="for n below 2\\^63, got 1e\\+19"):
        dist.Binomial(1e19, 0.5).sample(rng)


@pytest.mark.fast
def test_quantiles_and_moments_of_extreme_parameters():
    u = np.array([0.1, 0.5, 0.999])
    for d in (dist.Binomial(1e12, 0.5), dist.NegativeBinomial(3.0, 1e-20), dist.Poisson(1e17)):
        z = d.icdf(u)
        assert np.all(d.cdf(z) >= u) and np.all(d.cdf(z - np.maximum(1, 1e-9 * z)) < u)
    assert dist.NegativeBinomial(1e-3, 1e-300).variance == np.inf
    assert dist.NegativeBinomial(3.0, 1e-160).variance == pytest.approx(3e320)
    assert dist.Binomial(1e5, 1e-9).variance == pytest.approx(1e-4 * (1 - 1e-9), rel=1e-15)
    np.testing.assert_allclose(dist.Binomial(1e5, 1e-9).log_prob([0.0, 1.0]), [-1e-4, np.log(1e-4) - 1e-4], atol=2e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_entropy_of_long_trials_goes_on_where_their_probability_is_rounded_to_zero(dtype):
    """-log p - (q / p) log q, p = exp(l): 1 - l as l goes to minus infinity."""
    l = np.array([-40.0, -600.0, -1000.0], dtype)
    entropy = lambda l: np.sum(dist.Geometric(logits=l).entropy())
    np.testing.assert_allclose(dist.Geometric(logits=l).entropy(), 1 - l, 4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(scg.grad(entropy)(l), -1, 4 * np.finfo(dtype).eps)
