"""Estimators that evaluate the cost at other values: Enumerate(k), measure-valued derivatives, unordered sets. Exact
means on graphs of every form, refusals."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.distributions.base import Distribution
from scg.distributions.constraints import finite
from scg.errors import EstimatorError, NotDifferentiable, ScgValueError
from scg.estimators.sets import WithoutReplacement
from tests.support.oracle import first_and_second, moments

pytestmark = pytest.mark.fast

THETA = np.array([0.3, -0.5, 0.8, 0.1])
CATEGORICAL = {
    "k=1": lambda: scg.Enumerate(1),
    "k=2": lambda: scg.Enumerate(2),
    "set of 2": lambda: scg.UnorderedSet(2),
    "set of 3": lambda: scg.UnorderedSet(3),
    "measure": lambda: scg.MeasureValued(),
}
WORTH = np.array([1.0, -0.4, 2.0, 0.7])


def worth(x):
    """A number for each draw of either form."""
    return np.sum(x * WORTH, axis=-1) if x.dtype.kind == "f" else (x - 0.7) ** 2


def separate(t, rng, distribution, estimator):
    x = scg.sample(distribution(logits=np.stack([t, t[::-1] * t])), estimator(), rng=rng)
    return np.mean(worth(x) ** 2 * np.array([1.0, 3.0]) + worth(x) * t[:2])


def mixing(t, rng, distribution, estimator):
    x = scg.sample(distribution(logits=np.stack([t, t * t])), estimator(), rng=rng)
    return np.sum(worth(x) * t[1:3]) ** 2 + np.prod(worth(x) + t[0])


def own_samples(t, rng, distribution, estimator):
    x = scg.sample(distribution(logits=t), estimator(), rng=rng, shape=(2,))
    return np.mean((worth(x) - t[0]) ** 2) + np.sum(worth(x) * t[1])


def chain(t, rng, distribution, estimator):
    x = scg.sample(distribution(logits=t), estimator(), rng=rng)
    y = scg.sample(distribution(logits=worth(x) * t[::-1]), estimator(), rng=rng)
    return (worth(x) - worth(y) * t[0]) ** 2 + worth(y)


def beside_others(t, rng, distribution, estimator):
    b = scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(), rng=rng)
    x = scg.sample(distribution(logits=t * b), estimator(), rng=rng)
    z = scg.sample(dist.Normal(worth(x) * t[1], 1.0), scg.Reparameterized(), rng=rng)
    return z**2 * t[2] + b * worth(x) * z


@pytest.mark.slow
@pytest.mark.parametrize("estimator", CATEGORICAL)
@pytest.mark.parametrize("distribution", [dist.Categorical, dist.OneHotCategorical])
@pytest.mark.parametrize("model", [separate, mixing, own_samples, chain, beside_others])
def test_exact_mean(model, distribution, estimator):
    order = 1 if estimator == "measure" or model is chain else 2
    theta = THETA if model is not chain else THETA[1:]
    if model is chain and distribution is dist.OneHotCategorical:
        distribution = lambda logits: dist.OneHotCategorical(logits=np.concatenate([logits, [-0.2]]))
    for found, exact in first_and_second(
        lambda t, rng: model(t, rng, distribution, CATEGORICAL[estimator]), theta, order=order, points=4
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", CATEGORICAL)
def test_probabilities_as_parameters(estimator):
    def cost(t, rng):
        x = scg.sample(dist.Categorical(probs=scg.special.softmax(t)), CATEGORICAL[estimator](), rng=rng, shape=(2,))
        return np.sum(worth(x) * t[:2]) ** 2

    ((found, exact),) = first_and_second(cost, THETA, order=1)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", [r for r in CATEGORICAL if r != "measure"])
def test_values_that_are_all_but_impossible(estimator):
    """Logits at which probabilities vanish, or stand beside one that is 1 to rounding: means are finite and exact."""

    def cost(t, rng):
        x = scg.sample(
            dist.Categorical(logits=t * np.array([1.0, 200.0, 1.0, -3000.0])), CATEGORICAL[estimator](), rng=rng
        )
        return worth(x) * t[0]

    ((found, exact),) = first_and_second(cost, THETA, order=1)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [r for r in CATEGORICAL if r != "measure"])
def test_less_variance_than_the_score_function(name):
    def cost(t, rng, estimator):
        return worth(scg.sample(dist.Categorical(logits=t), estimator, rng=rng)) ** 2

    _, plain, _ = moments(lambda t, rng: cost(t, rng, scg.ScoreFunction()), THETA)
    _, variance, _ = moments(lambda t, rng: cost(t, rng, CATEGORICAL[name]()), THETA)
    assert np.sum(variance) < np.sum(plain)


@pytest.mark.parametrize(
    ("estimator", "k"), [(scg.Enumerate, 3), (scg.Enumerate, 7), (scg.UnorderedSet, 4), (scg.UnorderedSet, 9)]
)
def test_all_values_leave_no_variance(estimator, k):
    _, variance, exact = moments(
        lambda t, rng: worth(scg.sample(dist.Categorical(logits=t), estimator(k), rng=rng)) ** 2, THETA
    )
    assert np.all(np.abs(variance) < 1e-13 * np.max(exact) ** 2)


@pytest.mark.parametrize("estimator", CATEGORICAL)
@pytest.mark.parametrize("model", [separate, mixing, own_samples])
def test_first_derivatives_on_arrays_are_those_of_the_graph(model, estimator):
    def gradient(create_graph):
        t = scg.parameter(THETA)
        cost = model(t, np.random.default_rng(4), dist.Categorical, CATEGORICAL[estimator])
        g = scg.gradients(cost, t, create_graph=create_graph)
        return g.value if create_graph else g

    np.testing.assert_allclose(gradient(False), gradient(True), rtol=1e-12, atol=1e-13)


ESTIMATORS_IN_REPLICATES = {**CATEGORICAL, "normal": scg.MeasureValued}


@pytest.mark.parametrize("name", ESTIMATORS_IN_REPLICATES)
def test_mean_of_replicates(name):
    """z-scores of the mean of n replicates, each rejected beyond 5: 6e-7 for each of 4 parameters."""
    n = 3000

    def cost(t, rng, estimator=None):
        estimator = estimator or ESTIMATORS_IN_REPLICATES[name]()
        if name == "normal":
            z = scg.sample(dist.Normal(t[:2], np.exp(t[2:])), estimator, rng=rng)
            return np.sum(z**2 * np.array([1.0, 2.0])) + np.prod(z)
        return mixing(t, rng, dist.Categorical, lambda: estimator)

    found = scg.trace(cost, THETA, rng=np.random.default_rng(0)).gradients(rng=np.random.default_rng(1), replicates=n)
    ((exact, _),) = first_and_second(lambda t, rng: cost(t, rng, scg.ScoreFunction()), THETA, order=1)
    assert np.all(np.abs(found.mean(axis=0) - exact) < 5 * found.std(axis=0) / math.sqrt(n))


COINS = [lambda t: dist.Bernoulli(logits=t[:2]), lambda t: dist.Bernoulli(probs=0.5 + 0.4 * np.tanh(t[:2]))]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [scg.MeasureValued, lambda: scg.Enumerate(1), lambda: scg.UnorderedSet(2)])
@pytest.mark.parametrize("distribution", COINS)
def test_coins(distribution, estimator):
    def cost(t, rng):
        b = scg.sample(distribution(t), estimator(), rng=rng, shape=(2,))
        c = scg.sample(dist.Bernoulli(logits=np.sum(b, axis=1) * t[2]), estimator(), rng=rng)
        return np.sum(b * t[:2]) ** 2 + np.sum(c * np.array([1.0, 2.0])) * t[3] + np.prod(b)

    ((found, exact),) = first_and_second(cost, THETA, order=1)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def even(z, t):
    """Even in z, so that a Gauss rule for the Rayleigh variable is exact for its square roots."""
    return (z**2 - t[2]) ** 2 * t[3] + z**2


CONTINUOUS = {
    "normal": (
        lambda t: dist.Normal(t[:2], np.exp(t[2])),
        lambda z, t: np.sum((z - t[3]) ** 3 * np.array([1.0, 2.0]) * (z + 1)),
    ),
    "normal, mixing": (
        lambda t: dist.Normal(t[:2], np.exp(t[2])),
        lambda z, t: np.sum(z * t[:2]) ** 2 + np.prod(z) * t[3],
    ),
    "normal, samples": (lambda t: dist.Normal(t[0], np.exp(t[1:2])), lambda z, t: np.sum(even(z, t))),
    "exponential": (lambda t: dist.Exponential(np.exp(t[0])), lambda z, t: (z - t[1]) ** 4 * t[2]),
    "gamma": (lambda t: dist.Gamma(3.0, np.exp(t[:2])), lambda z, t: np.prod(z + t[2]) * t[3] + np.sum(z**2)),
    "poisson": (lambda t: dist.Poisson(np.exp(t[:2])), lambda z, t: np.prod(z + t[2]) * t[3] + np.sum(z**2)),
    "weibull": (lambda t: dist.Weibull(np.exp(t[0]), 2.0), even),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_measure_valued_against_quadrature(name):
    distribution, f = CONTINUOUS[name]

    def cost(t, rng):
        return f(scg.sample(distribution(t), scg.MeasureValued(), rng=rng), t)

    ((found, exact),) = first_and_second(cost, THETA, order=1, points=8)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-11)


def test_measure_valued_needs_no_derivative_of_the_cost():
    """A step: d P(z > 0) / d loc is the density at 0. Sampled; 5 standard errors."""
    n = 20_000

    def cost(t, rng):
        return np.where(scg.sample(dist.Normal(t, 1.0), scg.MeasureValued(), rng=rng) > 0, 1.0, 0.0)

    graph = scg.trace(cost, np.array(0.4), rng=np.random.default_rng(0))
    g = graph.gradients(rng=np.random.default_rng(1), replicates=n)
    assert abs(g.mean() - math.exp(-0.08) / math.sqrt(2 * math.pi)) < 5 * g.std() / math.sqrt(n)


def test_normal_draw_that_feeds_a_coin():
    def cost(t, rng):
        z = scg.sample(dist.Normal(t[0], np.exp(t[1])), scg.MeasureValued(), rng=rng)
        b = scg.sample(dist.Bernoulli(probs=0.5 + 0.01 * z * z), scg.MeasureValued(), rng=rng)
        return (b - t[2]) ** 2 * z * t[3]

    ((found, exact),) = first_and_second(cost, THETA, order=1, points=8)
    np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def test_a_distribution_from_elsewhere_brings_its_own_decomposition():
    @dataclass(frozen=True, eq=False, repr=False)
    class Shifted(Distribution):
        loc: Any
        constraints = {"loc": finite}
        support = finite

        def sample(self, rng, shape=()):
            return self.detached().loc + rng.standard_normal(self.full_shape(shape))

        def log_prob(self, value):
            return dist.Normal(self.loc, 1.0).log_prob(value)

        def weak_derivatives(self, z, fresh):
            def loc():
                w = fresh(dist.Weibull(math.sqrt(2), 2.0))
                return 1 / math.sqrt(2 * math.pi), self.loc + w, self.loc - w

            return {"loc": loc}

    graph = scg.trace(
        lambda t, rng: scg.sample(Shifted(t), scg.MeasureValued(), rng=rng) ** 2,
        np.array(0.7),
        rng=np.random.default_rng(0),
    )
    g = [graph.gradients(rng=np.random.default_rng(s)) for s in range(400)]
    assert abs(np.mean(g) - 1.4) < 5 * np.std(g) / 20


def test_measure_valued_is_of_first_order():
    def cost(t, rng):
        return scg.sample(dist.Normal(t[0], 1.0), scg.MeasureValued(), rng=rng) ** 2

    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.hvp(cost)(THETA, THETA, rng=np.random.default_rng(0))


# --- sets ---


def brute(p, chosen):
    """p(S) over the orders of S."""
    total = 0.0
    for order in itertools.permutations(chosen):
        left, product = 1.0, 1.0
        for s in order:
            product *= p[s] / left
            left -= p[s]
        total += product
    return total


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_probability_of_a_set(k):
    p = np.random.default_rng(k).dirichlet(np.ones(5))
    distribution = WithoutReplacement(p, k)
    sets = distribution.atoms()
    np.testing.assert_allclose(np.exp(distribution.log_prob(sets)), [brute(p, s) for s in sets], rtol=1e-12)
    assert np.exp(distribution.log_prob(sets)).sum() == pytest.approx(1, rel=1e-12)


def test_sets_are_drawn_with_that_probability():
    """Counts of each of 6 sets among n within 5 standard deviations: 6e-7 each."""
    p, n = np.array([0.5, 0.3, 0.15, 0.05]), 20_000
    distribution = WithoutReplacement(p, 2)
    drawn = distribution.sample(np.random.default_rng(0), n)
    for s, q in zip(distribution.atoms(), np.exp(distribution.log_prob(distribution.atoms())), strict=True):
        assert abs(np.sum(np.all(drawn == s, axis=1)) - n * q) < 5 * math.sqrt(n * q * (1 - q))


# --- biased estimators ---


def test_float32_stays():
    t = THETA.astype(np.float32)
    estimators = [
        scg.Enumerate(2),
        scg.UnorderedSet(2),
        scg.MeasureValued(),
        scg.StraightThrough(),
        scg.ReinMax(),
        scg.GumbelSoftmax(0.5),
    ]
    for estimator in estimators:
        value, g = scg.value_and_grad(
            lambda t, rng, estimator=estimator: (
                np.sum(scg.sample(dist.OneHotCategorical(logits=t), estimator, rng=rng) * t) ** 2
            )
        )(t, rng=np.random.default_rng(0))
        assert (value.dtype, g.dtype) == (np.float32, np.float32)
    normal = scg.grad(lambda t, rng: np.sum(scg.sample(dist.Normal(t, np.exp(t)), scg.MeasureValued(), rng=rng) ** 2))
    g = normal(t, rng=np.random.default_rng(0))
    assert g.dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: scg.Enumerate(0), "k must be an integer of at least 1"),
        (lambda: scg.Enumerate(2.0), "k must be"),
        (lambda: scg.UnorderedSet(1), "from 2 to 10"),
        (lambda: scg.UnorderedSet(11), "from 2 to 10"),
        (lambda: scg.GumbelSoftmax(0.0), "temperature must be a positive number"),
        (lambda: scg.GumbelSoftmax(float("nan")), "temperature"),
        (lambda: scg.GumbelSoftmax(1.0, hard=2), "hard must be True or False"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ScgValueError, match=message):
        make()


def test_invalid_pairings_are_refused_where_they_are_declared():
    t, rng = scg.parameter(THETA), np.random.default_rng(0)
    pairs = [
        (dist.Normal(t, 1.0), scg.UnorderedSet(2), "finite support.*ScoreFunction"),
        (dist.Normal(t, 1.0), scg.Enumerate(2), "finite support"),
        (dist.Gamma(np.exp(t), 1.0), scg.MeasureValued(), "d p / d concentration.*ScoreFunction"),
        (dist.Logistic(t, 1.0), scg.MeasureValued(), "d p / d loc"),
        (dist.Categorical(logits=t), scg.StraightThrough(), "floating-point.*OneHotCategorical"),
        (dist.Categorical(logits=t), scg.GumbelSoftmax(1.0), "Bernoulli or OneHotCategorical.*a OneHotCategorical"),
        (dist.Normal(t, 1.0), scg.ReinMax(), "needs a Bernoulli"),
        (dist.Normal(t, 1.0), scg.StraightThrough(), "needs a Discrete"),
    ]
    for distribution, estimator, message in pairs:
        with pytest.raises(EstimatorError, match=message):
            scg.sample(distribution, estimator, rng=rng, name="z")
    # only what is differentiated by needs a decomposition
    scg.sample(dist.Gamma(2.0, np.exp(t)), scg.MeasureValued(), rng=rng)


COST = np.array([1.0, 7.0, -2.0])


@pytest.mark.parametrize("p", [0.0, 1.0, 0.3])
def test_enumerate_is_exact_where_a_probability_is_zero(p):
    rng = np.random.default_rng(0)
    slope = scg.grad(lambda p, rng: 3 * scg.sample(dist.Bernoulli(probs=p), scg.Enumerate(), rng=rng) + 1)
    assert slope(np.array(p), rng=rng) == pytest.approx(3, rel=1e-12)
    probs = np.array([p, 0.0, 1 - p])
    one_hot = scg.grad(
        lambda p, rng: np.sum(scg.sample(dist.OneHotCategorical(probs=p), scg.Enumerate(), rng=rng) * COST)
    )
    np.testing.assert_allclose(one_hot(probs, rng=rng), COST, rtol=1e-12)
    index = scg.grad(
        lambda p, rng: np.take_along_axis(
            scg.parameter(COST), scg.sample(dist.Categorical(probs=p), scg.Enumerate(), rng=rng)[None], 0
        )[0]
    )
    np.testing.assert_allclose(index(probs, rng=rng), COST, rtol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [scg.Enumerate(), scg.MeasureValued(), scg.StochasticDerivative(), scg.CoupledPairs(3), scg.DisARM()],
    ids=lambda e: type(e).__name__,
)
def test_a_sample_without_elements_that_a_cost_mixes_adds_nothing(estimator):
    def cost(theta, rng):
        none = scg.sample(dist.Bernoulli(logits=theta[:0]), estimator, rng=rng)
        return (np.sum(none) - 1.0) ** 2 * theta[0]

    theta = np.array([0.3, -0.2], np.float32)
    found = scg.grad(cost)(theta, rng=np.random.default_rng(0))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1.0, 0.0])
    sample = scg.trace(cost, theta, rng=np.random.default_rng(0)).gradients(rng=np.random.default_rng(1), replicates=3)
    np.testing.assert_array_equal(sample, [[1.0, 0.0]] * 3)
