"""Continuous distributions: against SciPy, quadrature and their own draws; divergences, transports, distributions made
of distributions, refusals."""

import functools
import itertools
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.stats as st

import scg
from scg import distributions as dist
from scg.distributions.constraints import positive
from scg.distributions.implicit import quantile
from scg.distributions.uniform import noise_of, transported
from scg.errors import EstimatorError, ScgTypeError, ScgValueError
from scg.testing import check_distribution, check_gradient
from tests.support.drawn import covering

A = np.array
L = A([[1.0, 0, 0], [0.3, 0.7, 0], [-0.4, 0.2, 2.0]])
W, D, M = A([[1.0, 0.2], [0.3, -0.5], [0.1, 0.9]]), A([0.5, 1.0, 2.0]), A([1.0, 2.0, 3.0])


def normal_of(distribution):
    return SimpleNamespace(logpdf=distribution.logpdf)


def dirichlet(a):
    distribution = st.dirichlet(a)
    return SimpleNamespace(
        logpdf=lambda x: distribution.logpdf(x.T),
        mean=distribution.mean,
        var=distribution.var,
        entropy=distribution.entropy,
    )


DISTRIBUTIONS = [
    (dist.Normal(A([0.3, -2.0]), 1.7), st.norm([0.3, -2], 1.7)),
    (dist.Laplace(A([0.3, -2.0]), 1.7), st.laplace([0.3, -2], 1.7)),
    (dist.Logistic(0.3, A([0.2, 5.0])), st.logistic(0.3, [0.2, 5])),
    (dist.Gumbel(0.3, A([0.2, 5.0])), st.gumbel_r(0.3, [0.2, 5])),
    (dist.Cauchy(0.3, A([0.2, 5.0])), st.cauchy(0.3, [0.2, 5])),
    (dist.StudentT(A([1.5, 4.5]), 0.3, 0.7), st.t([1.5, 4.5], 0.3, 0.7)),
    (dist.LogNormal(0.3, A([0.2, 1.1])), st.lognorm([0.2, 1.1], scale=np.exp(0.3))),
    (dist.LogitNormal(A([0.3, 1.0]), 0.7), None),
    (dist.HalfNormal(A([0.3, 2.0])), st.halfnorm(scale=[0.3, 2])),
    (dist.Exponential(A([0.3, 2.0])), st.expon(scale=1 / A([0.3, 2]))),
    (dist.Gompertz(A([0.3, 2.0]), 1.5), st.gompertz([0.3, 2], scale=1 / 1.5)),
    (dist.Erlang(3, A([0.3, 2.0])), st.erlang(3, scale=1 / A([0.3, 2]))),
    (dist.Weibull(1.4, A([0.7, 2.0])), st.weibull_min([0.7, 2], scale=1.4)),
    (dist.Pareto(1.4, A([0.7, 2.5])), st.pareto([0.7, 2.5], scale=1.4)),
    (dist.Gamma(A([0.7, 5.0]), 2.0), st.gamma([0.7, 5], scale=0.5)),
    (dist.Chi2(A([0.7, 5.0])), st.chi2([0.7, 5])),
    (dist.InverseGamma(A([0.7, 5.0]), 2.0), st.invgamma([0.7, 5], scale=2)),
    (dist.Uniform(A([-1.0, 0.0]), 2.0), st.uniform([-1, 0], [3, 2])),
    (dist.Beta(A([0.7, 5.0]), 2.0), st.beta([0.7, 5], 2)),
    (dist.Kumaraswamy(A([0.7, 5.0]), 2.0), None),
    (
        dist.TruncatedNormal(0.3, A([0.7, 5.0]), -1.0, 2.0),
        st.truncnorm(-1.3 / A([0.7, 5]), 1.7 / A([0.7, 5]), 0.3, [0.7, 5]),
    ),
    (
        dist.TruncatedNormal(0.3, 0.7, A([4.0, -6.0]), A([5.0, -3.0])),
        st.truncnorm(A([3.7, -6.3]) / 0.7, A([4.7, -3.3]) / 0.7, 0.3, 0.7),
    ),
    (dist.VonMises(0.3, A([0.7, 5.0])), st.vonmises([0.7, 5], 0.3)),
    (dist.Dirichlet(A([0.7, 5.0, 2.0])), dirichlet([0.7, 5, 2])),
    (dist.MultivariateNormal(M, L), normal_of(st.multivariate_normal(M, L @ L.T))),
    (dist.MultivariateNormal(M, cov_factor=W, cov_diag=D), normal_of(st.multivariate_normal(M, W @ W.T + np.diag(D)))),
    (dist.Independent(dist.Gamma(A([0.7, 5.0, 2.0]), 1.0), 1), None),
    (dist.Transformed(dist.Normal(A([0.3, 1.0]), 0.7), dist.Softplus()), None),
    (dist.Transformed(dist.Exponential(A([0.3, 1.0])), dist.Affine(1.0, -2.0)), None),
    (
        dist.Transformed(dist.Independent(dist.Normal(np.zeros(3), 1.0), 1), dist.TrilAffine(M, L)),
        normal_of(st.multivariate_normal(M, L @ L.T)),
    ),
    (dist.Mixture(dist.Normal(A([-1.0, 0, 2]), A([0.5, 1, 0.3])), weights=A([0.2, 0.5, 0.3])), None),
    (dist.Mixture(dist.Gamma(A([[1.0, 3.0], [2, 9]]), 2.0), logits=A([0.2, 0.5])), None),
    (dist.Mixture(dist.Independent(dist.Normal(A([[-1.0, 0], [1, 2]]), 0.5), 1), logits=A([0.2, 0.5])), None),
]


@pytest.mark.parametrize(
    "distribution, reference",
    DISTRIBUTIONS,
    ids=[f"{i}-{type(distribution).__name__}" for i, (distribution, _) in enumerate(DISTRIBUTIONS)],
)
def test_every_distribution_is_what_it_says(distribution, reference):
    # its CDF is a quadrature: fewer points, and second derivatives of log_prob only
    if isinstance(distribution, dist.VonMises):
        check_distribution(distribution, rng=np.random.default_rng(1), reference=reference, points=2000, order=1)
        check_gradient(
            lambda loc, k, z: dist.VonMises(loc, k).log_prob(z), A(0.3), distribution.concentration, A([-2.0, 3.0])
        )
    else:
        check_distribution(distribution, rng=np.random.default_rng(1), reference=reference)


@pytest.mark.parametrize(
    "distribution, log_p",
    [
        (dist.Gamma(0.6, 1.7), lambda z: mpmath.log(1.7) * 0.6 - 1.7 * z - 0.4 * mpmath.log(z) - mpmath.loggamma(0.6)),
        (
            dist.Beta(0.6, 30.0),
            lambda z: -0.4 * mpmath.log(z) + 29 * mpmath.log1p(-z) - mpmath.log(mpmath.beta(0.6, 30)),
        ),
        (
            dist.StudentT(4.5),
            lambda z: -2.75 * mpmath.log1p(z * z / 4.5) - mpmath.log(4.5) / 2 - mpmath.log(mpmath.beta(0.5, 2.25)),
        ),
        (dist.Kumaraswamy(2.0, 3.0), lambda z: mpmath.log(6 * z * (1 - z * z) ** 2)),
        (
            dist.TruncatedNormal(0.0, 1.0, 20.0, 30.0),
            lambda z: (
                mpmath.log(mpmath.npdf(z))
                - mpmath.log(mpmath.erfc(20 / mpmath.sqrt(2)) / 2 - mpmath.erfc(30 / mpmath.sqrt(2)) / 2)
            ),
        ),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, dist.Distribution) else "",
)
def test_tails_agree_with_forty_digits(distribution, log_p):
    u = np.concatenate([np.geomspace(1e-12, 0.4, 20), 1 - np.geomspace(1e-12, 0.4, 20)])
    z = distribution.icdf(u)
    with mpmath.workdps(40):
        expected = A([float(log_p(mpmath.mpf(float(x)))) for x in z])
    assert (np.abs(distribution.log_prob(z) - expected) <= 1e-10 * np.maximum(np.abs(expected), 1e-4)).all()


def _log_b(a, b):
    return mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)


def _kumaraswamy(a, b):
    first, second = (b * mpmath.exp(_log_b(1 + k / a, b)) for k in (1, 2))
    return second - first**2


def _student(v):
    return (
        (v + 1) / 2 * (mpmath.digamma((v + 1) / 2) - mpmath.digamma(v / 2))
        + mpmath.log(v) / 2
        + _log_b(mpmath.mpf(0.5), v / 2)
    )


def _vonmises(k):
    return mpmath.log(2 * mpmath.pi * mpmath.besseli(0, k)) - k * mpmath.besseli(1, k) / mpmath.besseli(0, k)


def _gamma_divergence(a, b, c, d):
    moved = (a - c) * mpmath.digamma(a) - mpmath.loggamma(a) + mpmath.loggamma(c)
    return moved + c * mpmath.log(b / d) + a * (d / b - 1)


def _beta_divergence(a, b, c, d):
    moved = (a - c) * mpmath.digamma(a) + (b - d) * mpmath.digamma(b) - (a - c + b - d) * mpmath.digamma(a + b)
    return _log_b(c, d) - _log_b(a, b) + moved


def _beta_entropy(a, b):
    return (
        _log_b(a, b) - (a - 1) * mpmath.digamma(a) - (b - 1) * mpmath.digamma(b) + (a + b - 2) * mpmath.digamma(a + b)
    )


def _vonmises_divergence(k, m):
    mean = mpmath.besseli(1, k) / mpmath.besseli(0, k)
    return mpmath.log(mpmath.besseli(0, m) / mpmath.besseli(0, k)) + (k - m) * mean


MOMENTS = [  # name, moment, the same in mpmath, parameters; in double the greatest term of what is summed
    ("t", lambda v: dist.StudentT(v).entropy(), _student, [(2.5,), (99,), (101,), (1e4,), (1e10,), (1e14,)], 400),
    (
        "Kumaraswamy mean",
        lambda a, b: dist.Kumaraswamy(a, b).mean,
        lambda a, b: b * mpmath.exp(_log_b(1 + 1 / a, b)),
        [(1e3, 1e3), (1e6, 2)],
        1e4,
    ),
    (
        "Kumaraswamy",
        lambda a, b: dist.Kumaraswamy(a, b).variance,
        _kumaraswamy,
        [(0.1, 200), (0.7, 3), (99, 0.5), (101, 25), (1e3, 1e3), (1e6, 2)],
        2e4,
    ),
    ("Kumaraswamy of many", lambda a, b: dist.Kumaraswamy(a, b).variance, _kumaraswamy, [(50, 1e6)], 2e7),
    (
        "Weibull",
        lambda s, k: dist.Weibull(s, k).variance,
        lambda s, k: s**2 * (mpmath.gamma(1 + 2 / k) - mpmath.gamma(1 + 1 / k) ** 2),
        [(2, 0.1), (2, 99), (2, 101), (2, 1e3), (1e-5, 1e6)],
        1e4,
    ),
    (
        "Gompertz",
        lambda k: dist.Gompertz(k, 1.0).mean,
        lambda k: mpmath.exp(k) * mpmath.expint(1, k),
        [(0.3,), (50,), (299,), (300,), (301,), (1e5,)],
        500,
    ),
    ("von Mises", lambda k: dist.VonMises(0.0, k).entropy(), _vonmises, [(0.1,), (299,), (301,), (1e4,), (1e6,)], 500),
    (
        "von Mises mean",
        lambda k: dist.VonMises(0.0, k).circular_variance,
        lambda k: 1 - mpmath.besseli(1, k) / mpmath.besseli(0, k),
        [(301,), (1e6,)],
        500,
    ),
    (
        "von Mises KL",
        lambda k, m: dist.kl_divergence(dist.VonMises(0.0, k), dist.VonMises(0.0, m)),
        _vonmises_divergence,
        [(1e4, 1.01e4)],
        1e6,
    ),
    (
        "Gamma",
        lambda a, b: dist.Gamma(a, b).entropy(),
        lambda a, b: a - mpmath.log(b) + mpmath.loggamma(a) + (1 - a) * mpmath.digamma(a),
        [(0.3, 2), (1e6, 1e3)],
        1e8,
    ),
    (
        "inverse Gamma",
        lambda a, b: dist.InverseGamma(a, b).entropy(),
        lambda a, b: a + mpmath.log(b) + mpmath.loggamma(a) - (1 + a) * mpmath.digamma(a),
        [(0.3, 2), (1e6, 1e3)],
        1e8,
    ),
    (
        "Gamma KL",
        lambda a, b, c, d: dist.kl_divergence(dist.Gamma(a, b), dist.Gamma(c, d)),
        _gamma_divergence,
        [(1e4, 1, 1e4 + 1, 1), (3, 2, 5, 1)],
        1e10,
    ),
    ("Beta", lambda a, b: dist.Beta(a, b).entropy(), _beta_entropy, [(0.3, 2), (1e5, 1e5)], 1e7),
    (
        "Beta KL",
        lambda a, b, c, d: dist.kl_divergence(dist.Beta(a, b), dist.Beta(c, d)),
        _beta_divergence,
        [(1e6, 1e6, 1e6, 1e6 + 100), (3, 2, 5, 1)],
        1e10,
    ),
    (
        "Dirichlet",
        lambda a, b: dist.Dirichlet(np.stack([a, b], -1)).entropy(),
        _beta_entropy,
        [(0.3, 2), (1e5, 1e5)],
        1e7,
    ),
    (
        "Dirichlet KL",
        lambda a, b, c, d: dist.kl_divergence(
            dist.Dirichlet(np.stack([a, b], -1)), dist.Dirichlet(np.stack([c, d], -1))
        ),
        _beta_divergence,
        [(1e6, 1e6, 1e6, 1e6 + 100), (3, 2, 5, 1)],
        1e10,
    ),
    (
        "Dirichlet variance",
        lambda a, b: dist.Dirichlet(np.stack([a, b], -1)).variance[..., 0],
        lambda a, b: a * b / ((a + b) ** 2 * (a + b + 1)),
        [(1e7, 0.01), (0.01, 1e7), (2, 2)],
        4,
    ),
]


@pytest.mark.parametrize("moment, reference, rows, condition", [m[1:] for m in MOMENTS], ids=[m[0] for m in MOMENTS])
def test_moments_and_their_derivatives_keep_their_digits(moment, reference, rows, condition):
    """Against 60 digits. In double the error of what is summed is ``condition`` eps of the result at the worst of these
    parameters; in float32 what is computed in double is rounded, here and there after one product."""
    for dtype, allowed in (
        (float, condition * np.finfo(float).eps),
        (np.float32, 4 * np.finfo(np.float32).eps + condition * np.finfo(float).eps),
    ):
        columns = list(A(rows, dtype).T)
        with mpmath.workdps(60):
            exact = [[mpmath.mpf(float(v)) for v in row] for row in zip(*columns, strict=True)]
            expected = A([float(reference(*row)) for row in exact])
            slopes = [
                [
                    float(mpmath.diff(reference, tuple(row), tuple(int(i == k) for i in range(len(row)))))
                    for row in exact
                ]
                for k in range(len(columns))
            ]
        found = moment(*columns)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=allowed)
        for k, by_k in enumerate(slopes):
            slope = scg.grad(lambda *p: np.sum(moment(*p)), k)(*columns)
            assert slope.dtype == dtype
            np.testing.assert_allclose(slope, by_k, rtol=4 * allowed if dtype is np.float32 else 1e-6)


def pairs():
    mixed = dist.Independent(dist.Normal(A([0.3, 1.0]), 0.5), 1)
    return [
        (dist.Normal(0.3, 0.7), dist.Normal(1.0, 2.0)),
        (dist.Laplace(0.3, 0.7), dist.Laplace(1.0, 2.0)),
        (dist.Gumbel(0.3, 0.7), dist.Gumbel(1.0, 2.0)),
        (dist.Cauchy(0.3, 0.7), dist.Cauchy(1.0, 2.0)),
        (dist.LogNormal(0.3, 0.7), dist.LogNormal(1.0, 2.0)),
        (dist.LogitNormal(0.3, 0.7), dist.LogitNormal(1.0, 2.0)),
        (dist.HalfNormal(0.7), dist.HalfNormal(2.0)),
        (dist.Exponential(0.7), dist.Exponential(2.0)),
        (dist.Exponential(0.7), dist.Gamma(2.0, 3.0)),
        (dist.Gamma(0.7, 2.0), dist.Gamma(2.0, 3.0)),
        (dist.Gamma(0.7, 2.0), dist.Exponential(3.0)),
        (dist.Chi2(3.0), dist.Exponential(0.4)),
        (dist.Exponential(0.7), dist.Chi2(3.0)),
        *((p, dist.Normal(0.4, 1.3)) for p in (dist.Laplace(0.3, 0.7), dist.Uniform(-1.0, 2.0), dist.Gamma(1.7, 2.0))),
        *((p, dist.Normal(0.4, 1.3)) for p in (dist.VonMises(0.3, 1.7), dist.TruncatedNormal(0.0, 1.0, -1.0, 3.0))),
        (dist.Erlang(2, 2.0), dist.Gamma(2.5, 3.0)),
        (dist.Chi2(3.0), dist.Chi2(5.0)),
        (dist.InverseGamma(3.7, 2.0), dist.InverseGamma(2.0, 3.0)),
        (dist.Weibull(1.4, 1.7), dist.Weibull(2.0, 0.9)),
        (dist.Pareto(1.4, 1.7), dist.Pareto(1.0, 0.9)),
        (dist.Uniform(0.2, 0.7), dist.Uniform(0.0, 2.0)),
        (dist.Beta(1.4, 1.7), dist.Beta(2.0, 0.9)),
        (dist.VonMises(0.3, 1.7), dist.VonMises(1.0, 0.9)),
        (dist.Transformed(dist.Normal(0.3, 0.7), dist.Tanh()), dist.Transformed(dist.Normal(0.0, 1.0), dist.Tanh())),
        (dist.Dirichlet(A([1.4, 1.7, 3.0])), dist.Dirichlet(A([2.0, 0.9, 1.0]))),
        (dist.MultivariateNormal(M, L), dist.MultivariateNormal(0 * M, cov_factor=W, cov_diag=D)),
        (dist.MultivariateNormal(M, cov_factor=W, cov_diag=D), dist.MultivariateNormal(0 * M, L)),
        (mixed, dist.Independent(dist.Normal(0.0, A([1.0, 2.0])), 1)),
        (dist.Independent(dist.Gumbel(A([0.3, 1.0]), 0.7)), dist.Independent(dist.Normal(0.0, A([1.0, 2.0])))),
        (mixed, dist.Flat((2,))),
        (dist.Gamma(0.7, 2.0), dist.Flat()),
    ]


@pytest.mark.parametrize("p, q", pairs(), ids=[f"{type(p).__name__}-{type(q).__name__}" for p, q in pairs()])
def test_divergence_is_the_mean_log_ratio(p, q):
    """Against the mean over equidistant quantiles for numbers; else over draws, within six standard errors."""
    found = dist.kl_divergence(p, q)
    if p.event_shape:
        z = p.sample(np.random.default_rng(0), 40_000)
        ratio = p.log_prob(z) - q.log_prob(z)
        allowed = 6 * ratio.std() / 200
    else:
        z = (
            p.icdf((np.arange(4000) + 0.5) / 4000)
            if not isinstance(p, dist.VonMises)
            else p.icdf((np.arange(400) + 0.5) / 400)
        )
        ratio = p.log_prob(z) - q.log_prob(z)
        allowed = 0.004 * (1 + np.abs(found))
    assert np.abs(np.mean(ratio) - found) <= allowed and np.shape(found) == ()


def test_divergence_is_infinite_where_the_support_is_left_and_unknown_where_it_is():
    assert dist.kl_divergence(dist.Uniform(0.0, 3.0), dist.Uniform(0.0, 2.0)) == np.inf
    assert dist.kl_divergence(dist.Pareto(1.0, 2.0), dist.Pareto(1.5, 2.0)) == np.inf
    for heavy in (dist.Cauchy(0.0, 1.0), dist.StudentT(0.7), dist.StudentT(1.7), dist.Pareto(1.0, 1.5)):
        assert dist.kl_divergence(heavy, dist.Normal(0.0, 1.0)) == np.inf
    for p, q in (
        (dist.Normal(0.0, 1.0), dist.StudentT(3.0)),
        (dist.LogitNormal(0.0, 1.0), dist.Normal(0.0, 1.0)),
        (dist.Poisson(2.0), dist.Normal(0.0, 1.0)),
    ):
        with pytest.raises(scg.ScgError, match="no closed form for KL"):
            dist.kl_divergence(p, q)


def test_delta_and_flat():
    point = dist.Delta(A([1.0, 2.0]))
    assert dist.kl_divergence(point, dist.Normal(0.0, 1.0)) == pytest.approx(-st.norm.logpdf([1, 2]))
    np.testing.assert_array_equal(point.log_prob(A([1.0, 1.0])), [0, -np.inf])
    np.testing.assert_array_equal(point.sample(np.random.default_rng(0), 3), [[1, 2]] * 3)
    assert np.isnan(point.log_prob(A([np.nan, 2.0]))).tolist() == [True, False]
    (slope,) = scg.core.backward.pull([dist.Delta(t := scg.parameter(3.0)).transport(A([0.1, 0.9]))], [np.ones(2)], [t])
    assert slope == 2
    assert dist.Flat((2,)).log_prob(np.ones((3, 2))).tolist() == [0, 0, 0]
    with pytest.raises(scg.ScgError, match="improper"):
        dist.Flat().sample(np.random.default_rng(0))


@pytest.mark.parametrize(
    "make", [dist.Gamma, dist.Beta, dist.LogNormal, dist.LogitNormal, dist.Weibull, dist.Pareto, dist.Uniform]
)
def test_outside_the_support_the_gradient_is_zero(make):
    parameters = [scg.parameter(0.5), scg.parameter(0.8)]
    z = scg.parameter(A([-3.0, -0.5]))
    distribution = make(*parameters)
    found = distribution.log_prob(z)
    assert (found.value == -np.inf).all()
    for g in scg.core.backward.pull([found], [np.ones(2)], [z, *parameters]):
        assert (g == 0).all()


@dataclass(frozen=True, eq=False, repr=False)
class Triangular(dist.Distribution, dist.FixedSupport):
    """A user's own distribution: p(z) = a z^(a-1) on (0, 1), by ``cdf`` reparameterized for free."""

    a: Any
    constraints = {"a": positive}

    def sample(self, rng, shape=()):
        return rng.random(self.full_shape(shape)) ** (1 / self.detached().a)

    def log_prob(self, value):
        return np.log(self.a) + (self.a - 1) * np.log(value)

    def cdf(self, value):
        return np.clip(value, 0, None) ** self.a


def test_equal_probabilities_are_inverted_once():
    """Those of a quadrature rule come again and again, of which a von Mises quantile takes a dozen integrals each."""
    u = np.random.default_rng(0).random(30)
    asked = []

    @dataclass(frozen=True, eq=False, repr=False)
    class Counted(Triangular):
        def cdf(self, value):
            asked.append(np.size(value))
            return super().cdf(value)

    for concentration in (2.5, np.array([[2.5]])):
        asked.clear()
        once = quantile(Counted(concentration), u)
        few = sum(asked)
        often = quantile(Counted(concentration), np.tile(u, (50, 1)))
        assert sum(asked) == 2 * few
        np.testing.assert_array_equal(often, np.broadcast_to(once, (50, 30)))


def test_a_users_distribution_with_a_cdf_is_reparameterized():
    """z = u^(1/a): first and second derivative against that, and E[z^2] = a / (a + 2)."""
    u, a = A([0.1, 0.4, 0.9]), A([0.7, 2.0, 5.0])
    check_gradient(lambda u, a: quantile(Triangular(a), u), u, a, order=2)
    np.testing.assert_allclose(quantile(Triangular(a), u), u ** (1 / a), rtol=1e-12)

    def cost(a, rng):
        return np.sum(scg.sample(Triangular(a), scg.Reparameterized(), rng=rng, name="z") ** 2)

    graph = scg.trace(cost, a, rng=np.random.default_rng(0))
    found = graph.gradients(rng=np.random.default_rng(1), replicates=3000)
    assert (np.abs(found.mean(0) - 2 / (a + 2) ** 2) < 6 * found.std(0) / 3000**0.5).all()


@pytest.mark.parametrize(
    "distribution",
    [distribution for distribution, _ in DISTRIBUTIONS if distribution.has(dist.Reparameterizable)],
    ids=lambda distribution: type(distribution).__name__,
)
def test_a_batched_transport_is_that_of_each_replicate_alone(distribution):
    """Law 5: with a replicate axis on noise and on parameters, replicate r is the single run with the same noise."""
    name, p = next((name, p) for name, p in distribution.parameters.items() if type(p) is not float)
    noise, shape = noise_of(distribution, (2,))
    e = noise.sample(np.random.default_rng(0), (4, *shape))
    many = np.stack([p] * 4) * (
        1 if name in ("weights", "scale_tril") else A([1.0, 1.01, 1.02, 1.03]).reshape(-1, *[1] * p.ndim)
    )
    node, leaf = scg.parameter(p), scg.parameter(e[0])
    z = transported(distribution.replaced(**{name: node}), leaf)
    batched = scg.replay(z, {node: many, leaf: e}, batched=[node, leaf])
    for r in range(4):
        np.testing.assert_array_equal(
            batched[r], np.asarray(transported(distribution.replaced(**{name: many[r]}), e[r]))
        )


def test_independent_distribution_is_drawn_and_scored_as_one_event():
    """E of a squared norm: gradient 2 t by either estimator, with as many replicates as six standard errors can tell
    from wrong ones."""
    t = A([0.5, -1.0, 2.0])

    def cost(t, rng):
        z = scg.sample(dist.Independent(dist.Normal(t, 0.5), 1), scg.ScoreFunction(), rng=rng, shape=2, name="z")
        return np.mean(np.sum(z**2, axis=-1))

    graph = scg.trace(cost, t, rng=np.random.default_rng(0))
    for bound in (graph, graph.bind(z=scg.Reparameterized())):
        found = bound.gradients(rng=np.random.default_rng(1), replicates=4000)
        assert (np.abs(found.mean(0) - 2 * t) < 6 * found.std(0) / 4000**0.5).all()
    distribution = dist.Independent(dist.Bernoulli(probs=A([0.2, 0.5, 0.7])), 1)
    assert len(distribution.atoms()) == 8 and np.exp(
        distribution.log_prob(distribution.atoms())
    ).sum() == pytest.approx(1)
    assert distribution.has(dist.FiniteSupport) and not distribution.has(dist.Reparameterizable)


def test_mixture_gradients_agree_between_estimators():
    t = A([0.1, 0.2, 0.3])

    def cost(t, rng):
        distribution = dist.Mixture(dist.Normal(t * A([1.0, 2, 3]), np.exp(t[0])), logits=t)
        return np.mean(scg.sample(distribution, scg.Reparameterized(), rng=rng, name="z") ** 2)

    graph = scg.trace(cost, t, rng=np.random.default_rng(0))
    one = graph.gradients(rng=np.random.default_rng(1), replicates=4000)
    two = graph.bind(z=scg.ScoreFunction()).gradients(rng=np.random.default_rng(2), replicates=4000)
    assert (np.abs(one.mean(0) - two.mean(0)) < 6 * np.sqrt((one.var(0) + two.var(0)) / 4000)).all()


MAPS = [dist.Exp(), dist.Sigmoid(), dist.Tanh(), dist.Softplus(), dist.Affine(1.0, -3.0), dist.Power(2.5)]


@pytest.mark.parametrize("bijection", MAPS, ids=str)
def test_log_determinant_is_that_of_the_derivative(bijection):
    x = A([0.1, 0.5, 2.0])
    node = scg.parameter(x)
    (slope,) = scg.core.backward.pull([bijection.forward(node)], [np.ones(3)], [node])
    np.testing.assert_allclose(np.log(np.abs(slope)), bijection.log_det(x) + 0 * x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bijection.inverse(bijection.forward(x)), x, rtol=1e-12)
    assert ((bijection.forward(x) > bijection.low) & (bijection.forward(x) < bijection.high)).all()


REFUSED = [
    (lambda: dist.Normal(0.0, -1.0), "scale must be positive"),
    (lambda: dist.Normal(np.zeros(3), np.ones(4)), r"loc \(3,\), scale \(4,\) do not broadcast"),
    (lambda: dist.Beta(A([1.0, np.nan]), 1.0), r"concentration1 must be positive and finite, got nan at index \(1,\)"),
    (lambda: dist.Uniform(1.0, 0.0), "high must be greater than low"),
    (lambda: dist.TruncatedNormal(0.0, 1.0, 2.0, 1.0), "high must be greater than low"),
    (lambda: dist.Erlang(1.5, 2.0), "n must be a positive integer"),
    (lambda: dist.MultivariateNormal(M, -L), "scale_tril must be lower triangular with a positive diagonal"),
    (lambda: dist.MultivariateNormal(M), "scale_tril, or cov_factor and cov_diag"),
    (lambda: dist.MultivariateNormal(M, L[:2, :2]), "scale_tril must have as many rows"),
    (lambda: dist.Mixture(dist.Normal(M, 1.0), weights=A([0.5, 0.5])), "weights must have 3 elements"),
    (
        lambda: dist.Mixture(dist.Normal(M, 1.0), weights=A([0.5, 0.5, 0.5])),
        "weights must be non-negative and sum to 1",
    ),
    (lambda: dist.Independent(dist.Normal(M, 1.0), 2), "ndim must be an integer from 0"),
    (lambda: dist.Transformed(dist.Normal(M, 1.0), dist.TrilAffine(M, L)), r"use Independent\(base, 1\)"),
    (lambda: dist.Affine(0.0, 0.0), "scale must be finite and not zero"),
    (
        lambda: scg.sample(dist.Uniform(0.0, scg.parameter(1.0)), scg.ScoreFunction(), rng=np.random.default_rng(0)),
        "fixed support",
    ),
    (
        lambda: scg.sample(dist.Pareto(scg.parameter(1.0), 2.0), scg.ScoreFunction(), rng=np.random.default_rng(0)),
        "fixed support",
    ),
    (
        lambda: scg.sample(dist.Delta(scg.parameter(1.0)), scg.ScoreFunction(), rng=np.random.default_rng(0)),
        "fixed support",
    ),
]


@pytest.mark.parametrize("make, message", REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_bad_parameters_and_invalid_estimators_are_refused(make, message):
    with pytest.raises(scg.ScgError, match=message) as caught:
        make()
    assert "test_continuous.py" in str(caught.value)


def test_support_that_moves_only_with_constants_is_fixed():
    scg.sample(dist.Pareto(1.0, scg.parameter(2.0)), scg.ScoreFunction(), rng=np.random.default_rng(0))
    assert not dist.Transformed(dist.Exponential(1.0), dist.Affine(scg.parameter(0.0), 1.0)).has(dist.FixedSupport)
    assert dist.Transformed(dist.Normal(0.0, 1.0), dist.Affine(scg.parameter(0.0), 1.0)).has(dist.FixedSupport)
    assert not dist.Independent(dist.Pareto(scg.parameter(A([1.0])), 2.0), 1).has(dist.FixedSupport)


def test_a_mixture_moves_with_a_weight_that_is_zero():
    """d log p / d w_k = p_k / p - 1 for weights that are divided by their sum, also at w_k = 0, where log w_k is
    infinite."""

    def log_p(w):
        return dist.Mixture(weights=w / np.sum(w), component=dist.Normal(np.array([0.0, 1.0]), 1.0)).log_prob(0.3)

    r = np.exp((0.7**2 - 0.3**2) / 2)  # of the densities of the two
    np.testing.assert_allclose(scg.grad(log_p)(np.array([0.0, 1.0])), [r - 1, 0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        scg.hessian(log_p)(np.array([0.0, 1.0])), [[1 - r * r, 1 - r], [1 - r, 0]], rtol=1e-12, atol=1e-14
    )


def test_the_slope_of_laplace_cdf_is_its_density_also_at_the_centre():
    """dF/dz = p, dF/dloc = -p, dF/dscale = -x p with x = (z - loc) / scale; quantiles of a mixture move by them."""
    loc, scale, z = A([1.0, -2.0, 0.3]), A([0.5, 2.0, 1.0]), A([1.0, -2.0, -1.1])
    by = [scg.parameter(x) for x in (z, loc, scale)]
    slopes = scg.gradients(np.sum(dist.Laplace(by[1], by[2]).cdf(by[0])), by)
    p = dist.Laplace(loc, scale).prob(z)
    np.testing.assert_allclose(slopes, [p, -p, -p * (z - loc) / scale], rtol=1e-15, atol=1e-15)
    at = scg.parameter(A([1.0, 1.0]))
    median = dist.Mixture(dist.Laplace(at, 1.0), weights=A([0.3, 0.7])).icdf(0.5)
    assert median.raw == 1
    np.testing.assert_allclose(scg.gradients(median, [at])[0], [0.3, 0.7], rtol=1e-12)


SCALARS = [
    (dist.Normal, (0.3, 1.2)),
    (dist.LogNormal, (0.3, 0.7)),
    (dist.LogitNormal, (-0.3, 1.2)),
    (dist.HalfNormal, (1.5,)),
    (dist.Laplace, (0.2, 1.1)),
    (dist.Logistic, (0.2, 0.6)),
    (dist.Gumbel, (0.1, 1.3)),
    (dist.Cauchy, (0.1, 0.4)),
    (dist.StudentT, (3.0, 0.1, 1.2)),
    (dist.Exponential, (1.3,)),
    (dist.Gompertz, (0.4, 1.1)),
    (dist.Weibull, (1.2, 1.7)),
    (dist.Pareto, (1.2, 2.5)),
    (dist.Gamma, (2.3, 1.2)),
    (dist.Chi2, (3.3,)),
    (dist.InverseGamma, (2.3, 1.1)),
    (dist.Beta, (1.3, 2.1)),
    (dist.Kumaraswamy, (1.3, 2.1)),
    (dist.TruncatedNormal, (0.2, 1.1, -1.0, 2.0)),
    (dist.VonMises, (0.4, 1.3)),
    (functools.partial(dist.VonMises, low=-1.0), (0.4, 1.3)),
    (dist.Uniform, (-0.5, 1.5)),
    (dist.Delta, (1.0,)),
    (lambda rate: dist.Erlang(2, rate), (1.2,)),
    (lambda t, p: dist.RelaxedBernoulli(t, probs=p), (0.7, 0.3)),
    (lambda loc, s: dist.Transformed(dist.Normal(loc, s), dist.Exp()), (0.3, 1.2)),
    (lambda k, b: dist.Transformed(dist.Gamma(k, 1.0), dist.Affine(b, 1.2)), (1.3, 0.4)),
    (lambda a, b: dist.Transformed(dist.Uniform(a, b), dist.Sigmoid()), (-1.0, 0.4)),
    (lambda loc: dist.Transformed(dist.VonMises(loc, 1.0), dist.Affine(0.0, 2.0)), (0.4,)),
    (lambda a, w: dist.Mixture(dist.Pareto(np.stack([a, a + 1]), 2.0), weights=np.stack([w, 1 - w])), (1.2, 0.3)),
    (lambda p: dist.Mixture(dist.Normal(np.stack([p, -p]), 1.0), weights=[0.5, 0.5]), (0.4,)),
    (lambda loc: dist.Independent(dist.VonMises(np.stack([loc, 2 * loc]), 1.0), 1), (0.4,)),
]


@pytest.mark.parametrize("make, at", SCALARS, ids=lambda x: getattr(x, "__name__", None))
def test_a_support_that_is_said_to_be_fixed_holds_still_when_a_parameter_moves(make, at):
    """The least and the greatest draw: quantiles at 0 and 1, or what the support says."""

    def ends(parameters):
        distribution = make(*map(np.asarray, parameters))
        inner = getattr(distribution, "base", distribution) if distribution.event_shape else distribution
        try:
            return [np.asarray(inner.icdf(np.array(u))) for u in (0.0, 1.0)]
        except ScgValueError:
            return [np.asarray(end) for end in (inner.support.low, inner.support.high)]

    for i in range(len(at)):
        nodes = [scg.parameter(np.asarray(p)) if k == i else p for k, p in enumerate(at)]
        moved = [p + 0.05 * (1 + abs(p)) if k == i else p for k, p in enumerate(at)]
        with np.errstate(all="ignore"):
            still = all(np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(ends(at), ends(moved), strict=True))
        assert make(*nodes).has(dist.FixedSupport) == still, (make, i, ends(at), ends(moved))


@pytest.mark.parametrize(
    ("low", "cost"),
    covering([None, -math.pi, 0.5], [lambda z: 1.0 * z, lambda z: z * z - np.sin(2 * z), lambda z: np.cos(z)]),
)
def test_angles_have_one_turn_and_every_estimator_that_is_accepted_is_right_on_it(low, cost):
    loc, k = 0.9, 1.1
    make = lambda p: dist.VonMises(p[0], p[1], low)

    def expectation(p):
        start = p[0] - math.pi if low is None else low
        d = dist.VonMises(float(p[0]), float(p[1]))
        return scipy.integrate.quad(
            lambda z: cost(z) * np.exp(d.log_prob(z)),
            start,
            start + 2 * math.pi,
            epsabs=1e-12,
            points=[start + (p[0] - start) % (2 * math.pi)],
        )[0]

    h = 1e-4
    slope = [
        (expectation([loc + h, k]) - expectation([loc - h, k])) / (2 * h),
        (expectation([loc, k + h]) - expectation([loc, k - h])) / (2 * h),
    ]
    for estimator in (scg.ScoreFunction(), scg.Reparameterized()):
        if low is None and estimator.scores:
            with pytest.raises(
                EstimatorError, match=r"use Reparameterized\(\), or VonMises\(loc, concentration, low=-np.pi\)"
            ):
                scg.trace(
                    lambda p, rng: cost(scg.sample(make(p), estimator, rng=rng, name="z")),
                    A([loc, k]),
                    rng=np.random.default_rng(0),
                )
            continue
        graph = scg.trace(
            lambda p, rng, estimator=estimator: cost(scg.sample(make(p), estimator, rng=rng, name="z")),
            A([loc, k]),
            rng=np.random.default_rng(0),
        )
        np.testing.assert_allclose(scg.exact.expectation(graph), expectation([loc, k]), rtol=1e-9)
        np.testing.assert_allclose(scg.exact.gradient(graph), slope, rtol=1e-6, atol=1e-7)


def test_moments_of_angles_on_a_fixed_turn():
    for loc, k, low in itertools.product((0.3, 2.9, -7.0), (0.3, 20.0), (-math.pi, 1.0)):
        d = dist.VonMises(loc, k, low)
        mode = low + (loc - low) % (2 * math.pi)
        mean, square = (
            scipy.integrate.quad(
                lambda z, n=n, d=d: z**n * np.exp(d.log_prob(z)), low, low + 2 * math.pi, points=[mode], epsabs=1e-12
            )[0]
            for n in (1, 2)
        )
        np.testing.assert_allclose([d.mean, d.variance], [mean, square - mean**2], rtol=1e-9)
        z = d.sample(np.random.default_rng(0), 2000)
        assert (z >= low).all() and (z <= low + 2 * math.pi).all()
    for bad in (math.inf, "a", A([1.0])):
        with pytest.raises(ScgTypeError, match="low"):
            dist.VonMises(0.0, 1.0, bad)


def test_mixed_angles_are_moved_only_where_they_share_a_turn():
    loc, weights = scg.parameter(A([0.0, 2.0])), A([0.5, 0.5])
    apart, shared = (dist.Mixture(dist.VonMises(loc, 1.3, low), weights=weights) for low in (None, -math.pi))
    assert not apart.has(dist.FixedSupport) and not apart.has(dist.Reparameterizable)
    assert shared.has(dist.FixedSupport) and shared.has(dist.Reparameterizable)


# a distribution of (loc, scale), the x of standard noise, and what the density of y adds to that of x: value and slope
# in x, by mpmath
SQUASHED = [
    (
        lambda m, s: dist.Transformed(dist.Normal(m, s), dist.Tanh()),
        lambda x: -2 * (mpmath.log(2) - x - mpmath.log1p(mpmath.exp(-2 * x))),
    ),
    (lambda m, s: dist.Transformed(dist.Normal(m, s), dist.Sigmoid()), lambda x: x + 2 * mpmath.log1p(mpmath.exp(-x))),
    (lambda m, s: dist.LogitNormal(m, s), lambda x: x + 2 * mpmath.log1p(mpmath.exp(-x))),
    (
        lambda m, s: dist.Independent(dist.Transformed(dist.Normal(m, s), dist.Tanh()), 0),
        lambda x: -2 * (mpmath.log(2) - x - mpmath.log1p(mpmath.exp(-2 * x))),
    ),
]


@pytest.mark.parametrize("make, stretch", SQUASHED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loc", [0.3, 9.0, -9.0, 40.0, -40.0])
def test_squashed_draws_have_their_density_and_its_derivatives_however_they_are_rounded(make, stretch, dtype, loc):
    """log p(y) = log N(x) + stretch(x) at x = loc + scale e: by loc its derivative is stretch'(x), by scale e
    stretch'(x) - 1 / scale."""
    at, scale = A([loc, 0.7], dtype), float(dtype(0.7))

    def density(p, rng):
        distribution = make(p[0], p[1])
        z = scg.sample(distribution, scg.Reparameterized(), rng=rng, shape=50)
        return distribution.log_prob(z)

    mpmath.mp.dps = 40
    e = np.random.default_rng(0).standard_normal(50, dtype=dtype)
    x = (at[0] + at[1] * e).astype(float)
    expected = [
        float(
            -mpmath.log(scale) - mpmath.log(2 * mpmath.pi) / 2 - mpmath.mpf(float(n)) ** 2 / 2 + stretch(mpmath.mpf(v))
        )
        for v, n in zip(x, e, strict=True)
    ]
    slope = A([float(mpmath.diff(stretch, mpmath.mpf(v))) for v in x])
    value, gradient = scg.value_and_grad(lambda p, rng: np.mean(density(p, rng)))(at, rng=np.random.default_rng(0))
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(value, np.mean(expected), rtol=200 * eps, atol=200 * eps * abs(loc))
    np.testing.assert_allclose(
        gradient, [np.mean(slope), np.mean(e * slope) - 1 / scale], rtol=200 * eps, atol=200 * eps * max(1, abs(loc))
    )
    graph = scg.trace(lambda p, rng: np.mean(density(p, rng)), at, rng=np.random.default_rng(0))
    np.testing.assert_allclose(
        graph.run(rng=np.random.default_rng(0)).gradients(), gradient, rtol=10 * eps, atol=10 * eps
    )
    distribution = make(at[0], at[1])
    z = distribution.sample(np.random.default_rng(1), 1000)
    assert (
        z.dtype == dtype
        and np.isfinite(distribution.log_prob(z)).all()
        and np.isfinite(distribution.base.log_prob(z) if isinstance(distribution, dist.Independent) else 0).all()
    )


def test_another_density_by_the_same_map_is_taken_at_the_same_preimage():
    prior, mine = (lambda m: dist.Transformed(dist.Normal(m, 1.0), dist.Tanh()) for _ in range(2))
    cost = lambda m, rng: (
        mine(m).log_prob(z := scg.sample(mine(m), scg.Reparameterized(), rng=rng)) - prior(0.0).log_prob(z)
    )
    e = np.random.default_rng(3).standard_normal()
    value, gradient = scg.value_and_grad(cost)(A(30.0), rng=np.random.default_rng(3))
    np.testing.assert_allclose([value, gradient], [(30 + e) ** 2 / 2 - e * e / 2, 30 + e], rtol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: dist.Transformed(dist.Normal(m, 1.0), dist.Tanh()),
        lambda m: dist.LogitNormal(m, 1.0),
        lambda m: dist.RelaxedBernoulli(0.5, logits=m),
    ],
)
def test_a_score_at_a_draw_that_was_rounded_to_an_end_is_refused(make):
    cost = lambda m, rng: scg.sample(make(m), scg.ScoreFunction(), rng=rng) ** 2
    assert np.isfinite(scg.grad(cost)(A(0.5), rng=np.random.default_rng(0)))
    with pytest.raises(ScgValueError, match=r"rounded to an end.*Reparameterized\(\)"):
        scg.grad(cost)(A(60.0), rng=np.random.default_rng(0))


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_relaxed_coin_takes_a_rounded_array_and_refuses_a_rounded_node(end):
    density = lambda x, l: dist.RelaxedBernoulli(0.5, logits=l).log_prob(x)
    inside = np.clip(end, np.finfo(float).tiny, np.nextafter(1.0, 0.0))
    assert scg.value_and_grad(density, 1)(end, 0.3) == scg.value_and_grad(density, 1)(inside, 0.3)
    for x in (end, A([0.5, end])):
        with pytest.raises(ScgValueError, match=r"rounded to an end.*Reparameterized\(\)"):
            scg.grad(lambda x, l: np.sum(density(x, l)), (0, 1))(x, 0.3)
    assert scg.value_and_grad(density)(end + end - 0.5 + 0.25, 0.3)[0] == -np.inf  # outside: -0.25 and 1.75


def test_relaxed_coins_have_the_density_of_their_logits_at_low_temperatures():
    t, l = 0.05, np.float32(1.0)
    distribution = lambda logits: dist.RelaxedBernoulli(np.float32(t), logits=logits)
    value, gradient = scg.value_and_grad(
        lambda l, rng: distribution(l).log_prob(scg.sample(distribution(l), scg.Reparameterized(), rng=rng))
    )(l, rng=np.random.default_rng(5))
    e = float(dist.Logistic(0.0, 1.0).sample_as(np.random.default_rng(5), (), np.dtype(np.float32)))
    x = (1.0 + e) / t  # log p = log t - softplus(-e) - softplus(e) + softplus(x) + softplus(-x)
    np.testing.assert_allclose(
        value,
        math.log(t) - np.logaddexp(0, -e) - np.logaddexp(0, e) + np.logaddexp(0, x) + np.logaddexp(0, -x),
        rtol=1e-5,
    )
    np.testing.assert_allclose(gradient, math.tanh(x / 2) / t, rtol=1e-5)


@pytest.mark.parametrize("df", [0.1, 0.5, 1.0, 3.0, 10.0, 100.0, 1000.0])
def test_quantiles_of_students_t_in_both_tails(df):
    """P(T < -t) = I_w(df/2, 1/2) / 2, w = df / (df + t^2): a relative error eps in t is one of at most df eps in p."""
    mpmath.mp.dps, v = 40, mpmath.mpf(df)
    for p in (1e-300, 1e-200, 1e-100, 1e-30, 1e-15, 1e-6, 0.01, 0.3):
        with np.errstate(over="ignore"):
            t = float(dist.StudentT(df).icdf(p))
        if not math.isfinite(t):
            assert t < 0 and df < 1
            continue
        tail = mpmath.betainc(v / 2, mpmath.mpf(1) / 2, 0, v / (v + mpmath.mpf(t) ** 2), regularized=True) / 2
        assert t < 0 and abs(tail / p - 1) < 1e-13 * max(df, 1), (p, t)
        upper = float(dist.StudentT(df).icdf(1 - p))
        assert p < 1e-16 or upper == pytest.approx(-float(dist.StudentT(df).icdf(1 - (1 - p))), rel=1e-12)
    np.testing.assert_array_equal(dist.StudentT(df).icdf(A([0.0, 1.0])), [-math.inf, math.inf])
    assert (
        np.isnan(dist.StudentT(0.7).mean)
        and np.isnan(dist.StudentT(0.7).variance)
        and np.isinf(dist.StudentT(1.5).variance)
    )
    with pytest.raises(ScgValueError, match="greater than any number"):
        dist.StudentT(0.001).sample(np.random.default_rng(0), 100)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["Exponential", "Weibull", "Gompertz"])
def test_what_waits_for_an_exponential_number_is_its_quantile_and_never_at_an_end(name, dtype):
    class Ends(np.random.Generator):
        def standard_exponential(self, size, dtype):
            return np.resize(A([0.0, 1.0, 30.0], dtype), size)

    p = A([0.5, 2.0, 0.7], dtype)
    d = dist.Exponential(p) if name == "Exponential" else getattr(dist, name)(p, dtype(0.6))
    z = d.sample(Ends(np.random.PCG64(0)), 2)
    assert z.dtype == dtype and z.shape == (2, 3) and np.all(z > 0) and np.all(np.isfinite(d.log_prob(z)))
    np.testing.assert_allclose(d.spent(z)[:, 1:], [[1.0, 30.0]] * 2, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_moments_and_divergences_of_float32_beside_python_numbers_stay_float32(known):
    """``known`` parameter is a float32, the others are Python numbers."""
    for make in (dist.StudentT, dist.VonMises, dist.Normal, dist.Gamma, dist.InverseGamma, dist.Pareto, dist.Beta):
        given = (3.0, 0.5, 2.0)[: 3 if make is dist.StudentT else 2]
        mixed = make(*[np.float32(x) if k in (known, 2 - known) else x for k, x in enumerate(given)])
        for value in (mixed.mean, mixed.variance, mixed.entropy()):
            assert np.shape(value) == () and getattr(value, "dtype", np.float32) == np.float32, make
        plain = make(*given)
        for pair in () if make is dist.StudentT else ((mixed, plain), (plain, mixed)):
            assert dist.kl_divergence(*pair).dtype == np.float32, make


@pytest.mark.parametrize("df, loc, scale", [(0.02, 0.0, 1.0), (0.7, 3.0, 1e-3), (4.0, 0.0, 1.0), (1e9, 0.2, 1.0)])
@pytest.mark.parametrize("z", [1e13, -1e20, 1e160, -1e300])
def test_a_density_of_student_is_known_where_the_square_of_a_value_is_not_a_number(df, loc, scale, z):
    """log p and its derivatives by df, loc, scale and z: samples of few degrees of freedom lie there."""

    def log_prob(v, df, loc, scale):
        x = (v - loc) / scale
        constant = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(df * mpmath.pi) / 2
        return constant - mpmath.log(scale) - (df + 1) / 2 * mpmath.log1p(x * x / df)

    at = z, df, loc, scale
    value, slopes = scg.value_and_grad(lambda p: dist.StudentT(p[1], p[2], p[3]).log_prob(p[0]))(A(at))
    with mpmath.workdps(60):
        v, n, m, s = map(mpmath.mpf, at)
        x = (v - m) / s
        pull = (n + 1) * x / (n + x * x)
        by_df = mpmath.diff(lambda df: log_prob(v, df, m, s), n, h=n * mpmath.mpf(10) ** -20)
        truth = [-pull / s, by_df, pull / s, (pull * x - 1) / s]
        assert value == pytest.approx(float(log_prob(v, n, m, s)), rel=1e-12)
    np.testing.assert_allclose(slopes, [float(t) for t in truth], rtol=1e-6)
