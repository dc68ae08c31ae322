"""Several samples, each of which counts in a narrow place of its own, beside coins: no line through drawn values of the
others shows where all count."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgError
from tests.support.drawn import covering

S, T = scg.ScoreFunction(), 0.2


class Bumps:
    """Of coins b_k and z_k ~ Normal(t / 2, 1): c = (1 + sum_k b_k) prod_k exp(-((z_k - c_k) / w)^2) / w; or ``beside``
    another part, cos(z_0) (1 + c)."""

    def __init__(self, seed, coins, count, w, beside):
        rng = np.random.default_rng(seed)
        self.coins, self.w, self.beside = coins, w, beside
        self.places = rng.uniform(-1, 1, count)

    def __call__(self, t, rng):
        number = 1 + sum([scg.sample(dist.Bernoulli(logits=t + 0.1 * k), S, rng=rng) for k in range(self.coins)])
        z = [scg.sample(dist.Normal(0.5 * t, 1.0), S, rng=rng) for _ in self.places]
        for x, place in zip(z, self.places, strict=True):
            number = number * np.exp(-(((x - place) / self.w) ** 2)) / self.w
        return np.cos(z[0]) * (1 + number) if self.beside else number

    def mean(self, t):
        """A normal density times a bump of variance v = w^2 / 2 is one of variance v / (1 + v)."""
        m, v = 0.5 * t, 0.5 * self.w**2
        found = 1 + sum([1 / (1 + np.exp(-t - 0.1 * k)) for k in range(self.coins)])
        for place in self.places:
            found = found * np.exp(-((m - place) ** 2) / (2 + 2 * v)) / np.sqrt(2 + 2 * v)
        if not self.beside:
            return found
        between = (m * v + self.places[0]) / (1 + v)
        return np.exp(-0.5) * np.cos(m) + found * np.exp(-0.5 * v / (1 + v)) * np.cos(between)


def right(program):
    """The mean, and its derivative by a complex step."""
    return program.mean(T), program.mean(T + 1e-30j).imag / 1e-30


@pytest.mark.parametrize(("coins", "w", "beside"), covering([0, 1, 2, 3], [0.3, 0.03, 1e-2, 1e-3, 1e-5], [False, True]))
def test_two_narrow_samples_beside_coins_have_a_mean(coins, w, beside):
    program = Bumps(coins, coins, 2, w, beside)
    mean, slope = right(program)
    found = scg.exact.expectation(program, np.array(T), rng=np.random.default_rng(0), full=True)
    assert abs(found.value - mean) <= 10 * found.error + 1e-10
    assert scg.exact.gradient(program, np.array(T), rng=np.random.default_rng(0)) == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize(("coins", "w", "beside"), covering([0, 3], [0.3, 1e-2, 1e-4, 1e-6], [False, True]))
def test_three_narrow_samples_are_right_or_refused(coins, w, beside):
    program = Bumps(7 + coins, coins, 3, w, beside)
    try:
        found = scg.exact.expectation(program, np.array(T), rng=np.random.default_rng(0), full=True)
    except ScgError:
        return
    assert abs(found.value - program.mean(T)) <= 10 * found.error + 1e-9
