"""Truncated normal distributions far in a tail, against mpmath in 80 digits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.testing import check_gradient
from tests.support.drawn import first

mpmath.mp.dps = 80
U = np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])


def beyond(x):
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2


def reference(c, width, t):
    """(share of what is below t, log-density) of the distance t from c, of a standard normal on (c, c + width)."""
    c, t = mpmath.mpf(c), mpmath.mpf(t)
    tail = beyond(c)
    whole = tail - (beyond(c + width) if np.isfinite(width) else 0)
    x = c + t
    return float((tail - beyond(x)) / whole), float(-x * x / 2 - mpmath.log(2 * mpmath.pi) / 2 - mpmath.log(whole))


def mirrored(c, width, side):
    """The distribution, and its value at a distance from the end that is nearer to the mode."""
    if side > 0:
        return dist.TruncatedNormal(0.0, 1.0, c, c + width), lambda t: c + t
    return dist.TruncatedNormal(0.0, 1.0, -c - width, -c), lambda t: -c - t


@given(
    exponent=st.floats(0.5, 7), scales=st.sampled_from([np.inf, 0.5, 3.0, 40.0]), side=st.sampled_from([1, -1]),
    u=st.sampled_from(U),
)  # fmt: skip
def test_densities_and_shares_keep_their_digits(exponent, scales, side, u):
    """Of a value that is given: t = value - c is exact. Nearer than ``FAR`` the log-density is a difference of squares,
    and loses eps c^2, at most 6e-13, of it."""
    c = 10.0**exponent
    distribution, at = mirrored(c, scales / c, side)
    ends = distribution.low, distribution.high
    value = at(-np.log1p(-u) / c)
    value = min(max(value, ends[0]), ends[1])
    t = value - c if side > 0 else -c - value
    share, log_density = reference(c, ends[1] - ends[0], t)
    found = distribution.cdf(value)
    np.testing.assert_allclose(found, share if side > 0 else 1 - share, 1e-11, 1e-12)
    np.testing.assert_allclose(distribution.log_prob(value), log_density, 1e-13, 3e-12)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("scales", [np.inf, 0.5, 3.0])
@pytest.mark.parametrize("c", [49.0, 51.0, 1e3, 1e5])
def test_quantiles_are_those_of_their_probability_but_for_their_own_rounding(c, scales, side):
    """A quantile rounds by eps c, and the density of the share is about c there."""
    distribution, _ = mirrored(c, scales / c, side)
    z = distribution.icdf(U)
    width = distribution.high - distribution.low
    shares = [reference(c, width, t)[0] for t in (z - c if side > 0 else -c - z)]
    tolerance = 4 * np.finfo(float).eps * c * c * (1 if scales > 1 else 2) + (1e-10 if c < 50 else 1e-12)
    np.testing.assert_allclose(shares if side > 0 else 1 - np.array(shares), U, 0, tolerance)


@pytest.mark.parametrize("far", [1e8, 1e20, 1e160, 1e300])
def test_draws_at_the_end_of_the_numbers_lie_at_the_end_of_the_window(far):
    rng = np.random.default_rng(0)
    above, below = dist.TruncatedNormal(0.0, 1.0, far, np.inf), dist.TruncatedNormal(0.0, 1.0, -np.inf, -far)
    for distribution, end in ((above, far), (below, -far)):
        draws = distribution.sample(rng, (5,))
        np.testing.assert_allclose(draws, end, 1e-15)
        np.testing.assert_allclose(distribution.log_prob(end), np.log(far), 1e-15)


@pytest.mark.parametrize("c", first(1, [1e3, 60.0]))
def test_derivatives_far_out(c):
    low = np.array([c, -np.inf])
    high = np.array([np.inf, -c])
    near = np.array([c, -c])

    def distribution(loc, scale):
        return dist.TruncatedNormal(loc, scale, low, high)

    at = np.array(0.1), np.array(1.1)
    check_gradient(lambda loc, scale: distribution(loc, scale).log_prob(near * (1 + 0.1 / c**2)) / c, *at, order=2)
    check_gradient(lambda loc, scale: (distribution(loc, scale).icdf(np.array([0.3, 0.6])) - near) * c, *at, order=2)


def test_second_derivatives_of_half_open_windows_warn_of_nothing():
    def cost(loc):
        distribution = dist.TruncatedNormal(loc, 1.1, np.array([3.0, -np.inf]), np.array([np.inf, -3.0]))
        return np.sum(distribution.log_prob(np.array([3.1, -3.1])))

    step = 1e-3
    differences = (scg.grad(cost)(0.1 + step) - scg.grad(cost)(0.1 - step)) / (2 * step)
    np.testing.assert_allclose(scg.hessian(cost)(0.1), differences, rtol=1e-4)


def test_near_and_far_stand_side_by_side_and_singles_stay_single():
    low = np.array([-1.0, 30.0, 1e5])
    whole = dist.TruncatedNormal(0.0, 1.0, low, np.inf)
    for k in range(3):
        alone = dist.TruncatedNormal(0.0, 1.0, low[k], np.inf)
        np.testing.assert_allclose(whole.icdf(0.4)[k], alone.icdf(0.4), 1e-15)
        np.testing.assert_allclose(whole.log_prob(low + 1e-6)[k], alone.log_prob(low[k] + 1e-6), 1e-15)
    single = dist.TruncatedNormal(np.float32(0), np.float32(1), np.float32(100), np.float32(np.inf))
    z = single.sample(np.random.default_rng(0), (4,))
    assert z.dtype == single.log_prob(z).dtype == single.cdf(z).dtype == np.float32


def test_a_plan_and_a_graph_have_them_too():
    def cost(low, rng):
        return np.sum(scg.sample(dist.TruncatedNormal(0.0, 1.0, low, np.inf), scg.Reparameterized(), rng=rng, name="z"))

    low = np.array([1.0, 2e5])
    plain, compiled = scg.value_and_grad(cost), scg.compile(scg.value_and_grad(cost))
    for _ in range(2):
        expected, found = [run(low, rng=np.random.default_rng(1)) for run in (plain, compiled)]
        np.testing.assert_array_equal(expected[0], found[0])
        np.testing.assert_allclose(expected[1], found[1], 1e-14)
    assert abs(expected[1][1] - 1) < 1e-9  # it moves with its end
