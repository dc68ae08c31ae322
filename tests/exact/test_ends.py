"""Exact derivatives of samples that a map of bounded range makes, where values far out are rounded to an end of it."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import laplace, logistic, norm, t

import scg
from scg import distributions as dist
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
