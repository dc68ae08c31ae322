"""Exact expectations, derivatives, moments and distributions: closed forms, an independent brute force, and how many
evaluations they take."""

import itertools
import math
import time

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import scg
import scg.exact
from scg import distributions as dist
from scg.distributions import kl_divergence
from scg.errors import EstimatorError, GuardError, ScgTypeError, ScgValueError
from scg.exact import engine
from scg.special import sigmoid
from tests.support import oracle
from tests.support.drawn import covering, first

COIN_ESTIMATORS = [
    scg.ScoreFunction(),
    scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    scg.ARM(),
    scg.DisARM(),
    scg.Enumerate(),
    scg.MuProp(),
]


def coin(logits, estimator, rng, **more):
    return scg.sample(dist.Bernoulli(logits=logits), estimator, rng=rng, name="b", **more)


def quadratic(estimator, k):
    return lambda t, rng: (scg.sample(dist.Normal(t[0], t[1]), estimator, rng=rng, name="x") - k) ** 2


# Published tables


@pytest.mark.parametrize(("k", "mu", "sigma"), [(-3.0, 1.0, 1.0), (0.5, -1.2, 1.0), (2.0, 0.3, 0.4)])
def test_gaussian_table(k, mu, sigma):
    d = mu - k
    rows = [
        (
            scg.ScoreFunction(),
            d**4 / sigma**2 + 14 * d**2 + 15 * sigma**2,
            2 * d**4 / sigma**2 + 60 * d**2 + 74 * sigma**2,
        ),
        (scg.ScoreFunction(baseline=scg.Constant(d**2 + 3 * sigma**2)), 8 * d**2 + 6 * sigma**2, None),
        (scg.ScoreFunction(baseline=scg.Constant(d**2 + 5 * sigma**2)), None, 40 * d**2 + 24 if sigma == 1 else None),
        (scg.Reparameterized(), 4 * sigma**2, 4 * d**2 + 8 * sigma**2),
        (scg.MeasureValued(), d**2 * (16 / math.pi - 4), 4 * d**2 + 4 * sigma**2),
    ]
    for estimator, *variances in rows:
        found = scg.exact.moments(quadratic(estimator, k), np.array([mu, sigma]))
        np.testing.assert_allclose(found.mean, [2 * d, 2 * sigma], rtol=1e-8)
        for variance, expected in zip(found.variance, variances, strict=True):
            assert expected is None or variance == pytest.approx(expected, rel=1e-8)
    np.testing.assert_allclose(
        scg.exact.gradient(quadratic(rows[0][0], k), np.array([mu, sigma])), [2 * d, 2 * sigma], rtol=1e-10
    )
    np.testing.assert_allclose(
        scg.exact.hessian(quadratic(rows[0][0], k), np.array([mu, sigma])), 2 * np.eye(2), atol=1e-9
    )
    assert scg.exact.expectation(quadratic(rows[0][0], k), np.array([mu, sigma])) == pytest.approx(
        d**2 + sigma**2, rel=1e-10
    )


def test_which_estimator_is_better_flips_with_k():
    """cos(kx) and exp(-k x^2) at mu = sigma = 1: against the trapezoid rule, which is exact to rounding here."""
    e = np.linspace(-12, 12, 200_001)
    p = np.exp(-e * e / 2) * (e[1] - e[0]) / math.sqrt(2 * math.pi)
    for f, slope, large in [
        (lambda z, k: np.cos(k * z), lambda z, k: -k * np.sin(k * z), 4.0),
        (lambda z, k: np.exp(-k * z * z), lambda z, k: -2 * k * z * np.exp(-k * z * z), 2.0),
    ]:
        better = []
        for k in (0.1, large):
            expected = [p @ g**2 - (p @ g) ** 2 for g in (f(1 + e, k) * e, slope(1 + e, k))]
            estimators = scg.ScoreFunction(), scg.Reparameterized()
            found = [
                scg.exact.moments(
                    lambda t, rng, r=r, k=k, f=f: f(scg.sample(dist.Normal(t, 1.0), r, rng=rng), k), np.array(1.0)
                ).variance
                for r in estimators
            ]
            np.testing.assert_allclose(found, expected, rtol=1e-8)
            better.append(int(np.argmin(found)))
        assert better == [1, 0]


@pytest.mark.fast
@pytest.mark.parametrize(("p", "t"), [(0.5, 0.499), (0.3, 0.45), (0.9, 0.2)])
def test_bernoulli_table(p, t):
    d, q, m = 1 - 2 * t, p * (1 - p), 1 - max(p, 1 - p)
    big = max(p, 1 - p)
    rows = {
        scg.ScoreFunction(): q * ((1 - t) ** 2 * (1 - p) + t**2 * p) ** 2,
        scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()): d**2 * q * (0.5 - q),
        scg.ARM(): 2 / 3 * d**2 * (1 / 8 - (0.5 - m) ** 3) - q**2 * d**2,
        scg.DisARM(): d**2 * q * (big / 2 - q),
    }
    for estimator, variance in rows.items():
        found = scg.exact.moments(
            lambda l, rng, estimator=estimator: (coin(l, estimator, rng) - t) ** 2, np.array(math.log(p / (1 - p)))
        )
        assert found.mean == pytest.approx(q * d, rel=1e-8)
        assert found.variance == pytest.approx(variance, rel=1e-8, abs=1e-20)


def test_the_gap_of_the_linear_gaussian_model():
    """log p(x) - ELBO = KL(q || posterior) = D/2 (1/3 - ln 4/3) for every x; the cost is a sum over D = 20 dimensions,
    which is found."""
    d = 20
    mu, x = np.linspace(-1, 1, d), np.random.default_rng(0).normal(size=d)

    def elbo(a, rng):
        q = dist.Normal(a * x + mu / 2, math.sqrt(2 / 3))
        z = scg.sample(q, scg.Reparameterized(), rng=rng)
        return np.sum(dist.Normal(mu, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - q.log_prob(z))

    found = scg.exact.expectation(elbo, np.array(0.5), full=True)
    log_p = np.sum(dist.Normal(mu, math.sqrt(2)).log_prob(x))
    assert log_p - found.value == pytest.approx(10 * (1 / 3 - math.log(4 / 3)), rel=1e-8)
    assert found.error < 1e-10
    assert scg.exact.gradient(elbo, np.array(0.5)) == pytest.approx(0, abs=1e-10)


# Small exact cases


@pytest.mark.fast
def test_small_cases():
    def square(distribution):
        return lambda t, rng: scg.sample(distribution(t), scg.Reparameterized(), rng=rng) ** 2

    np.testing.assert_allclose(
        scg.exact.gradient(square(lambda t: dist.Uniform(t[0], t[1])), np.array([-1.0, 2.0])), [0, 1], atol=1e-10
    )
    assert scg.exact.gradient(square(lambda t: dist.Normal(0.0, t)), np.array(1.5)) == pytest.approx(3, rel=1e-10)

    def landing(t, rng):
        z = scg.sample(dist.Normal(t[0], t[1]), scg.Reparameterized(), rng=rng)
        return dist.Normal(t[0], t[1]).stop_gradient().log_prob(z) - dist.Normal(0.5, 1.3).log_prob(z)

    found = scg.exact.moments(landing, np.array([0.5, 1.3]))
    np.testing.assert_allclose([found.mean, found.variance], 0, atol=1e-12)


@pytest.mark.parametrize(
    "estimator", [scg.StraightThrough(), scg.GumbelSoftmax(0.5), scg.GumbelSoftmax(0.5, hard=True), scg.ReinMax()]
)
def test_a_relaxed_draw_counts_as_what_it_relaxes(estimator):
    def cost(t, rng, estimator=estimator):
        return np.sum((coin(t, estimator, rng) - 0.45) ** 3)

    theta = np.array([0.3, -0.5])
    plain = scg.trace(cost, theta, rng=np.random.default_rng(0), estimator=scg.ScoreFunction())
    relaxed = scg.trace(cost, theta, rng=np.random.default_rng(0))
    assert scg.exact.expectation(relaxed) == pytest.approx(scg.exact.expectation(plain), rel=1e-12)
    np.testing.assert_allclose(scg.exact.gradient(relaxed), scg.exact.gradient(plain), rtol=1e-12)


@pytest.mark.fast
def test_a_biased_estimator_has_another_mean():
    def cost(t, rng):
        return (coin(t, scg.StraightThrough(), rng) - 0.45) ** 3

    assert abs(scg.exact.moments(cost, np.array(0.3)).mean - scg.exact.gradient(cost, np.array(0.3))) > 1e-3


# How a cost is taken apart


@pytest.mark.fast
def test_two_hundred_coins_take_four_hundred_evaluations():
    theta = np.linspace(-1, 1, 200)

    def cost(t, rng):
        return np.mean((coin(t, scg.ScoreFunction(), rng) - 0.499) ** 2)

    p = 1 / (1 + np.exp(-theta))
    found = scg.exact.expectation(cost, theta, full=True)
    assert found.evaluations == 400
    assert found.value == pytest.approx(np.mean(p * 0.501**2 + (1 - p) * 0.499**2), rel=1e-13)
    both = scg.exact.moments(cost, theta, full=True)
    assert both.evaluations == 800  # means, and covariances about them
    np.testing.assert_allclose(both.value.mean, p * (1 - p) * (0.501**2 - 0.499**2) / 200, rtol=1e-10)
    np.testing.assert_allclose(
        both.value.variance, p * (1 - p) * (0.501**2 * (1 - p) + 0.499**2 * p) ** 2 / 200**2, rtol=1e-10
    )


@pytest.mark.fast
def test_a_parameter_that_parts_share():
    """Var[sum_i a_i] of a scalar parameter: the sum of 200 variances, and none of the 19,900 covariances is looked
    at."""

    def cost(t, rng):
        return np.mean((coin(t + np.zeros(200), scg.ScoreFunction(), rng) - 0.3) ** 2)

    found = scg.exact.moments(cost, np.array(0.4), full=True)
    p = 1 / (1 + math.exp(-0.4))
    assert found.value.variance == pytest.approx(p * (1 - p) * (0.49 * (1 - p) + 0.09 * p) ** 2 / 200, rel=1e-10)
    assert found.evaluations <= 1600


@pytest.mark.fast
def test_neighbours_are_enumerated_in_pairs():
    theta = np.linspace(-1, 1, 60)

    def cost(t, rng):
        b = coin(t, scg.ScoreFunction(), rng)
        return np.sum((b[1:] - 2 * b[:-1]) ** 2)

    p = 1 / (1 + np.exp(-theta))
    found = scg.exact.expectation(cost, theta)
    assert found == pytest.approx(np.sum(p[1:] + 4 * p[:-1] - 4 * p[1:] * p[:-1]), rel=1e-12)


@pytest.mark.fast
def test_a_budget_that_is_exceeded_names_the_draws():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="coins")
        k = scg.sample(dist.Categorical(logits=t[:3]), scg.ScoreFunction(), rng=rng, name="kind")
        return np.exp(np.sum(b)) + k

    with pytest.raises(scg.exact.BudgetError, match=r"coins \(30 elements of 2 values\).*1073741824.*1048576"):
        scg.exact.expectation(cost, np.zeros(30))
    with pytest.raises(ScgValueError, match=r"coins \(4 elements of 2 values\)"):
        scg.exact.moments(cost, np.zeros(4), budget=10)
    assert scg.exact.expectation(cost, np.zeros(4), budget=16) == pytest.approx(((1 + np.e) / 2) ** 4 + 1)


@pytest.mark.parametrize(
    "distribution, count",
    [
        (lambda t: dist.UniformSubset(100, 10), r"about 10\^13.2"),
        (lambda t: dist.Multinomial(60, logits=t + np.zeros(12)), r"about 10\^12.4"),
        (lambda t: dist.Independent(dist.Bernoulli(logits=t + np.zeros(400)), 1), r"about 10\^120.4"),
    ],
)
def test_values_that_are_too_many_are_not_listed(distribution, count):
    with pytest.raises(scg.exact.BudgetError, match=f"z: .* has {count} values"):
        scg.exact.expectation(
            lambda t, rng: t * np.sum(scg.sample(distribution(t), scg.ScoreFunction(), rng=rng, name="z")),
            np.array(0.1),
        )
    small = (
        dist.UniformSubset(5, 2),
        dist.Multinomial(3, probs=np.ones(4) / 4),
        dist.Independent(dist.Bernoulli(probs=np.full((2, 3), 0.5)), 2),
        dist.SubsetOfSize(np.zeros(4), 2),
        dist.PlackettLuce(np.zeros(4), 2),
        dist.OneHotPlackettLuce(np.zeros(4), 2),
    )
    assert [x.count() for x in small] == [len(x.atoms()) for x in small] == [10, 20, 64, 6, 12, 12]


def test_memory_is_bounded(monkeypatch):
    def cost(t, rng):
        return np.sum(coin(t, scg.ScoreFunction(), rng) * np.arange(10)) ** 2

    theta = np.linspace(-1, 1, 10)
    whole = (
        scg.exact.expectation(cost, theta),
        scg.exact.gradient(cost, theta),
        scg.exact.hessian(cost, theta),
        scg.exact.moments(cost, theta).variance,
    )
    monkeypatch.setattr(engine, "_BLOCK", 999)
    parts = (
        scg.exact.expectation(cost, theta),
        scg.exact.gradient(cost, theta),
        scg.exact.hessian(cost, theta),
        scg.exact.moments(cost, theta).variance,
    )
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


# Against brute force, on drawn graphs


def drawn(seed):
    """A small random model: coins (some drawn from others, some in rows), a normal, and costs that mix some of their
    elements."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=12)
    rows, chained, normal, mixing = rng.random(4) < 0.5

    def cost(t, rng, first, second, third):
        b = scg.sample(
            dist.Bernoulli(logits=t * w[:2] if not rows else np.reshape(t, (2, 1)) * w[:1]), first, rng=rng, name="b"
        )
        y = scg.sample(
            dist.Bernoulli(probs=0.1 + 0.8 * sigmoid((b * w[2] if chained else w[2]) + t[0])), second, rng=rng, name="y"
        )
        total = np.sum((b - w[3]) ** 2 * t[1]) + np.mean(y * b * w[4]) - np.sum(y * t[0]) / 3
        if normal:
            z = scg.sample(dist.Normal(t[0] + np.sum(b) * w[5], 0.5 + t[1] ** 2), third, rng=rng, name="z")
            total = total + z**2 * w[6] + z * t[0]
        return total + (np.sum(b * w[7] + y) ** 2 if mixing else np.sum(b * w[8]) * t[1])

    return cost


ESTIMATORS = [
    (scg.ScoreFunction(), scg.ScoreFunction(), scg.ScoreFunction()),
    (scg.DisARM(), scg.ScoreFunction(), scg.Reparameterized()),
    (scg.Enumerate(), scg.DisARM(), scg.Reparameterized()),
    (scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()), scg.Enumerate(), scg.Reparameterized()),
]


@pytest.mark.parametrize(("seed", "estimators"), covering(range(8), range(len(ESTIMATORS))))
def test_against_brute_force(seed, estimators):
    theta = np.random.default_rng(100 + seed).normal(size=2)
    cost = drawn(seed)
    graph = scg.trace(
        cost,
        theta,
        rng=np.random.default_rng(seed),
        first=ESTIMATORS[estimators][0],
        second=ESTIMATORS[estimators][1],
        third=ESTIMATORS[estimators][2],
    )
    found, gradient = scg.exact.moments(graph), scg.exact.gradient(graph)
    # the brute force has its points where the normal was recorded, also for other values of b: it takes more of them
    mean, variance, exact = oracle.moments(
        lambda t, rng: cost(t, rng, *ESTIMATORS[estimators]), theta, seed=seed, points=60
    )
    np.testing.assert_allclose(gradient, exact, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.mean, gradient, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("seed", first(4, range(8)))
def test_rebinding_changes_no_truth(seed):
    """And the second derivative is that of the brute force."""
    theta, cost = np.random.default_rng(100 + seed).normal(size=2), drawn(seed)
    graphs = [
        scg.trace(cost, theta, rng=np.random.default_rng(seed), first=a, second=b, third=c) for a, b, c in ESTIMATORS
    ]
    values, gradients, hessians = (
        [f(g) for g in graphs] for f in (scg.exact.expectation, scg.exact.gradient, scg.exact.hessian)
    )
    for column in (values, gradients, hessians):
        for other in column[1:]:
            np.testing.assert_allclose(other, column[0], rtol=1e-9, atol=1e-10)
    direction = np.linspace(1, 2, 2)
    exact = oracle.first_and_second(lambda t, rng: cost(t, rng, *ESTIMATORS[0]), theta, seed=seed, points=60)[1][1]
    np.testing.assert_allclose(hessians[0] @ direction, exact, rtol=1e-8, atol=1e-9)
    h = 1e-5
    for k, unit in enumerate(np.eye(2)):
        ends = [
            scg.exact.expectation(
                cost,
                theta + s * h * unit,
                rng=np.random.default_rng(0),
                first=ESTIMATORS[0][0],
                second=ESTIMATORS[0][1],
                third=ESTIMATORS[0][2],
            )
            for s in (1, -1)
        ]
        assert gradients[0][k] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-6)


def test_an_estimator_with_noise_of_its_own():
    def cost(t, rng, estimator):
        return (coin(t, estimator, rng) - 0.45) ** 2 * (1 + t)

    truth = scg.exact.gradient(cost, np.array(0.3), estimator=scg.Enumerate())
    for estimator in (*COIN_ESTIMATORS, scg.REBAR(temperature=1.0, scale=0.7), scg.MeasureValued()):
        found = scg.exact.moments(cost, np.array(0.3), estimator=estimator)
        assert found.mean == pytest.approx(truth, rel=1e-10)
        assert found.variance >= 0


# Distributions


DISTRIBUTIONS = [
    (lambda t: dist.Exponential(t[0]), [1.7]),
    (lambda t: dist.Gamma(t[0], t[1]), [2.3, 0.7]),
    (lambda t: dist.Gamma(t[0], t[1]), [0.6, 0.7]),
    (lambda t: dist.Beta(t[0], t[1]), [0.6, 2.5]),
    (lambda t: dist.LogNormal(t[0], t[1]), [0.1, 0.5]),
    (lambda t: dist.Gumbel(t[0], t[1]), [0.1, 0.5]),
    (lambda t: dist.Laplace(t[0], t[1]), [0.6, 2.5]),
    (lambda t: dist.Poisson(t[0]), [3.0]),
    (lambda t: dist.Poisson(t[0]), [300.0]),
    (lambda t: dist.Geometric(t[0]), [0.1]),
    (lambda t: dist.NegativeBinomial(t[0], probs=t[1]), [2.5, 0.3]),
    (lambda t: dist.Binomial(5, probs=t[0]), [0.3]),
    (lambda t: dist.Normal(t[0] + np.zeros(3), t[1]), [0.3, 2.0]),
]


@pytest.mark.parametrize("case", range(len(DISTRIBUTIONS)))
def test_second_moments(case):
    """E[z^2] = mean^2 + variance, and its gradient that of the closed form."""
    distribution, at = DISTRIBUTIONS[case]
    theta = np.array(at)
    for estimator in [scg.ScoreFunction()] + [scg.Reparameterized()] * distribution(theta).has(
        dist.base.Reparameterizable
    ):

        def cost(t, rng, estimator=estimator):
            return np.sum(scg.sample(distribution(t), estimator, rng=rng) ** 2)

        found = scg.exact.expectation(cost, theta, full=True)
        d = distribution(theta)
        expected = np.sum(d.mean**2 + d.variance)
        assert found.value == pytest.approx(expected, rel=1e-9)
        assert abs(found.value - expected) <= 10 * found.error + 1e-14 * expected
        closed = scg.grad(lambda t: np.sum(distribution(t).mean ** 2 + distribution(t).variance))(theta)
        np.testing.assert_allclose(scg.exact.gradient(cost, theta), closed, rtol=1e-8, atol=1e-10)


@pytest.mark.fast
@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.DisARM(), scg.Enumerate()])
def test_whole_numbers(estimator):
    """Their means are fractions."""

    def cost(t, rng):
        k = scg.sample(dist.Categorical(logits=t), estimator, rng=rng)
        assert k.dtype.kind == "i"
        return 0.5 * np.sum(k) + k + k**2

    theta = np.array([0.0, 1.0, -0.3])
    p, f = np.exp(theta) / np.sum(np.exp(theta)), 1.5 * np.arange(3) + np.arange(3) ** 2
    assert scg.exact.expectation(cost, theta) == pytest.approx(p @ f, rel=1e-12)
    np.testing.assert_allclose(scg.exact.gradient(cost, theta), p * (f - p @ f), rtol=1e-12)
    np.testing.assert_allclose(scg.exact.moments(cost, theta).mean, p * (f - p @ f), rtol=1e-12)


@pytest.mark.fast
def test_minibatch():
    data = np.arange(6.0) ** 2

    def cost(t, rng):
        batch = scg.minibatch(6, 2, rng=rng)
        return np.sum(batch.rows(data) * t) * batch.factor

    found = scg.exact.moments(cost, np.array(2.0))
    assert found.mean == pytest.approx(np.sum(data), rel=1e-12)
    pairs = [3 * (data[i] + data[j]) for i in range(6) for j in range(i)]
    assert found.variance == pytest.approx(np.var(pairs), rel=1e-12)


def test_vectors():
    loc, tril = np.array([0.3, -1.0]), np.array([[1.0, 0.0], [0.4, 0.8]])

    def cost(t, rng, estimator):
        z = scg.sample(dist.MultivariateNormal(t, scale_tril=tril), estimator, rng=rng)
        return z[0] ** 2 * z[1]

    truth = (loc[0] ** 2 + 1) * loc[1] + 2 * loc[0] * 0.4
    for estimator in (scg.ScoreFunction(), scg.Reparameterized()):
        np.testing.assert_allclose(
            scg.exact.moments(cost, loc, estimator=estimator).mean,
            scg.exact.gradient(cost, loc, estimator=estimator),
            rtol=1e-9,
        )
        assert scg.exact.expectation(cost, loc, estimator=estimator) == pytest.approx(truth, rel=1e-9)


def test_pathwise_vectors():
    """E sum_k w_k z_k of a Dirichlet distribution is w.a / A, A = sum a: its derivative in log a_k is a_k (w_k / A -
    w.a / A^2)."""
    w, logs = np.array([1.0, 4.0]), np.array([0.3, -0.4])

    def cost(t, rng):
        return w @ scg.sample(dist.Dirichlet(np.exp(t)), scg.Reparameterized(), rng=rng)

    a = np.exp(logs)
    np.testing.assert_allclose(scg.exact.gradient(cost, logs), a * (w / np.sum(a) - w @ a / np.sum(a) ** 2), rtol=1e-9)


def test_a_path_whose_support_moves_with_another_draw():
    """u uniform on (t - z / 2, t + 2 - z / 2): E u^2 = E (t + 1 - z / 2)^2 + 1/3, so the derivative in t is 2 (t + 1 -
    E z / 2)."""

    def cost(t, rng):
        z = scg.sample(dist.LogNormal(0.2, 0.5), scg.ScoreFunction(), rng=rng)
        return scg.sample(dist.Uniform(t - z / 2, t + 2 - z / 2), scg.Reparameterized(), rng=rng) ** 2

    found = scg.exact.gradient(cost, np.array(0.3), rtol=1e-7)
    assert found == pytest.approx(2 * (1.3 - math.exp(0.2 + 0.125) / 2), rel=1e-6)


@pytest.mark.fast
def test_a_kl_divergence():
    p, q = dist.Normal(0.3, 0.7), dist.Normal(-0.2, 1.1)

    def cost(t, rng):
        distribution = dist.Normal(t, 0.7)
        z = scg.sample(distribution, scg.Reparameterized(), rng=rng)
        return distribution.log_prob(z) - q.log_prob(z)

    assert scg.exact.expectation(cost, np.array(0.3)) == pytest.approx(float(kl_divergence(p, q)), rel=1e-10)


BENT = {  # f(x) of x ~ N(0.3, 1), and its mean by hand, with d = c - 0.3
    "abs": (lambda x: np.abs(x - 1.3), lambda: 2 * norm.pdf(1) + 2 * norm.cdf(1) - 1),
    "maximum": (lambda x: np.maximum(x, 0.7), lambda: 0.7 * norm.cdf(0.4) + 0.3 * norm.sf(0.4) + norm.pdf(0.4)),
    "a jump": (lambda x: np.where(x > 0.7, 1.0, 0.0), lambda: norm.sf(0.4)),
    # symmetric rules about 0.3 do not see this one
    "sign": (lambda x: np.sign(x - 0.2), lambda: 2 * norm.cdf(0.1) - 1),
    "clip": (lambda x: np.clip(x, -1, 0.5), lambda: quad_of(lambda x: np.clip(x, -1, 0.5), [-1, 0.5])),
    "floor": (np.floor, lambda: sum(k * (norm.cdf(k + 0.7) - norm.cdf(k - 0.3)) for k in range(-40, 40))),
    "two kinks": (lambda x: np.abs(np.abs(x) - 1), lambda: quad_of(lambda x: np.abs(np.abs(x) - 1), [-1, 0, 1])),
    "a root": (lambda x: np.sqrt(np.abs(x - 1)), lambda: quad_of(lambda x: np.sqrt(np.abs(x - 1)), [1])),
    "a pole": (lambda x: np.log(np.abs(x)), lambda: quad_of(lambda x: np.log(np.abs(x)), [0])),
    "by a coin": (
        lambda x, b: np.abs(x - 1.3 * b),
        lambda: 0.25 * (2 * norm.pdf(1) + 2 * norm.cdf(1) - 1) + 0.75 * quad_of(np.abs, [0]),
    ),
}


def quad_of(f, breaks):
    edges = [-12, *breaks, 12]
    return sum(
        quad(lambda x: f(x) * norm.pdf(x, 0.3), a, b, epsabs=1e-12, epsrel=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(edges)
    )


@pytest.mark.parametrize(("name", "estimator"), covering([*BENT], [scg.ScoreFunction(), scg.Reparameterized()]))
def test_kinks_and_jumps_are_found(name, estimator):
    """Anywhere along the line: mean, and derivatives of it by the mean of the distribution, which are those by
    differences of it."""
    f, truth = BENT[name]

    def cost(t, rng):
        x = scg.sample(dist.Normal(t, 1.0), estimator, rng=rng)
        return (
            f(x, scg.sample(dist.Bernoulli(probs=0.25), scg.ScoreFunction(), rng=rng)) if name == "by a coin" else f(x)
        )

    found = scg.exact.expectation(cost, np.array(0.3), full=True)
    assert found.value == pytest.approx(truth(), rel=1e-10)
    assert abs(found.value - truth()) <= 1e-10 and found.error < 1e-10
    h = 1e-3
    ends = [scg.exact.expectation(cost, np.array(0.3 + s * h)) for s in (-2, -1, 1, 2)]
    first, second = (
        (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * h),
        (-ends[0] + 16 * (ends[1] + ends[2]) - ends[3] - 30 * found.value) / (12 * h**2),
    )
    assert scg.exact.gradient(cost, np.array(0.3)) == pytest.approx(first, abs=1e-8)
    # ends are right to 1e-10, divided by h^2
    assert scg.exact.hessian(cost, np.array(0.3)) == pytest.approx(second, abs=1e-3)


def test_every_element_has_breaks_of_its_own():
    mean, c = np.linspace(-1, 1, 7), np.linspace(-2, 2, 7)
    d = c - mean
    cost = lambda t, rng: np.mean(np.abs(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) - c))
    assert scg.exact.expectation(cost, mean) == pytest.approx(
        np.mean(2 * norm.pdf(d) + d * (2 * norm.cdf(d) - 1)), rel=1e-10
    )
    np.testing.assert_allclose(scg.exact.gradient(cost, mean), (1 - 2 * norm.cdf(d)) / 7, rtol=1e-9, atol=1e-12)
    both = scg.exact.moments(
        lambda t, rng: np.sum(np.abs(scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng) - c)), mean
    )
    np.testing.assert_allclose(both.variance, 4 * norm.cdf(d) * norm.sf(d), rtol=1e-9)  # of a sign


TAILS = [
    (lambda t: dist.StudentT(5.0, t, 1.0), lambda x: x * x, 5 / 3 + 0.01),
    (lambda t: dist.StudentT(3.0, t, 1.0), lambda x: x * x, 3 + 0.01),
    (lambda t: dist.Cauchy(t, 1.0), lambda x: 1 / (1 + x * x), 2 / (4 + 0.01)),
    (lambda t: dist.Cauchy(t, 1.0), lambda x: np.where(x > 0.7, 1.0, 0.0), 0.5 - math.atan(0.6) / math.pi),
    (lambda t: dist.InverseGamma(3.0 + t, 2.0), lambda x: x, 2 / 2.1),
    (lambda t: dist.LogNormal(t, 1.0), lambda x: x**4, math.exp(0.4 + 8)),
]


@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.Reparameterized()])
@pytest.mark.parametrize("case", range(len(TAILS)))
def test_heavy_tails(case, estimator):
    distribution, f, truth = TAILS[case]
    cost = lambda t, rng: f(scg.sample(distribution(t), estimator, rng=rng))
    assert scg.exact.expectation(cost, np.array(0.1)) == pytest.approx(truth, rel=1e-9)
    if case < 2:
        assert scg.exact.gradient(cost, np.array(0.1)) == pytest.approx(0.2, rel=1e-9)
        assert scg.exact.hessian(cost, np.array(0.1)) == pytest.approx(2.0, rel=1e-9)


def test_what_does_not_settle_is_refused():
    def together(t, rng):
        x = scg.sample(dist.MultivariateNormal(t + np.zeros(2), scale_tril=np.eye(2)), scg.ScoreFunction(), rng=rng)
        return np.sign(x[0] + x[1] - 0.45)

    with pytest.raises(scg.exact.ConvergenceError, match="multivariatenormal .*did not settle.*sign.*several samples"):
        scg.exact.expectation(together, np.array(0.3))

    def without_mean(t, rng):
        return scg.sample(dist.Cauchy(t, 1.0), scg.Reparameterized(), rng=rng) ** 2

    with pytest.raises(scg.exact.ConvergenceError, match="cauchy.*the mean does not exist"):
        scg.exact.expectation(without_mean, np.array(0.3))

    def along_a_path(t, rng):
        return np.abs(scg.sample(dist.Uniform(t - 1, t + 1), scg.Reparameterized(), rng=rng, name="u") - 0.5)

    assert scg.exact.expectation(along_a_path, np.array(0.3)) == pytest.approx((1.2**2 + 0.8**2) / 4, rel=1e-12)
    assert scg.exact.gradient(along_a_path, np.array(0.3)) == pytest.approx(-0.2, rel=1e-12)
    with pytest.raises(ScgValueError, match="kink along the path of u"):
        scg.exact.hessian(along_a_path, np.array(0.3))


WITHOUT_MEAN = {  # E|f| is infinite in each, though symmetric rules find a value
    "Cauchy": lambda rng: scg.sample(dist.Cauchy(0.3, 1.0), scg.ScoreFunction(), rng=rng),
    "cube of Student's t": lambda rng: scg.sample(dist.StudentT(2.5, 0.0, 1.0), scg.ScoreFunction(), rng=rng) ** 3,
    "a simple pole": lambda rng: 1 / (scg.sample(dist.Normal(0.3, 1.0), scg.ScoreFunction(), rng=rng) - 0.3),
    "a double pole": lambda rng: 1 / (scg.sample(dist.Laplace(0.3, 1.0), scg.ScoreFunction(), rng=rng) - 0.2) ** 2,
    "tangent": lambda rng: np.tan(scg.sample(dist.Normal(0.0, 1.0), scg.ScoreFunction(), rng=rng)),
    "ratio": lambda rng: np.divide(
        *(scg.sample(dist.Normal(m, 1.0), scg.ScoreFunction(), rng=rng) for m in (0.3, 0.0))
    ),
    "at an end": lambda rng: 1 / scg.sample(dist.Gamma(0.9, 1.0), scg.ScoreFunction(), rng=rng),
    "at the other end": lambda rng: 1 / (1 - scg.sample(dist.Beta(0.7, 0.8), scg.ScoreFunction(), rng=rng)),
    "exponential of a lognormal": lambda rng: np.exp(
        scg.sample(dist.LogNormal(0.0, 1.0), scg.ScoreFunction(), rng=rng)
    ),
}


@pytest.mark.parametrize("name", WITHOUT_MEAN)
def test_means_that_do_not_exist(name):
    with pytest.raises(scg.exact.ConvergenceError, match=r"(?s)E\|\.\| is infinite"):
        scg.exact.expectation(lambda t, rng: WITHOUT_MEAN[name](rng) + t, np.array(0.0))


def test_means_that_just_exist():
    """1 / z of Gamma(a): 1 / (a - 1); Student's t beyond its variance: its centre; Beta(a, a) with poles of its density
    at both ends: 1/2."""
    for distribution, f, truth in [
        (dist.Gamma(1.2, 1.0), lambda z: 1 / z, 5.0),
        (dist.StudentT(2.0, 0.3, 1.0), lambda z: z, 0.3),
        (dist.Beta(0.3, 0.3), lambda z: z, 0.5),
        (dist.Beta(0.7, 1.8), lambda z: 1 / (1 - z), 1.5 / 0.8),
    ]:
        found = scg.exact.expectation(
            lambda t, rng, distribution=distribution, f=f: (
                f(scg.sample(distribution, scg.ScoreFunction(), rng=rng)) + t
            ),
            np.array(0.0),
            full=True,
        )
        assert abs(found.value - truth) <= found.error + 1e-10 * truth and found.error < 1e-6


NARROW = {  # at 0.6, of which the normal density at mean 0.3 is pdf(0.3)
    "a bump": (
        lambda z: np.exp(-0.5 * ((z - 0.6) / 1e-3) ** 2),
        1e-3 / math.sqrt(1 + 1e-6) * math.exp(-0.045 / (1 + 1e-6)),
    ),
    "a bump by its square": (
        lambda z: np.exp(-0.5e6 * (z * z - 1.2 * z + 0.36)),
        1e-3 / math.sqrt(1 + 1e-6) * math.exp(-0.045 / (1 + 1e-6)),
    ),
    "a needle": (lambda z: z + np.exp(-0.5 * ((z - 0.6) / 1e-6) ** 2), 0.3 + 1e-6 * math.exp(-0.045)),
    "a window": (lambda z: 1.0 * (np.abs(z - 0.6) < 2e-3), norm.cdf(0.302) - norm.cdf(0.298)),
    "a steep step": (
        lambda z: np.tanh((z - 0.6) / 1e-5),
        1 - 2 * norm.cdf(0.3) - 2 * 0.3 * norm.pdf(0.3) * 1e-10 * math.pi**2 / 12,
    ),
}


@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.Reparameterized()])
@pytest.mark.parametrize("name", NARROW)
def test_narrow_places_are_found(name, estimator):
    f, truth = NARROW[name]
    if name == "a window":  # which no path passes
        estimator = scg.ScoreFunction()
    found = scg.exact.expectation(
        lambda t, rng: f(scg.sample(dist.Normal(t, 1.0), estimator, rng=rng)), np.array(0.3), full=True
    )
    assert found.value == pytest.approx(truth, rel=1e-8, abs=1e-12) and found.error < 1e-9


def test_narrow_places_of_two_draws_are_found_or_refused():
    """z1 - z2 is N(0, 2): a bump of width w at c has the mean exp(-c^2 / (2 w^2 + 4)) / sqrt(1 + 2 / w^2)."""
    bump = lambda w: math.exp(-0.09 / (2 * w * w + 4)) / math.sqrt(1 + 2 / w**2)
    for f, truth in [
        (lambda d: np.exp(-0.5 * ((d - 0.3) / 3e-3) ** 2), bump(3e-3)),
        (
            lambda d: np.where((d - 0.3) ** 2 < 1e-6, 1.0, 0.0),
            norm.cdf(0.301 / math.sqrt(2)) - norm.cdf(0.299 / math.sqrt(2)),
        ),
        (lambda d: d * d + np.exp(-0.5 * ((d - 0.3) / 1e-2) ** 2), 2 + bump(1e-2)),
        (lambda d: d * d + np.exp(-0.5 * (d - 0.3) ** 2), 2 + bump(1.0)),
    ]:

        def cost(t, rng, f=f):
            one, two = (scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) for _ in range(2))
            return f(one - two)

        try:
            found = scg.exact.expectation(cost, np.array(0.3), full=True)
        except scg.exact.ConvergenceError:
            continue
        assert abs(found.value - truth) <= found.error + 1e-10
    assert found.error < 1e-9  # the last is smooth


def test_kinks_of_two_draws_at_a_tolerance():
    """E max(z1, z2) = 1 / sqrt(pi) and E |z1 - z2| = 2 / sqrt(pi) of standard normals."""
    for f, truth in [(np.maximum, 1 / math.sqrt(math.pi)), (lambda a, b: np.abs(a - b), 2 / math.sqrt(math.pi))]:

        def cost(t, rng, f=f):
            return f(*(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) for _ in range(2)))

        found = scg.exact.expectation(cost, np.array(0.0), rtol=1e-3, full=True)
        assert abs(found.value - truth) <= min(found.error, 1e-3)


def test_time_is_limited():
    def cost(t, rng):
        z = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, shape=(3,), name="z")
        return np.max(np.tanh(z))

    start = time.monotonic()
    with pytest.raises(scg.exact.BudgetError, match="z .*time_limit"):
        scg.exact.gradient(cost, np.array(0.3), time_limit=0.2)
    assert time.monotonic() - start < 20
    assert scg.exact.expectation(
        quadratic(scg.ScoreFunction(), 0.0), np.array([1.0, 1.0]), time_limit=60
    ) == pytest.approx(2.0)


# Mixtures


MIXED = {  # components along the last batch axis, and all values with the probabilities of each component
    "Categorical": lambda p: (dist.Categorical(probs=p), [(np.array(k), p[:, k]) for k in range(3)]),
    "OneHotCategorical": lambda p: (dist.OneHotCategorical(probs=p), [(np.eye(3)[k], p[:, k]) for k in range(3)]),
    "Bernoulli": lambda p: (dist.Bernoulli(probs=p[:, 0]), [(np.array(k), np.abs(1 - k - p[:, 0])) for k in (0, 1)]),
    "Binomial": lambda p: (
        dist.Binomial(2, probs=p[:, 0]),
        [(np.array(k), math.comb(2, k) * p[:, 0] ** k * (1 - p[:, 0]) ** (2 - k)) for k in range(3)],
    ),
    "Multinomial": lambda p: (
        dist.Multinomial(2, probs=p),
        [
            (np.bincount(pair, minlength=3), (1 + (pair[0] != pair[1])) * p[:, pair[0]] * p[:, pair[1]])
            for pair in itertools.combinations_with_replacement(range(3), 2)
        ],
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixtures_of_finitely_many_values(name):
    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    distribution, table = MIXED[name](p)
    f = lambda z: np.sum(np.sin(1.0 * z * np.array([1.0, 2.0, 0.5])))

    def cost(w, rng, estimator=scg.ScoreFunction()):
        return f(scg.sample(dist.Mixture(distribution, logits=w), estimator, rng=rng, name="z"))

    logits = np.array([0.2, -0.4])
    w = sigmoid(logits[0] - logits[1])
    means = sum(f(z) * chance for z, chance in table)
    truth = w * (1 - w) * (means[0] - means[1]) * np.array([1, -1])
    found = scg.exact.gradient(cost, logits)
    np.testing.assert_allclose(found, truth, rtol=1e-12)
    graph = scg.trace(cost, logits, rng=np.random.default_rng(0))
    np.testing.assert_allclose(graph.bind(z=scg.Enumerate()).gradients(rng=np.random.default_rng(0)), truth, rtol=1e-12)
    second = sum(
        (f(z) * np.array([1, -1]) * w * (1 - w) * (c[0] - c[1]) / (w * c[0] + (1 - w) * c[1])) ** 2
        * (w * c[0] + (1 - w) * c[1])
        for z, c in table
    )
    np.testing.assert_allclose(scg.exact.moments(graph).variance, second - truth**2, rtol=1e-10)
    assert scg.testing.judge(graph, rng=np.random.default_rng(0)).status == "unbiased"


def test_a_mixture_with_an_impossible_component_has_moments():
    """Zero-inflated: with weight 1 - w the value is 0. E z^2 = w (m + m^2), m = exp(a): the derivative in a is w (m + 2
    m^2)."""

    def cost(p, rng):
        distribution = dist.Mixture(dist.Poisson(np.stack([0 * p[0], np.exp(p[0])])), logits=np.stack([p[1], 0 * p[1]]))
        return scg.sample(distribution, scg.ScoreFunction(), rng=rng, name="z") ** 2.0

    a, b = 0.5, -0.3
    m, w = math.exp(a), 1 - sigmoid(b)
    found = scg.exact.moments(cost, np.array([a, b]))
    np.testing.assert_allclose(found.mean, [w * (m + 2 * m * m), -w * (1 - w) * (m + m * m)], rtol=1e-9)
    k = np.arange(1, 60.0)  # at 0 the cost is 0; above it the score in a is k - m
    chance = w * np.exp(k * a - m - np.array([math.lgamma(n + 1) for n in k]))
    np.testing.assert_allclose(
        found.variance[0], np.sum(chance * (k * k * (k - m)) ** 2) - found.mean[0] ** 2, rtol=1e-9
    )


def test_a_mixture_of_vectors_is_judged_by_replicates():
    def cost(p, rng):
        distribution = dist.Mixture(
            dist.MultivariateNormal(np.reshape(p, (2, 2)), scale_tril=np.eye(2)), weights=np.array([0.3, 0.7])
        )
        z = scg.sample(distribution, scg.ScoreFunction(), rng=rng, name="z")
        return z[0] * z[1]

    graph = scg.trace(cost, np.array([1.0, -0.5, 0.3, 1.0]), rng=np.random.default_rng(0))
    with pytest.raises(scg.exact.ConvergenceError, match="z: no quadrature rule is known.*sample it"):
        scg.exact.gradient(graph)
    assert scg.testing.judge(graph, rng=np.random.default_rng(0), detect=0.3).status == "unbiased"


# An `if` on a draw


def branching(t, rng, estimator=None, choose=None):
    b = coin(t, estimator or scg.ScoreFunction(), rng)
    taken, left = (
        lambda: (b - t) ** 2,
        lambda: np.exp(t) * (1 - b) + scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng) ** 2,
    )
    if choose is not None:
        return choose(b > 0, taken(), left())
    return taken() if b > 0 else left()


def on_a_number(t, rng, choose=None):
    x = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng)
    if choose is not None:
        return choose(x > 0.5, x * x * t, np.sin(x))
    return x * x * t if x > 0.5 else np.sin(x)


def stopping(t, rng, choose=None):
    """The number of heads before the first tail, of six coins."""
    if choose is not None:
        return np.sum(np.cumprod(coin(t + np.zeros(6), scg.ScoreFunction(), rng))) * (1 + t)
    total, k = 0 * t, 0
    while k < 6 and scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng) > 0:
        total, k = total + 1 + t, k + 1
    return total


@pytest.mark.parametrize("cost", [branching, on_a_number, stopping])
def test_every_way_through_an_if_is_taken(cost):
    """What np.where gives, where both sides exist."""
    t = np.array(0.3)
    for f in (scg.exact.expectation, scg.exact.gradient, scg.exact.hessian):
        assert f(cost, t) == pytest.approx(f(cost, t, choose=np.where), rel=1e-9)
    found = scg.exact.moments(cost, t)
    assert found.mean == pytest.approx(scg.exact.gradient(cost, t), rel=1e-9)
    if cost is not stopping:  # whose draws differ
        np.testing.assert_allclose(found, scg.exact.moments(cost, t, choose=np.where), rtol=1e-9)
        bound = scg.trace(cost, t, rng=np.random.default_rng(0))
        np.testing.assert_allclose(scg.exact.moments(bound), found, rtol=1e-12)


def heads(t, rng):
    return coin(t, scg.ScoreFunction(), rng) > 0


TWO = dist.Normal(2.0, 1.0)
# what is added on a branch is there on that branch only: with p the chance of heads, the mean is p times (offset +
# slope t)
CHOSEN = [
    (lambda t, rng: t * 2 + 1 if heads(t, rng) else 0 * t, 1.0, 2.0),
    (lambda t, rng: 0 * t + 1 + t if heads(t, rng) else 0 * t, 1.0, 1.0),
    (lambda t, rng: np.sum(np.stack([t * 2, 1.0])) if heads(t, rng) else 0 * t, 1.0, 2.0),
    (lambda t, rng: scg.sample(TWO, scg.ScoreFunction(), rng=rng) if heads(t, rng) else 0 * t, 2.0, 0.0),
    (lambda t, rng: t + scg.sample(TWO, scg.Reparameterized(), rng=rng) if heads(t, rng) else 0 * t, 2.0, 1.0),
    (lambda t, rng: 3.0 - t if heads(t, rng) else 0 * t, 3.0, -1.0),
]


@pytest.mark.parametrize("case", range(len(CHOSEN)))
def test_the_score_of_a_choice_multiplies_all_that_was_chosen(case):
    cost, offset, slope = CHOSEN[case]
    t, p = np.array(0.3), sigmoid(0.3)
    truth = p * (1 - p) * (offset + slope * t) + p * slope
    assert scg.exact.gradient(cost, t) == pytest.approx(truth, rel=1e-10)
    assert scg.exact.moments(cost, t).mean == pytest.approx(truth, rel=1e-10)
    each = [scg.grad(cost)(t, rng=rng) for rng in [np.random.default_rng(case)] for _ in range(500)]
    assert abs(np.mean(each) - truth) < 6 * np.std(each) / math.sqrt(500)


def test_ways_that_are_not_all_met_are_refused():
    def endless(t, rng):
        total = 0 * t
        while scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng) > 0:
            total = total + 1
        return total

    with pytest.raises(GuardError, match="ways through the `if`s on samples, of probability 0.99[0-9]* together"):
        scg.exact.expectation(endless, np.array(0.3))
    with pytest.raises(GuardError, match="give the function"):
        scg.exact.expectation(scg.trace(branching, np.array(0.3), rng=np.random.default_rng(0)).cost)


@pytest.mark.fast
def test_float32():
    def cost(t, rng):
        return np.sum(scg.sample(dist.Normal(t, np.float32(1)), scg.ScoreFunction(), rng=rng) ** 2)

    theta = np.array([0.5, 1], np.float32)
    found = scg.exact.gradient(cost, theta)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2 * theta, rtol=1e-5)
    both = scg.exact.moments(cost, theta)
    assert (
        both.mean.dtype
        == both.variance.dtype
        == scg.exact.expectation(cost, theta).dtype
        == scg.exact.hessian(cost, theta).dtype
        == np.float32
    )


# The distribution of a node


def test_distribution():
    graph = scg.trace(
        lambda t, rng: np.sum(coin(t, scg.ScoreFunction(), rng, shape=(5,))),
        np.array(0.4),
        rng=np.random.default_rng(0),
    )
    distribution = scg.exact.distribution(graph)
    np.testing.assert_array_equal(distribution.values, np.arange(6.0))
    np.testing.assert_allclose(
        distribution.probabilities, dist.Binomial(5, logits=0.4).prob(np.arange(6.0)), rtol=1e-12
    )
    joint = scg.exact.distribution(graph.stochastic["b"])
    assert joint.values.shape == (32, 5)
    assert np.sum(joint.probabilities) == pytest.approx(1)
    with pytest.raises(ScgValueError, match="cannot be listed.*x"):
        scg.exact.distribution(
            scg.trace(quadratic(scg.ScoreFunction(), 0.0), np.array([0.0, 1.0]), rng=np.random.default_rng(0))
        )


# Structures and refusals


@pytest.mark.fast
def test_results_have_the_structure_of_the_parameters():
    def cost(p, rng):
        return np.sum(coin(p["logits"], scg.ScoreFunction(), rng) * p["pay"][0])

    theta = {"logits": np.array([0.2, -1.0]), "pay": [np.array([1.0, 3.0])]}
    p = 1 / (1 + np.exp(-theta["logits"]))
    g, m, h = scg.exact.gradient(cost, theta), scg.exact.moments(cost, theta), scg.exact.hessian(cost, theta)
    np.testing.assert_allclose(g["pay"][0], p, rtol=1e-12)
    np.testing.assert_allclose(g["logits"], p * (1 - p) * theta["pay"][0], rtol=1e-12)
    np.testing.assert_allclose(m.variance["pay"][0], p * (1 - p), rtol=1e-12)
    np.testing.assert_allclose(h["logits"]["pay"][0], np.diag(p * (1 - p)), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(h["pay"][0]["pay"][0], 0, atol=1e-15)


@pytest.mark.fast
def test_without_chance():
    assert scg.exact.expectation(lambda t: np.sum(t**2), np.array([1.0, 2.0])) == 5
    np.testing.assert_array_equal(scg.exact.gradient(lambda t: np.sum(t**2), np.array([1.0, 2.0])), [2, 4])
    found = scg.exact.moments(lambda t: np.sum(t**2), np.array([1.0, 2.0]))
    np.testing.assert_array_equal(found.mean, [2, 4])
    np.testing.assert_array_equal(found.variance, [0, 0])


@pytest.mark.fast
def test_refusals():
    with pytest.raises(ScgTypeError, match="a graph, a node or a function"):
        scg.exact.expectation(3.0)
    with pytest.raises(EstimatorError, match="fixed support"):
        scg.exact.gradient(
            lambda t, rng: scg.sample(dist.Bernoulli(probs=t), scg.ScoreFunction(), rng=rng) * 2.0, np.array(0.0)
        )
    with pytest.raises(ScgValueError, match="exactly zero"):
        scg.exact.gradient(
            lambda t, rng: scg.sample(dist.Bernoulli(probs=t), scg.Enumerate(), rng=rng) * 2.0, np.array(0.0)
        )


@pytest.mark.parametrize("distribution", [dist.Poisson(30.0), dist.Geometric(0.05)])
def test_the_tail_is_stated(distribution):
    """What is left of an endless support enters the error: with few values it is seen, and more are taken."""
    found = scg.exact.expectation(
        lambda t, rng: scg.sample(distribution, scg.ScoreFunction(), rng=rng) * t, np.array(1.0), full=True
    )
    assert found.value == pytest.approx(float(distribution.mean), rel=1e-9)
    assert abs(found.value - float(distribution.mean)) <= 10 * found.error


def test_saboteurs(monkeypatch):
    """A wrong estimator, a lost covariance and a set that lacks an element are each seen by the checks above."""
    theta = np.array([0.3, -0.5])

    def cost(t, rng):
        b = coin(t, scg.ScoreFunction(), rng)
        return np.sum(b) ** 2 + np.sum(b * t)

    right = scg.exact.moments(cost, theta)
    with monkeypatch.context() as patch:
        patch.setattr(
            scg.exact.variances, "overlapping", lambda s, sets, n: np.stack([np.arange(len(sets))] * 2, axis=1)
        )
        assert np.any(np.abs(scg.exact.moments(cost, theta).variance - right.variance) > 1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(
            engine.Engine, "_sets", lambda self, reach, more: [frozenset(np.flatnonzero(r)[:1].tolist()) for r in reach]
        )
        assert np.any(np.abs(scg.exact.moments(cost, theta).mean - right.mean) > 1e-3)


def test_an_exact_variance_is_never_negative():
    def cost(t, rng):
        z = scg.sample(dist.OneHotCategorical(logits=t), scg.ScoreFunction(samples=2), rng=rng)
        return np.sum(z) * np.exp(-0.3 * t[0, 1] ** 2) + np.sum(t)

    rng = np.random.default_rng(0)
    for _ in range(20):
        assert np.all(scg.exact.moments(cost, rng.normal(size=(2, 3)), rng=rng).variance >= 0)


def test_draws_without_elements_have_exact_moments_too():
    def cost(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t[:1]), scg.ScoreFunction(), rng=rng)
        b = scg.sample(dist.Bernoulli(logits=t[1:]), scg.ScoreFunction(), rng=rng)
        return np.sum(a) + np.sum(b)

    p = 1 / (1 + np.exp(-0.3))
    found = scg.exact.moments(scg.trace(cost, np.array([0.3]), rng=np.random.default_rng(0)))
    np.testing.assert_allclose(found.mean, [p * (1 - p)], 1e-12)
    # E[(b (b - p))^2] - (E b (b - p))^2
    np.testing.assert_allclose(found.variance, [p * (1 - p) ** 2 - (p * (1 - p)) ** 2], 1e-12)


def test_elements_of_which_no_panel_is_left_are_passed_over():
    """Of three likely coins under REBAR one has no density left where the panels of another are cut."""
    (problem,) = [p for p in scg.testing.problems() if p.name == "coins, likely ones"]
    with pytest.raises(scg.errors.ScgError, match="budget"):
        scg.exact.moments(problem.graph(scg.REBAR), budget=2**17)
