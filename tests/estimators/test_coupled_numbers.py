"""Continuous samples further down keep their noise where an estimator looks elsewhere; so do the elements of an
event."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.extend import Estimator, first_order, mixed, primitive
from tests.support.oracle import first_and_second

T = np.array(0.4)
BELOW = {
    "gamma": lambda z, t: dist.Gamma(2.0 + z, 1 + 0.1 * t),
    "laplace": lambda z, t: dist.Laplace(0.8 * z, 1 + 0.5 * z + 0.1 * t),
    "normal": lambda z, t: dist.Normal(0.8 * z + 0.1 * t, 1 + 0.5 * z),
    "vector": lambda z, t: dist.Independent(dist.Normal(np.stack([z, 0.3 * t]), 1.0), 1),
}
ABOVE = {
    "Enumerate": scg.Enumerate,
    "DisARM": scg.DisARM,
    "leave-one-out": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
}


def program(estimator, below):
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng)
        w = scg.sample(BELOW[below](z, t), scg.ScoreFunction(), rng=rng)
        if w.ndim:
            return np.sum(w) ** 2 * (1 + z)
        return np.where(w > 0.4, 1.0 + z, 0.0) + 0.2 * w * z

    return cost


def moments(cost):
    graph = scg.trace(cost, T, np.random.default_rng(0))
    return scg.exact.moments(graph), scg.exact.gradient(graph)


@pytest.mark.parametrize(
    ("above", "below"), [("Enumerate", below) for below in BELOW] + [("DisARM", "normal"), ("leave-one-out", "normal")]
)
def test_the_mean_is_exact(above, below):
    found, expected = moments(program(ABOVE[above], below))
    np.testing.assert_allclose(found.mean, expected, rtol=1e-7)


def test_so_is_that_of_the_second_derivative():
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng)
        w = scg.sample(dist.Normal(0.5 * z - 0.3 * t, 1.0), scg.ScoreFunction(), rng=rng)
        return w * w * (z + t)

    for found, expected in first_and_second(cost, T, highest=2):
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize(
    "wrong",
    [lambda self, before, value: value + 0 * self.loc, lambda self, before, value: self.loc + self.scale * value],
    ids=["kept whatever its parameters", "noise that is not standard"],
)
def test_what_has_another_distribution_is_noticed(wrong, monkeypatch):
    monkeypatch.setattr(dist.Normal, "coupled", wrong)
    found, expected = moments(program(scg.Enumerate, "normal"))
    assert abs(found.mean - expected) > 1e-3


# --- a walk z' ~ N(a z, s^2) from N(t, 1), whose cost is the sum

A, S = 0.8, 0.6


def walk(t, n, rng, coupled=True, shape=()):
    z = scg.sample(dist.Normal(t, 1.0), scg.MeasureValued(coupled=coupled), rng=rng, shape=shape)
    total = z
    for _ in range(n - 1):
        z = scg.sample(dist.Normal(A * z, S), scg.ScoreFunction(), rng=rng)
        total = total + z
    return np.sum(total)


def variances(n):
    """(coupled, anew): the cost at loc +- w with w of the Rayleigh distribution, over sqrt(2 pi). What later steps add
    cancels, or there are two of each, s e_j (1 + a + ... + a^(n-j-1))."""
    reach = [(1 - A**k) / (1 - A) for k in range(1, n + 1)]
    own = reach[-1] ** 2 * (4 / np.pi - 1)
    return own, own + 2 * S**2 * sum(r * r for r in reach[:-1]) / (2 * np.pi)


@pytest.mark.parametrize("coupled", [True, False])
def test_the_variance_of_a_walk_of_normals_is_that_of_its_first_step(coupled):
    """0.16 of what it is anew for 20 steps. The variance of N numbers with kurtosis k has the standard error sqrt((k -
    1) / N) of itself, k = 3.25 for the Rayleigh distribution and 3 for normal ones: five of them."""
    expected = variances(20)[not coupled]
    g = scg.trace(walk, T, 20, np.random.default_rng(0), coupled).gradients(
        rng=np.random.default_rng(1), replicates=8000
    )
    assert abs(np.mean(g) - (1 - A**20) / (1 - A)) < 5 * np.sqrt(expected / 8000)
    assert abs(np.var(g) / expected - 1) < 5 * np.sqrt(2.25 / 8000)


@pytest.mark.parametrize("coupled", [True, False])
def test_exact_moments_find_it(coupled):
    found = scg.exact.moments(scg.trace(walk, T, 2, np.random.default_rng(0), coupled))
    np.testing.assert_allclose(found.mean, 1 + A, rtol=1e-9)
    np.testing.assert_allclose(found.variance, variances(2)[not coupled], rtol=1e-7)


@pytest.mark.fast
def test_a_plan_keeps_the_same_noise():
    step = scg.compile(scg.value_and_grad(walk))
    for seed in range(4):
        expected = scg.value_and_grad(walk)(T, 5, np.random.default_rng(seed))
        np.testing.assert_array_equal(step(T, 5, np.random.default_rng(seed)), expected)


@pytest.mark.fast
def test_float32_stays():
    g = scg.grad(walk)(T.astype(np.float32), 5, np.random.default_rng(0))
    assert g.dtype == np.float32


@pytest.mark.fast
def test_coins_of_one_event_are_coupled_each():
    """Beside each other, two walks of coins: twice the variance of one."""

    def two(t, n, rng):
        z = scg.sample(dist.Independent(dist.Bernoulli(probs=np.stack([t, t])), 1), scg.Enumerate(), rng=rng)
        total = np.sum(z)
        for _ in range(n - 1):
            z = scg.sample(dist.Independent(dist.Bernoulli(probs=0.2 + 0.6 * z), 1), scg.ScoreFunction(), rng=rng)
            total = total + np.sum(z)
        return total

    found = scg.exact.moments(scg.trace(two, np.array(0.5), 4, np.random.default_rng(0)), budget=2**22)
    np.testing.assert_allclose(found.mean, 2 * sum(0.6**i for i in range(4)), rtol=1e-10)


# --- formulas for which it is not valid

opaque = primitive(
    lambda x: np.array([np.sum(x) ** 2, x[0]]),
    mixed,
    lambda g, out, x: g[0] * 2 * np.sum(x) * np.ones(3) + g[1] * np.array([1.0, 0.0, 0.0]),
)
"""A function of a vector without an axis map: the values at which an estimator looks are not told apart behind it."""


@pytest.mark.parametrize("below", [scg.ScoreFunction, scg.Enumerate])
@pytest.mark.parametrize(
    "above",
    [
        scg.DoubleControlVariate,
        scg.RODEO,
        scg.MuProp,
        lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=3),
    ],
)
def test_slopes_at_several_values_are_right_where_a_score_may_meet_the_cost_at_another(above, below):
    """With all of them coupled the score at one value and the cost at another are dependent: off by .02."""

    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t), above(), rng=rng)
        b = scg.sample(dist.Bernoulli(logits=1.5 * a - t), below(), rng=rng)
        v = opaque(np.stack([a, b, a * b + 1]))
        return v[0] + v[1] * b

    graph = scg.trace(cost, T, np.random.default_rng(0))
    found = scg.exact.moments(graph, budget=2**22)
    np.testing.assert_allclose(found.mean, scg.exact.gradient(graph), rtol=1e-7)


class Products(Estimator):
    """d/dt log p(z) f(z) f(z') f(z''), z, z' and z'' independent: of the mean of f E[f]^2, d/dt E[f] E[f]^2."""

    def expand(self, down):
        if not down.influences:
            return None
        f = down.at(down.with_others(2) if down.graph else down.with_others(2).raw)
        weight = down.constant(f[0] * f[1] * f[2])
        return np.sum(first_order(down.distribution.log_prob(down.constant(down.node)), weight))


class Claiming(Products):
    coupled = True


@pytest.mark.fast
def test_estimators_that_multiply_costs_of_several_samples_are_not_coupled_unless_they_say_so():
    """z' and z'' are both made from what lies below z: given z, their costs are not independent."""

    def cost(t, estimator, rng):
        z = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng)
        return (1 + scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * z), scg.ScoreFunction(), rng=rng)) ** 2

    plain = scg.trace(cost, T, scg.ScoreFunction(), np.random.default_rng(0))
    expected = scg.exact.gradient(plain) * scg.exact.expectation(plain) ** 2
    anew, coupled = (
        scg.exact.moments(scg.trace(cost, T, made(), np.random.default_rng(0))).mean for made in (Products, Claiming)
    )
    np.testing.assert_allclose(anew, expected, rtol=1e-10)
    assert abs(coupled - expected) > 1e-3
