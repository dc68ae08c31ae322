"""Means over two continuous samples that bend or jump together: closed forms, within the reported error."""

import math

import numpy as np
import pytest
from scipy import stats

import scg
import scg.exact
from scg import distributions as dist
from tests.support.drawn import every


def two(f, scale=1.0):
    """E f(a, b) of a ~ N(t, 1), b ~ N(0, scale), independent."""

    def cost(t, rng):
        a, b = (scg.sample(d, scg.ScoreFunction(), rng=rng) for d in (dist.Normal(t, 1.0), dist.Normal(0.0, scale)))
        return f(a, b)

    return cost


def child(t, rng):
    z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)
    return np.abs(scg.sample(dist.Laplace(z, 0.8), scg.ScoreFunction(), rng=rng))


def one_leaf(t, rng):
    return np.max(scg.sample(dist.Normal(t + np.zeros(2), 1.0), scg.ScoreFunction(), rng=rng))


def ridge(width):
    """E w exp(-(s - c)^2 / (2 w^2)) of s ~ N(t, 2): 1 / sqrt(2 + w^2) exp(-(t - c)^2 / (2 (2 + w^2))) w^2."""
    v = 2 + width**2
    return width**2 / math.sqrt(v) * math.exp(-0.5 * 0.2**2 / v)


folded = lambda m, s: s * math.sqrt(2 / math.pi) * math.exp(-0.5 * (m / s) ** 2) + m * (1 - 2 * stats.norm.cdf(-m / s))
d_folded = lambda m, s: 1 - 2 * stats.norm.cdf(-m / s)
T = 0.1
LAPLACE = stats.norm(T)
CASES = {
    "a kink": (two(lambda a, b: np.abs(a - b)), folded(T, math.sqrt(2)), d_folded(T, math.sqrt(2))),
    "of one sample": (one_leaf, T + 1 / math.sqrt(math.pi), 1.0),
    "a narrow window": (
        two(lambda a, b: np.where((a - b - 0.3) ** 2 < 1e-6, 1.0, 0.0)),
        float(np.diff(stats.norm.cdf((0.2 + np.array([-1e-3, 1e-3])) / math.sqrt(2)))[0]),
        None,
    ),
    "a ridge": (two(lambda a, b: 0.01 * np.exp(-0.5 * ((a - b - 0.3) / 0.01) ** 2)), ridge(0.01), None),
}
LONG = {
    "a disc": (two(lambda a, b: np.where((a - T) ** 2 + b * b < 1.0, 1.0, 0.0)), 1 - math.exp(-0.5), None),
    "a step": (two(lambda a, b: np.where(a > b, 2.0, 0.0)), 2 * stats.norm.cdf(T / math.sqrt(2)), None),
}


def check(cost, mean, slope):
    found = scg.exact.expectation(cost, np.array(T), full=True)
    assert found.error <= 1e-8 * max(abs(mean), 1e-4)
    assert abs(found.value - mean) <= found.error + 1e-14
    if slope is not None:
        found = scg.exact.gradient(cost, np.array(T), full=True)
        assert abs(found.value - slope) <= found.error + 1e-14 and found.error <= 1e-8


@pytest.mark.parametrize("name", every(2, CASES))
def test_a_mean_over_two_samples_is_right_to_its_error(name):
    check(*CASES[name])


@pytest.mark.long
@pytest.mark.parametrize("name", ["a disc", "a step"])
def test_a_mean_over_a_curve_that_turns_is_right_to_its_error(name):
    check(*LONG[name])


def test_a_density_may_have_a_kink_that_another_sample_moves():
    """|z + l| of z ~ N(t, 1), l ~ Laplace(0, s): E = E|z| + s exp(s_^2 / 2) (...) by quadrature of E_z[|z| + s
    exp(-|z| / s)]."""
    x, w = np.polynomial.legendre.leggauss(60)
    edges = np.array([-12.0, -3, -1, 0, 1, 3, 12])
    half = 0.5 * np.diff(edges)[:, None]
    z, w = edges[:-1, None] + half * (1 + x), half * w
    truth = float(np.sum(w * LAPLACE.pdf(z) * (np.abs(z) + 0.8 * np.exp(-np.abs(z) / 0.8))))
    found = scg.exact.expectation(child, np.array(T), full=True)
    assert abs(found.value - truth) <= found.error + 1e-13 and found.error <= 1e-8


@pytest.mark.fast
def test_the_error_of_four_samples_has_what_lines_differ_by():
    """They are too many for panels: the quadrature rule, which misses a narrow bump, is held against lines, which do
    not."""
    w, c = 3e-3, 0.004

    def cost(t, rng):
        z = scg.sample(dist.Normal(t + np.zeros(4), 1.0), scg.ScoreFunction(), rng=rng)
        return np.sum(z) ** 2 * (1 + c * np.exp(-0.5 * ((z[0] - 0.3) / w) ** 2))

    found = scg.exact.expectation(cost, np.array(0.0), rtol=1e-4, full=True)
    v = w * w / (1 + w * w)  # the bump times the density: a normal of this variance and mean 0.3 (1 - v)
    bump = math.sqrt(v) * math.exp(-0.5 * 0.09 * (1 - v))
    truth = 4 + c * bump * (0.09 * (1 - v) ** 2 + v + 3)
    assert 1e-7 < abs(found.value - truth) <= found.error <= 1e-2


@pytest.mark.long
def test_two_samples_decide_together_beside_each_combination_of_three_coins():
    """E |a - b| = 2 / sqrt(pi), of two that are N(0, 1)."""

    def cost(p, rng):
        coins = scg.sample(dist.Bernoulli(probs=p), scg.ScoreFunction(), rng=rng, shape=(3,))
        a, b = (scg.sample(dist.Normal(0.0, 1.0), scg.ScoreFunction(), rng=rng) for _ in range(2))
        return np.prod(1 + coins) * np.abs(a - b)

    found = scg.exact.expectation(cost, np.array(0.3), full=True)
    assert abs(found.value - 1.3**3 * 2 / math.sqrt(math.pi)) <= found.error <= 1e-9


def test_a_mean_over_two_samples_that_does_not_exist_is_refused():
    with pytest.raises(scg.exact.ConvergenceError, match="does not exist|no such mean"):
        scg.exact.expectation(two(lambda a, b: 1 / (a - b)), np.array(T))


@pytest.mark.fast
def test_what_three_samples_decide_together_is_refused_with_a_way_out():
    cost = lambda t, rng: np.max(scg.sample(dist.Normal(t + np.zeros(3), 1.0), scg.ScoreFunction(), rng=rng))
    with pytest.raises(scg.exact.BudgetError, match="budget= or rtol="):
        scg.exact.expectation(cost, np.array(0.3))
