"""Exact derivatives of samples that a map of bounded range makes, where values far out are rounded to an end of it."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import laplace, logistic, norm, t

import scg
from scg import distributions as dist
from scg.errors import EstimatorError
from tests.support.drawn import covering

MADE = {  # the distribution at a parameter; the map, the noise before it, and its scale, of which the parameter is loc
    "a relaxed coin": (lambda p: dist.RelaxedBernoulli(0.5, logits=p), lambda x: expit(2 * x), logistic, 1.0),
    "a cold one": (lambda p: dist.RelaxedBernoulli(0.25, logits=p), lambda x: expit(4 * x), logistic, 1.0),
    "a squashed normal": (lambda p: dist.Transformed(dist.Normal(p, 1.0), dist.Tanh()), np.tanh, norm, 1.0),
    "a wide one": (lambda p: dist.Transformed(dist.Normal(p, 3.0), dist.Tanh()), np.tanh, norm, 3.0),
    "a logit-normal": (lambda p: dist.LogitNormal(p, 4.0), expit, norm, 4.0),
    "tails": (lambda p: dist.Transformed(dist.StudentT(5.0, p, 1.0), dist.Sigmoid()), expit, t(5.0), 1.0),
    "a kink": (lambda p: dist.Transformed(dist.Laplace(p, 3.0), dist.Sigmoid()), expit, laplace, 3.0),
}


@pytest.mark.parametrize(("name", "estimator"), covering([*MADE], [scg.ScoreFunction(), scg.Reparameterized()]))
def test_derivatives_are_those_of_the_mean_over_what_is_mapped(name, estimator):
    """d/dp E[cos(f(p + s e))], by central differences of an adaptive quadrature over e."""
    made, f, noise, scale = MADE[name]
    point, h = 0.12, 0.02
    cost = lambda p, rng: np.cos(scg.sample(made(p), estimator, rng=rng))

    def mean(p):
        inner = lambda e: (np.cos(f(p + scale * e)) - np.cos(f(point + scale * e))) * noise.pdf(e)
        places = [-60, -8, -2, -p / scale, 2, 8, 60]
        return sum(quad(inner, a, b, epsabs=1e-13)[0] for a, b in zip(places[:-1], places[1:], strict=True))

    first = [(mean(point + k * h) - mean(point - k * h)) / (2 * k * h) for k in (1, 2)]
    second = [(mean(point + k * h) + mean(point - k * h)) / (k * h) ** 2 for k in (1, 2)]  # of a mean that is 0 there
    right = (4 * first[0] - first[1]) / 3, (4 * second[0] - second[1]) / 3
    assert scg.exact.gradient(cost, np.array(point)) == pytest.approx(right[0], rel=1e-5)
    assert scg.exact.hessian(cost, np.array(point)) == pytest.approx(right[1], rel=1e-3)


LOG_SLOPES = {  # log f'(x) of each map
    np.tanh: lambda x: 2 * (np.log(2) - np.logaddexp(0, 2 * x) + x),
    expit: lambda x: -np.logaddexp(0, x) - np.logaddexp(0, -x),
}


@pytest.mark.parametrize(
    ("name", "estimator"),
    covering(
        ["a squashed normal", "a wide one", "a logit-normal", "a kink"], [scg.ScoreFunction(), scg.Reparameterized()]
    ),
)
def test_an_entropy_in_the_cost_is_known_beyond_the_last_number(name, estimator):
    """E[cos(y) + log p(y) / 5] and its derivative, y = f(p + s e): log p(y) is log p(e) - log s - log f'(x)."""
    made, f, noise, scale = MADE[name]
    point, h = 0.12, 0.02

    def cost(p, rng):
        distribution = made(p)
        y = scg.sample(distribution, estimator, rng=rng)
        return np.cos(y) + 0.2 * distribution.log_prob(y)

    def mean(p):
        def inner(e):
            x = p + scale * e
            return (np.cos(f(x)) + 0.2 * (noise.logpdf(e) - np.log(scale) - LOG_SLOPES[f](x))) * noise.pdf(e)

        places = [-60, -8, -2, -p / scale, 2, 8, 60]
        return sum(quad(inner, a, b, epsabs=1e-13)[0] for a, b in zip(places[:-1], places[1:], strict=True))

    first = [(mean(point + k * h) - mean(point - k * h)) / (2 * k * h) for k in (1, 2)]
    rng = np.random.default_rng(0)
    assert scg.exact.expectation(cost, np.array(point), rng=rng) == pytest.approx(mean(point), rel=1e-9)
    assert scg.exact.gradient(cost, np.array(point), rng=rng) == pytest.approx((4 * first[0] - first[1]) / 3, rel=1e-5)
    single = scg.exact.expectation(cost, np.float32(point), rng=rng, full=True)
    assert single.value.dtype == np.float32 and single.value == pytest.approx(mean(point), rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_a_verdict_on_a_policy_with_an_entropy(scale):
    """The score function of a squashed normal, by exact moments: its mean is the gradient."""

    def cost(p, rng):
        distribution = dist.Transformed(dist.Normal(p[0], p[1]), dist.Tanh())
        y = scg.sample(distribution, scg.ScoreFunction(), rng=rng)
        return np.cos(y) + 0.2 * distribution.log_prob(y)

    graph = scg.trace(cost, np.array([0.1, scale]), rng=np.random.default_rng(0))
    assert scg.exact.moments(graph).mean == pytest.approx(scg.exact.gradient(graph), rel=1e-7, abs=1e-12)
    assert scg.testing.judge(graph, rng=np.random.default_rng(1)).status == "unbiased"


def test_moments_of_a_squashed_normal_by_its_score():
    """Var[cos(tanh x) (x - p)] for x ~ N(p, 1), over which Gauss's rule is exact enough."""
    x, w = np.polynomial.hermite_e.hermegauss(150)
    g = np.cos(np.tanh(0.12 + x)) * x
    mean, square = (w @ g**k / w.sum() for k in (1, 2))
    made = MADE["a squashed normal"][0]
    cost = lambda p, rng: np.cos(scg.sample(made(p), scg.ScoreFunction(), rng=rng))
    found = scg.exact.moments(cost, np.array(0.12))
    assert found.mean == pytest.approx(mean, rel=1e-6)
    assert found.variance == pytest.approx(square - mean**2, rel=1e-6)


def test_a_sample_whose_distribution_no_parameter_moves_needs_no_density():
    cost = lambda t, rng: t * (scg.sample(dist.RelaxedBernoulli(0.5, logits=0.0), scg.ScoreFunction(), rng=rng) > 0.5)
    assert scg.exact.gradient(cost, np.array(0.3)) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("a, b", [(0.51, 0.37), (2.0, 0.5), (0.6, 0.7), (0.3, 0.1)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_slopes_of_a_beta_that_crowds_at_its_end_are_right(a, b, dtype):
    """d E tanh(z) / d (a, b): (1 - z)^(b - 1) has the part eps^b of its mass within one rounding of 1, and its score
    log(1 - z) is not that of the number that z was rounded to. By quadrature with z = w^(1/a), 1 - z = w^(1/b)."""

    def mean(a, b):
        half = mpmath.mpf(1) / 2
        left = mpmath.quad(lambda w: mpmath.tanh(w ** (1 / a)) * (1 - w ** (1 / a)) ** (b - 1), [0, half**a]) / a
        right = mpmath.quad(lambda w: mpmath.tanh(1 - w ** (1 / b)) * (1 - w ** (1 / b)) ** (a - 1), [0, half**b]) / b
        return (left + right) / mpmath.beta(a, b)

    with mpmath.workdps(40):
        h, x, y = mpmath.mpf(10) ** -12, mpmath.mpf(a), mpmath.mpf(b)
        truth = [(mean(x + h, y) - mean(x - h, y)) / (2 * h), (mean(x, y + h) - mean(x, y - h)) / (2 * h)]
        truth = [float(t) for t in truth]
    crowded = b < 0.2 or dtype is np.float32 and b < 0.4  # a score is refused there
    for estimator in (scg.Reparameterized(), *[scg.ScoreFunction()] * (not crowded)):
        found = scg.exact.gradient(
            lambda p, rng, e=estimator: np.tanh(scg.sample(dist.Beta(p[0], p[1]), e, rng=rng)),
            np.array([a, b], dtype),
            full=True,
        )
        np.testing.assert_allclose(found.value, truth, rtol=1e-9 if dtype is np.float64 else 1e-4)
        assert np.all(np.abs(found.value - truth) <= 10 * found.error + 1e-9 + 1e-4 * (dtype is np.float32))


@pytest.mark.parametrize("dtype, least", [(np.float64, 0.2), (np.float32, 0.4)])
def test_a_score_is_refused_where_many_samples_of_a_beta_are_rounded_to_one(dtype, least):
    """With b = 0.05 the mean of the score is 1.18 for -1.09: a sixth of the samples is the last number before 1."""

    def cost(b, rng, estimator):
        return np.tanh(scg.sample(dist.Beta(0.5, b), estimator, rng=rng, name="z"))

    def gradients(b, estimator):
        graph = scg.trace(cost, np.array(b, dtype), np.random.default_rng(0), estimator)
        return graph.gradients(rng=np.random.default_rng(1), replicates=40_000).astype(float)

    with pytest.raises(EstimatorError, match=r"rounded to it; use Reparameterized\(\)"):
        gradients(0.05, scg.ScoreFunction())
    for b, estimator in ((least, scg.ScoreFunction()), (0.05, scg.Reparameterized())):
        truth = scg.exact.gradient(lambda b, rng: cost(b, rng, scg.Reparameterized()), np.array(b))
        found = gradients(b, estimator)
        assert abs(found.mean() - truth) < 5 * found.std() / 200 + 2e-3
    fixed = scg.sample(dist.Beta(0.5, dtype(0.05)), scg.ScoreFunction(), rng=np.random.default_rng(0))
    assert fixed.value < 1  # nothing is differentiated


@pytest.mark.parametrize("law", ["Kumaraswamy", "Dirichlet"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_score_is_refused_where_many_samples_are_rounded_to_an_end(law, dtype):
    """(a eps)^b of a Kumaraswamy lies within one rounding of 1; tiny^a of the elements of a Dirichlet below every
    number. Where few do, the score has the mean of the path."""
    single = dtype is np.float32
    many, few = (0.05, 0.4 if single else 0.2) if law == "Kumaraswamy" else (0.02 if single else 0.004, 0.15)
    made = {
        "Kumaraswamy": lambda p: dist.Kumaraswamy(0.5, p),
        "Dirichlet": lambda p: dist.Dirichlet(p + np.zeros(3, dtype)),
    }

    def gradients(at, estimator, seed):
        def cost(p, rng):
            return np.sum(np.tanh(scg.sample(made[law](p), estimator, rng=rng, name="z")) ** 2)

        graph = scg.trace(cost, np.array(at, dtype), rng=np.random.default_rng(0))
        return graph.gradients(rng=np.random.default_rng(seed), replicates=40_000).astype(float)

    with pytest.raises(EstimatorError, match=r"rounded to it; use Reparameterized\(\)"):
        gradients(many, scg.ScoreFunction(), 1)
    score, path = gradients(few, scg.ScoreFunction(), 1), gradients(few, scg.Reparameterized(), 2)
    assert abs(score.mean() - path.mean()) < 5 * np.hypot(score.std(), path.std()) / 200
    assert np.all(np.isfinite(gradients(many, scg.Reparameterized(), 2)))
