"""Samples further down from one that an estimator looks at elsewhere are made again from the same randomness: means
stay exact, and what does not change costs no variance."""

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.distributions.coupling import Turned
from scg.errors import ScgTypeError
from scg.stochastic.surrogate import Downstream
from tests.support.drawn import covering
from tests.support.oracle import first_and_second

T = np.array(0.5)
FIRST = {
    "ARM": scg.ARM,
    "DisARM": scg.DisARM,
    "Enumerate": scg.Enumerate,
    "MeasureValued": scg.MeasureValued,
    "REBAR": scg.REBAR,
    "leave-one-out": lambda: scg.ScoreFunction(samples=3, baseline=scg.LeaveOneOut()),
    "several": lambda: scg.ScoreFunction(samples=2),
    "pairs": lambda: scg.CoupledPairs(samples=4),
    "double": scg.DoubleControlVariate,
    "RODEO": lambda: scg.RODEO(samples=3),
    "stochastic derivative": scg.StochasticDerivative,
    "pruned": lambda: scg.StochasticDerivative(prune=True),
    "set": lambda: scg.UnorderedSet(2),
}


def walk(t, n, rng, estimator=scg.Enumerate):
    z = scg.sample(dist.Bernoulli(probs=t), estimator(), rng=rng)
    total = z
    for _ in range(n - 1):
        z = scg.sample(dist.Bernoulli(probs=0.2 + 0.6 * z), estimator(), rng=rng)
        total = total + z
    return total


def nested(t, rng, estimator, below=scg.ScoreFunction):
    """Three samples, one after the other, whose distributions also move with the parameter."""
    a = scg.sample(dist.Bernoulli(logits=np.stack([t, -0.4 * t])), estimator(), rng=rng)
    b = scg.sample(dist.Bernoulli(logits=2 * a[0] - a[1] + t), below(), rng=rng)
    c = scg.sample(dist.Categorical(logits=np.stack([a[1], 1.5 * b, t])), scg.ScoreFunction(), rng=rng)
    return (c - 0.7 * b) ** 2 + a[0] * t + c * a[1]


def two(t, rng, estimator, below):
    a = scg.sample(dist.Bernoulli(logits=t), estimator(), rng=rng)
    b = scg.sample(dist.Bernoulli(logits=2 * a + t), below(), rng=rng)
    return (a - 0.7 * b) ** 2 + a * t


def exact(t, estimator, below=scg.ScoreFunction):
    return scg.trace(nested, t, np.random.default_rng(0), estimator, below)


@pytest.mark.parametrize(("n", "variance"), [(20, 3.7464352), (80, 3.75)])
def test_the_variance_of_a_walk_does_not_grow_with_its_length(n, variance):
    """Two coupled walks differ for a geometric number of steps: .6 / .16 is the variance of it."""
    graph = scg.trace(walk, T, n, np.random.default_rng(0))
    found = scg.exact.moments(graph)
    np.testing.assert_allclose(found.mean, sum(0.6**i for i in range(n)), rtol=1e-11)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-7)


def test_replicates_of_a_walk_have_that_variance():
    """A geometric number has excess kurtosis 6 + p^2 / q = 6.27 (p = .4): the variance of 10,000 has the standard error
    sqrt(8.27 / 10^4) of itself; five of them."""
    graph = scg.trace(walk, T, 20, np.random.default_rng(0))
    g = graph.gradients(rng=np.random.default_rng(1), replicates=10_000)
    assert abs(np.var(g) / 3.7464352 - 1) < 5 * np.sqrt(8.27 / 10_000)
    one = [scg.grad(walk)(T, 20, np.random.default_rng(k)) for k in range(300)]
    assert abs(np.var(one) / 3.7464352 - 1) < 5 * np.sqrt(8.27 / 300)


def test_a_plan_draws_the_same_coupled_samples():
    step = scg.compile(scg.value_and_grad(walk))
    for seed in range(6):
        expected = scg.value_and_grad(walk)(T, 8, np.random.default_rng(seed))
        np.testing.assert_array_equal(step(T, 8, np.random.default_rng(seed)), expected)


INTEGRATED = {"ARM", "REBAR"}
"""Those with noise that is integrated: on a shorter chain in an ordinary run, and REBAR's in any."""


@pytest.mark.parametrize(
    ("how", "below"),
    [
        *covering(
            [(two if name in INTEGRATED else nested, name) for name in FIRST], [scg.ScoreFunction, scg.Enumerate]
        ),
        *[pytest.param((nested, "ARM"), below, marks=pytest.mark.long) for below in (scg.ScoreFunction, scg.Enumerate)],
    ],
)
def test_the_mean_is_exact_where_samples_further_down_are_coupled(how, below):
    program, name = how
    for t in (np.array(0.5), np.array(-0.8)):
        graph = scg.trace(program, t, np.random.default_rng(0), FIRST[name], below)
        found, expected = scg.exact.moments(graph), scg.exact.gradient(graph)
        np.testing.assert_allclose(found.mean, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("below", [scg.ScoreFunction, scg.Enumerate])
@pytest.mark.parametrize("name", ["Enumerate", "several", "leave-one-out"])
def test_so_is_that_of_the_second_derivative(name, below):
    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t), FIRST[name](), rng=rng)
        b = scg.sample(dist.Bernoulli(logits=2 * a - t), below(), rng=rng)
        return (b - 0.7 * a * t) ** 2 + a * b

    for found, expected in first_and_second(cost, np.array(0.4), highest=2):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_a_sample_that_keeps_its_parameters_adds_no_variance():
    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng, name="a")
        b = scg.sample(dist.Bernoulli(logits=t + 0 * a), scg.ScoreFunction(), rng=rng)
        return a + 10 * b * scg.stop_gradient(t)

    graph = scg.trace(cost, np.array(0.3), np.random.default_rng(0))
    p = 1 / (1 + np.exp(-0.3))
    values = np.array([p * (1 - p) + 10 * 0.3 * b * (b - p) for b in (0.0, 1.0)])
    weights = np.array([1 - p, p])
    expected = weights @ values**2 - (weights @ values) ** 2
    np.testing.assert_allclose(scg.exact.moments(graph).variance, expected, rtol=1e-10)


# --- what must be noticed


def test_samples_that_are_kept_whatever_their_parameters_are_noticed(monkeypatch):
    """The same randomness without its interval: z' = z."""
    graph = exact(T, scg.Enumerate)
    monkeypatch.setattr(
        Turned, "masses", lambda self, value: 1.0 * (value == self.value + 0 * self.after.masses(value))
    )
    assert abs(scg.exact.moments(graph).mean - scg.exact.gradient(graph)) > 1e-3


def test_one_sample_in_the_place_of_independent_ones_is_noticed(monkeypatch):
    """What leave-one-out needs independent is the sample itself; what is further down may share its randomness."""
    graph = exact(T, FIRST["leave-one-out"])
    monkeypatch.setattr(Downstream, "with_others", lambda self, count: np.stack([self.node] * (count + 1)))
    assert abs(scg.exact.moments(graph).mean - scg.exact.gradient(graph)) > 1e-3


# --- coupled or anew


def free(parameters, z):
    return parameters * np.tanh(z)


def bent_anew(parameters, f, d):
    """A surrogate that is not linear in the cost and its slope."""
    return parameters * d + 0.1 * np.sin(f + d)


EITHER = {
    "CoupledPairs": lambda **how: scg.CoupledPairs(4, **how),
    "DisARM": scg.DisARM,
    "DoubleControlVariate": lambda **how: scg.DoubleControlVariate(coefficient=-0.5, **how),
    "Enumerate": scg.Enumerate,
    "MeasureValued": scg.MeasureValued,
    "RODEO": lambda **how: scg.RODEO(2, bent_anew, np.array(0.6), **how),
    "ScoreFunction": lambda **how: scg.ScoreFunction(scg.LeaveOneOut(), samples=2, **how),
    "StochasticDerivative": scg.StochasticDerivative,
    "UnorderedSet": lambda **how: scg.UnorderedSet(2, **how),
}


def moments(cost, estimator):
    def program(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng)
        b = scg.sample(dist.Bernoulli(logits=0.5 + a), scg.ScoreFunction(), rng=rng)
        return cost(a, b)

    return scg.exact.moments(scg.trace(program, T, np.random.default_rng(0)))


@pytest.mark.parametrize("name", EITHER)
def test_coupling_lowers_the_variance_where_a_cost_rises_with_both_and_raises_it_where_they_oppose(name):
    for cost, better in ((lambda a, b: a + b, True), (lambda a, b: (a - b) ** 2, False)):
        coupled, anew = moments(cost, EITHER[name]()), moments(cost, EITHER[name](coupled=False))
        np.testing.assert_allclose(coupled.mean, anew.mean, rtol=1e-9)
        assert (coupled.variance < anew.variance) == better


@pytest.mark.parametrize("cost", [lambda a, b: a + b, lambda a, b: (a - b) ** 2, lambda a, b: b * (2 * a - 0.3)])
def test_the_variances_differ_by_the_covariance(cost):
    """Of f(1, b1) - f(0, b0) with the weight dp = p (1 - p): -2 dp^2 Cov, and P(b1 = b0 = 1) = P(b0 = 1) as b0 <= b1;
    both are made from the one that was recorded, so they are coupled as by their quantiles."""
    p = 1 / (1 + np.exp(-T))
    q0, q1 = 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-1.5))
    joint = {(0, 0): 1 - q1, (0, 1): q1 - q0, (1, 1): q0}
    mean0, mean1 = (q * cost(a, 1.0) + (1 - q) * cost(a, 0.0) for a, q in ((0, q0), (1, q1)))
    covariance = sum(w * (cost(0, b0) - mean0) * (cost(1, b1) - mean1) for (b0, b1), w in joint.items())
    apart = moments(cost, scg.Enumerate()).variance - moments(cost, scg.Enumerate(coupled=False)).variance
    np.testing.assert_allclose(apart, -2 * (p * (1 - p)) ** 2 * covariance, rtol=1e-9)


@pytest.mark.parametrize("make", [scg.REBAR, lambda **how: scg.RELAX(free, np.array(0.1), temperature=0.5, **how)])
def test_so_it_is_where_slopes_are_taken_at_relaxed_values(make):
    """Noise is integrated."""
    coupled, anew = moments(lambda a, b: a + b, make()), moments(lambda a, b: a + b, make(coupled=False))
    np.testing.assert_allclose(coupled.mean, anew.mean, rtol=1e-8)
    assert coupled.variance < 0.9 * anew.variance


def test_an_estimator_says_when_it_draws_anew():
    for make in [*EITHER.values(), scg.REBAR, lambda **how: scg.RELAX(free, **how)]:
        assert "coupled" not in repr(make())
        assert "coupled=False" in repr(make(coupled=False))
    with pytest.raises(ScgTypeError, match="coupled must be True or False, got 'no'"):
        scg.Enumerate(coupled="no")
