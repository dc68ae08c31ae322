"""Exact gradients where a density has a kink that is at no centre of a quadrature rule: the base of an image, the
components of a mixture, a distribution from outside, a location that a coin moves."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

import scg
from scg import distributions as dist
from scg.extend import Distribution, FixedSupport, constraints
from tests.support.drawn import covering


@dataclass(frozen=True, eq=False, repr=False)
class Slanted(Distribution, FixedSupport):
    """p(z) = exp(-max(x, -2 x)) / (1.5 scale), x = (z - loc) / scale: P(x > 0) is 2/3."""

    loc: np.ndarray
    scale: np.ndarray
    constraints = {"loc": constraints.finite, "scale": constraints.positive}

    def sample(self, rng, shape=()):
        plain, full = self.detached(), self.full_shape(shape)
        x = np.where(rng.random(full) < 2 / 3, rng.exponential(size=full), -0.5 * rng.exponential(size=full))
        return np.asarray(plain.loc + plain.scale * x, self.dtype)

    def log_prob(self, z):
        x = (z - self.loc) / self.scale
        return -np.maximum(x, -2 * x) - np.log(1.5 * self.scale)

    mean = property(lambda self: self.loc + 0.5 * self.scale)
    variance = property(lambda self: 1.25 * self.scale**2)


def bent(x):
    return np.exp(-np.maximum(x, -2 * x)) / 1.5


def laplace(x):
    return np.exp(-np.abs(x)) / 2


SCALE = 0.6
BASES = {  # the distribution at a parameter that is its location; the standard density, of which others are mixed
    "laplace": (lambda t: dist.Laplace(t, SCALE), laplace, {0.0: 1.0}),
    "from outside": (lambda t: Slanted(t, np.array(SCALE)), bent, {0.0: 1.0}),
    "mixed": (
        lambda t: dist.Mixture(dist.Laplace(t + np.array([0.0, 0.9]), SCALE), np.array([0.3, 0.7])),
        laplace,
        {0.0: 0.3, 0.9: 0.7},
    ),
    "moved by a coin": (None, laplace, {0.0: 0.3, 0.9: 0.7}),
}
MAPS = {
    "as it is": (None, lambda x: x),
    "affine": (dist.Affine(0.3, -1.7), lambda x: 0.3 - 1.7 * x),
    "exp": (dist.Exp(), np.exp),
    "sigmoid": (dist.Sigmoid(), expit),
    "tanh": (dist.Tanh(), np.tanh),
    "softplus": (dist.Softplus(), lambda x: np.logaddexp(0, x)),
    "of an image": (None, lambda x: expit(0.2 + 0.7 * x)),
}


def image(base, name):
    if name == "of an image":
        return dist.Transformed(dist.Transformed(base, dist.Affine(0.2, 0.7)), dist.Sigmoid())
    return base if MAPS[name][0] is None else dist.Transformed(base, MAPS[name][0])


@pytest.mark.parametrize(("kind", "name"), covering([*BASES], [*MAPS], times=2))
def test_a_gradient_knows_where_the_density_is_not_smooth(kind, name):
    """d/dt E[c(f(x))] = sum_k w_k int c(f(t + a_k + s e)) (-p'(e) / s) de, split where p' jumps."""
    made, density, places = BASES[kind]
    forward, t = MAPS[name][1], 0.37
    cost_of = lambda y: 1 / (1 + (y - 0.4) ** 2) + np.tanh(y)

    def cost(t, rng):
        if made is None:
            b = scg.sample(dist.Bernoulli(probs=0.7), scg.ScoreFunction(), rng=rng)
            base = dist.Laplace(t + 0.9 * b, SCALE)
        else:
            base = made(t)
        return cost_of(scg.sample(image(base, name), scg.ScoreFunction(), rng=rng))

    right = 0.0
    for shift, weight in places.items():
        for a, b, slope in ((-40, 0, 2 if density is bent else 1), (0, 40, -1)):
            inner = lambda e, slope=slope, shift=shift: -slope * density(e) * cost_of(forward(t + shift + SCALE * e))
            ends = [a, *[p for p in (-8, -2, -0.5, 0.5, 2, 8) if a < p < b], b]
            parts = [quad(inner, *pair, epsabs=1e-13, limit=400)[0] for pair in zip(ends[:-1], ends[1:], strict=True)]
            right += weight / SCALE * sum(parts)
    found = scg.exact.gradient(cost, np.array(t), rng=np.random.default_rng(0), full=True)
    assert found.value == pytest.approx(right, rel=1e-7, abs=1e-9)
    assert abs(found.value - right) <= found.error + 1e-9
