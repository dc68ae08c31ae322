"""Truncated normal distributions: far out, on narrow windows, in float32."""

import mpmath
import numpy as np
import pytest

import scg
from scg import distributions as dist

pytestmark = pytest.mark.fast


def _truncated(loc, scale, low, high):
    """Mean, variance and entropy of a truncated normal distribution by its closed forms, to as many digits as mpmath
    works with."""
    a, b = (low - loc) / scale, (high - loc) / scale
    sign = -1 if a < -b else 1  # upper tails do not cancel
    a, b = (a, b) if sign == 1 else (-b, -a)
    mass = mpmath.erfc(a / mpmath.sqrt(2)) / 2 - mpmath.erfc(b / mpmath.sqrt(2)) / 2
    pa, pb = mpmath.npdf(a) / mass, mpmath.npdf(b) / mass
    first, second = pa - pb, (0 if mpmath.isinf(a) else a * pa) - (0 if mpmath.isinf(b) else b * pb)
    entropy = mpmath.log(2 * mpmath.pi * mpmath.e) / 2 + mpmath.log(scale * mass) + second / 2
    return loc + sign * scale * first, scale * scale * (1 + second - first * first), entropy


@pytest.mark.parametrize("dtype", [float, np.float32])
@pytest.mark.parametrize(
    "given",
    [
        (0, 1, 1000, np.inf),
        (0, 1, -1e5, -1e4),
        (0, 1e5, 0, 1),
        (0, 1, -1e-8, 2e-8),
        (0, 1, 5, 5 + 1e-4),
        (0, 100, 0, 1),
        (0, 1, 30, np.inf),
        (0, 1, 8, 8.25),
        (0.3, 0.7, -1, 2),
        (0.3, 5, -1, 2),
        (0, 1, -np.inf, -3),
        (0, 1, -np.inf, 3),
        (0, 1, -8, 9),
        (0, 1, 0.99, 2.98),
        (0, 1, 0.99, 3),
        (0, 1, 1.01, 40),
        (5, 2, -np.inf, 5),
        (1000, 0.25, 0, 1),
        (0, 1, -0.5, 0.49),
        (0, 1, -np.inf, np.inf),
    ],
    ids=str,
)
def test_moments_of_truncated_normal_distributions_far_out_and_on_narrow_windows(given, dtype):
    """Against 100 digits, and derivatives by all parameters against differences of these. Those by loc and scale are
    what is left of the ones by the ends: where all move at once, or are stretched, so do the moments. So they have the
    errors of the latter.
    """
    parameters = [np.array(x, dtype) for x in given]
    if not parameters[2] < parameters[3]:
        return
    by = [scg.parameter(p) for p in parameters]
    distribution = dist.TruncatedNormal(*by)
    found = distribution.mean, distribution.variance, distribution.entropy()
    with mpmath.workdps(100):
        exact = [mpmath.mpf(float(p)) for p in parameters]
        expected = _truncated(*exact)
        h = mpmath.mpf(10) ** -40
        slopes = np.zeros((3, 4))
        for k in range(4):
            if np.isfinite(parameters[k]):
                ends = [_truncated(*exact[:k], exact[k] + t, *exact[k + 1 :]) for t in (h, -h)]
                slopes[:, k] = [float((up - down) / (2 * h)) for up, down in zip(*ends, strict=True)]
    loc, scale, *both = (float(p) for p in parameters)
    rounding = 2 * np.finfo(dtype).eps * (dtype is not float) + 2e-14  # moments are taken in float64
    reach = max([abs(end - loc) / scale for end in both if np.isfinite(end)], default=0)
    window = min(both[1] - both[0], scale)
    for moment, value, slope, size in zip(found, expected, slopes, (window, 0, 1), strict=True):
        assert (
            moment.dtype == dtype
            and abs(float(moment.raw) - float(value)) <= rounding * abs(float(value)) + 2e-14 * size
        )
        got = np.array([float(g) for g in scg.gradients(moment, by)])
        ends = np.abs(slope[2:]).max()
        assert np.all(
            np.abs(got - slope) <= 5e-14 * np.array([ends, reach * ends, ends, ends]) + rounding * np.abs(slope)
        )


@pytest.mark.parametrize("dtype", [float, np.float32])
@pytest.mark.parametrize("low, high", [(-1e-8, 2e-8), (0.5, 0.5 + 2.0**-20), (-3.0, -3.0 + 2.0**-18)])
def test_densities_of_truncated_normal_distributions_on_narrow_windows(low, high, dtype):
    """Almost uniform: phi is constant to x w relatively. The cdf is the exponential of a difference of logarithms, of
    the size of log w."""
    low, high = np.array(low, dtype), np.array(high, dtype)
    w, by = float(high) - float(low), [scg.parameter(x) for x in (low, high)]
    distribution = dist.TruncatedNormal(np.zeros((), dtype), 1.0, *by)
    near, z = 4 * w + 4 * np.finfo(dtype).eps * (1 - np.log(w)), np.asarray(low + 0.5 * w, dtype)
    density, below = distribution.log_prob(z), distribution.cdf(z)
    assert density.dtype == dtype
    assert abs(density.raw + np.log(w)) <= near
    assert abs(below.raw - (float(z) - float(low)) / w) <= near
    np.testing.assert_allclose(scg.gradients(density, by), [1 / w, -1 / w], rtol=near)
    np.testing.assert_allclose(scg.gradients(below, by), [-0.5 / w, -0.5 / w], rtol=near)


def test_truncated_normal_distributions_keep_float32_beside_python_numbers():
    one = np.ones(3, np.float32)
    for distribution in (
        dist.TruncatedNormal(one, 1.0, -1.0, 2.0),
        dist.TruncatedNormal(0.0, one, -np.inf, 2.0),
        dist.TruncatedNormal(0.0, 1.0, -one, 2.0),
        dist.TruncatedNormal(0.0, 1.0, -one, np.inf),
    ):
        for found in (
            distribution.log_prob(one),
            distribution.cdf(one),
            distribution.icdf(0.5 * one),
            distribution.mean,
            distribution.variance,
            distribution.entropy(),
            distribution.sample(np.random.default_rng(0)),
        ):
            assert found.dtype == np.float32
        exact = dist.TruncatedNormal(
            *[np.broadcast_to(np.asarray(p, float), 3) for p in distribution.parameters.values()]
        )
        np.testing.assert_allclose(distribution.log_prob(one), exact.log_prob(one), rtol=1e-6)
    assert (
        np.shape(dist.TruncatedNormal(0.0, 1.0, -1.0, 2.0).log_prob(0.5))
        == np.shape(dist.TruncatedNormal(0.0, 1.0, -1.0, 2.0).mean)
        == ()
    )


@pytest.mark.parametrize("far", [1e10, 1e154, 1e200, 1e300, np.inf])
def test_the_cdf_is_0_and_1_however_far_out(far):
    for low, high in ((-np.inf, -8.0), (8.0, np.inf)):
        distribution = dist.TruncatedNormal(0.0, 1.0, low, high)
        assert distribution.cdf(-far) == 0 and distribution.cdf(far) == 1
