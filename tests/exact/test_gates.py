"""Coins that decide where a continuous sample has its breaks, and whether anything narrow is there at all."""

import itertools
import math

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st

import scg
import scg.exact
from scg import distributions as dist
from tests.support.drawn import covering

T = np.array(0.3)
PRIOR = sp.expit(0.3)


def hinge(mean):
    """E max(z, 0) of z ~ N(mean, 1)."""
    return mean * st.norm.cdf(mean) + st.norm.pdf(mean)


def apart(count):
    def cost(t, rng):
        coins = [scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng) for _ in range(count)]
        return np.maximum(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) + sum(coins), 0.0)

    return cost


def together(count):
    def cost(t, rng):
        coins = scg.sample(dist.Bernoulli(logits=t + np.zeros(count)), scg.ScoreFunction(), rng=rng)
        return np.maximum(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) + np.sum(coins), 0.0)

    return cost


@pytest.mark.parametrize("made", [apart, together])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_kink_may_move_with_the_sum_of_coins(made, count):
    """sum_s Binomial(s; n, p) E max(z + s, 0)."""
    s = np.arange(count + 1)
    exact = np.sum(st.binom.pmf(s, count, PRIOR) * hinge(0.3 + s))
    found = scg.exact.expectation(made(count), T, full=True)
    assert abs(found.value - exact) <= found.error + 1e-12 * exact
    assert found.error < 1e-7


def test_a_step_may_move_with_values_of_several_elements():
    """1[z > b . v] for three coins with v = (.3, .5, 1.1): by the eight values of b."""
    v = np.array([0.3, 0.5, 1.1])

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t + np.zeros(3)), scg.ScoreFunction(), rng=rng)
        z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)
        return np.where(z > np.sum(b * v), 1.0, 0.0)

    exact = sum(
        math.prod(PRIOR if x else 1 - PRIOR for x in b) * st.norm.sf(np.dot(b, v) - 0.3)
        for b in itertools.product([0, 1], repeat=3)
    )
    found = scg.exact.expectation(cost, T, full=True)
    assert abs(found.value - exact) <= found.error + 1e-12


GATES = {
    "all": lambda b: np.prod(b),
    "none": lambda b: np.prod(1 - b),
    "the first and not the second": lambda b: b[0] * (1 - b[1]) * 0.5 ** (b.size - 2),
    "the last and not the first": lambda b: b[-1] * (1 - b[0]) * 0.5 ** (b.size - 2),
}


@pytest.mark.parametrize(("sizes", "gate"), covering([(2, 2e-5), (5, 2e-5), (6, 2e-5), (7, 0.002), (9, 2e-4)], GATES))
def test_a_spike_behind_a_product_of_coins_is_seen(sizes, gate):
    """E x^2 + 2^k prod b exp(-((x - .7) / w)^2) / w = 1 + exp(-.49 / (1 + w^2 / 2) / 2) / sqrt(2 + w^2)."""
    count, width = sizes

    def cost(t, rng):
        x = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)
        b = scg.sample(dist.Bernoulli(np.full(count, 0.5) + 0 * t), scg.ScoreFunction(), rng=rng)
        b = b.astype(float)
        return x**2 + 2.0**2 / width * GATES[gate](b) * 2.0 ** (count - 2) * np.exp(-(((x - 0.7) / width) ** 2))

    exact = 1 + math.exp(-0.49 / (2 + width**2)) / math.sqrt(2 + width**2)
    found = scg.exact.expectation(cost, np.array(0.0), full=True)
    assert abs(found.value - exact) <= found.error + 1e-9
