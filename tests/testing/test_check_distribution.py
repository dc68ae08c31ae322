"""check_distribution: what is right passes, and each saboteur is caught by the check that is meant for it."""

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import scg
from scg import distributions as dist
from scg.distributions.base import kl_divergence
from scg.errors import ScgValueError
from scg.testing import check_distribution
from scg.testing.quadrature import integrals
from tests.support.drawn import share

pytestmark = pytest.mark.fast


def saboteur(distribution, **broken):
    """A distribution with some methods replaced: ``name=lambda right, self, *args`` is given the right method,
    bound."""

    def method(name, fn):
        right = getattr(type(distribution), name)
        if isinstance(right, property):
            return property(lambda self: fn(lambda: right.fget(self), self))
        return lambda self, *args: fn(lambda *a: right(self, *a), self, *args)

    made = type(
        type(distribution).__name__, (type(distribution),), {name: method(name, fn) for name, fn in broken.items()}
    )
    new = object.__new__(made)
    new.__dict__.update(distribution.__dict__)
    return new


NORMAL = dist.Normal([0.5, -1.0], [2.0, 0.3])
EXPONENTIAL = dist.Exponential(2.0)
POISSON = dist.Poisson([0.7, 12.0])
CATEGORICAL = dist.Categorical([0.2, 0.5, 0.3])
CONCRETE = dist.Concrete(0.7, logits=np.linspace(-1, 1, 5))
PLANE = dist.MultivariateNormal([0.5, -1.0], [[1.0, 0.0], [0.5, 2.0]])
SUBSET = dist.SubsetOfSize(np.array([0.3, -1.0, 0.8, 0.1]), 2)
ORDER = dist.PlackettLuce(np.array([0.3, -1.0, 0.8]))
ORDERED = dist.Ordered(0.3, [-1.0, 0.0, 2.0])
held = scg.stop_gradient


def _colder(z):
    """Draws of a Concrete distribution as they would be at 0.85 times the temperature."""
    power = z ** (1 / 0.85)
    return power / power.sum(axis=-1, keepdims=True)


def _log_e(l, k):
    """log of the elementary symmetric polynomial of degree k."""
    return np.log(sum(np.exp(sum(l[i] for i in chosen)) for chosen in combinations(range(4), k)))


SABOTEURS = {
    "wrong normaliser": (NORMAL, {"log_prob": lambda right, self, x: right(x) + 1e-6}, "normalisation"),
    "wrong normaliser, discrete": (POISSON, {"log_prob": lambda right, self, x: right(x) + 1e-6}, "normalisation"),
    "wrong normaliser, finite": (CATEGORICAL, {"log_prob": lambda right, self, x: right(x) + 1e-6}, "normalisation"),
    "wrong normaliser, plane": (PLANE, {"log_prob": lambda right, self, x: right(x) + 1e-6}, "normalisation"),
    "sampler with a wrong scale": (
        NORMAL,
        {"sample": lambda right, self, rng, shape=(): self.loc + 1.15 * (right(rng, shape) - self.loc)},
        "sampler",
    ),
    "sampler that repeats itself": (
        NORMAL,
        {"sample": lambda right, self, rng, shape=(): np.round(right(rng, shape), 1)},
        "sampler",
    ),
    "sampler with a wrong rate": (
        POISSON,
        {"sample": lambda right, self, rng, shape=(): right(rng, shape) + (rng.random() < 1)},
        "sampler",
    ),
    "sampler of another table": (
        CATEGORICAL,
        {"sample": lambda right, self, rng, shape=(): 2 - right(rng, shape)},
        "sampler",
    ),
    "sampler of vectors": (CONCRETE, {"sample": lambda right, self, *how: _colder(right(*how))}, "score"),
    "sampler of the plane": (PLANE, {"sample": lambda right, self, rng, shape=(): right(rng, shape) * 1.15}, "sampler"),
    "a subset by a normaliser of one fewer": (
        SUBSET,
        {"log_prob": lambda right, self, z: right(z) + _log_e(self.logits, 2) - _log_e(self.logits, 1)},
        "normalisation",
    ),
    "a subset by the largest keys": (
        SUBSET,  # which are those of an order without its order
        {
            "sample": lambda right, self, rng, shape=(): np.eye(4)[
                dist.PlackettLuce(self.logits, 2).sample(rng, shape)
            ].sum(axis=-2)
        },
        "sampler",
    ),
    "the chance of coins alone": (
        SUBSET,
        {"mean": lambda right, self: 2 * np.exp(self.logits) / np.sum(np.exp(self.logits))},
        "mean",
    ),
    "an order by one normaliser for all places": (
        ORDER,
        {"log_prob": lambda right, self, z: np.sum(self.logits[z] - np.log(np.sum(np.exp(self.logits))), axis=-1)},
        "normalisation",
    ),
    "an order from the last to the first": (
        ORDER,
        {"sample": lambda right, self, rng, shape=(): right(rng, shape)[..., ::-1]},
        "sampler",
    ),
    "an order of normal keys": (
        ORDER,
        {
            "sample": lambda right, self, rng, shape=(): np.argsort(
                -(self.logits + rng.normal(size=self.full_shape(shape))), axis=-1
            )
        },
        "sampler",
    ),
    "an order with its normaliser held": (
        ORDER,
        {
            "log_prob": lambda right, self, z: (
                right(held(z)) + np.sum(self.logits) - held(np.sum(self.logits))
                if isinstance(self.logits, scg.Node)
                else right(z)
            )
        },
        "score",
    ),
    "ordered categories without the last": (
        ORDERED,
        {"log_prob": lambda right, self, z: np.where(z == 3, -np.inf, right(z))},
        "support",
    ),
    "ordered categories by two tails without the gap": (
        ORDERED,
        {
            "log_prob": lambda right, self, z: (
                right(z) - np.log1p(-np.exp(-1.0)) * (z == 1) - np.log1p(-np.exp(-2.0)) * (z == 2)
            )
        },
        "normalisation",
    ),
    "ordered categories in normal noise": (
        ORDERED,
        {
            "sample": lambda right, self, rng, shape=(): np.searchsorted(
                self.cutpoints, self.loc + rng.normal(size=self.full_shape(shape))
            )
        },
        "sampler",
    ),
    "wrong cdf": (NORMAL, {"cdf": lambda right, self, x: right(x + 1e-6)}, "cdf"),
    "wrong cdf, discrete": (POISSON, {"cdf": lambda right, self, x: right(x) * (1 - 1e-6)}, "cdf"),
    "wrong quantile": (NORMAL, {"icdf": lambda right, self, u: right(u) + 1e-6}, "quantile"),
    "wrong quantile, discrete": (POISSON, {"icdf": lambda right, self, u: right(u) + 1}, "quantile"),
    "log_prob detached from a parameter": (
        NORMAL,
        {"log_prob": lambda right, self, x: dist.Normal(self.loc, held(self.scale)).log_prob(x)},
        "gradients",
    ),
    "log_prob detached from the value": (NORMAL, {"log_prob": lambda right, self, x: right(held(x))}, "gradients"),
    "variance detached": (NORMAL, {"variance": lambda right, self: held(right())}, "gradients"),
    "transport detached from a parameter": (
        NORMAL,
        {"transport": lambda right, self, e: self.loc + held(self.scale) * e},
        "gradients",
    ),
    "transport of another derivative": (
        EXPONENTIAL,
        {"transport": lambda right, self, e: right(e) * np.exp((self.rate - 2.0) * (e - 0.5))},
        "pathwise",
    ),
    "wrong mean": (NORMAL, {"mean": lambda right, self: right() + 1e-5}, "mean"),
    "wrong mean of vectors": (
        dist.MultivariateNormal(np.zeros(3), np.eye(3)),
        {"mean": lambda right, self: right() + 0.2},
        "mean",
    ),
    "wrong variance": (POISSON, {"variance": lambda right, self: right() * 1.00001}, "variance"),
    "wrong entropy": (NORMAL, {"entropy": lambda right, self: right() + 1e-5}, "entropy"),
    "wide log_prob": (NORMAL, {"log_prob": lambda right, self, x: right(x) + np.float64(0)}, "float32"),
    "wide draws": (
        NORMAL,
        {"sample": lambda right, self, rng, shape=(): np.asarray(right(rng, shape), float)},
        "float32",
    ),
    "wrong shape": (NORMAL, {"sample": lambda right, self, rng, shape=(): right(rng, shape)[..., :1]}, "shapes"),
    "summed log_prob": (NORMAL, {"log_prob": lambda right, self, x: np.sum(right(x), axis=-1)}, "shapes"),
    "draws outside": (EXPONENTIAL, {"sample": lambda right, self, rng, shape=(): right(rng, shape) - 0.1}, "support"),
    "density outside": (EXPONENTIAL, {"log_prob": lambda right, self, x: np.log(self.rate) - self.rate * x}, "outside"),
    "mass between": (POISSON, {"log_prob": lambda right, self, x: right(np.floor(x))}, "outside"),
    "parameters that stay live": (NORMAL, {"stop_gradient": lambda right, self: self}, "detached"),
    "a distance to itself": (NORMAL, {"kl_to": lambda right, self, other: right(other) + 1e-6}, "divergence"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SABOTEURS)
def test_saboteurs_are_caught(name):
    distribution, broken, check = SABOTEURS[name]
    with pytest.raises(AssertionError, match=rf"\): {check}: "):
        check_distribution(saboteur(distribution, **broken), rng=np.random.default_rng(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "distribution",
    [NORMAL, EXPONENTIAL, POISSON, CATEGORICAL, CONCRETE, PLANE, SUBSET, ORDER, ORDERED],
    ids=lambda distribution: type(distribution).__name__,
)
def test_the_same_distributions_unbroken(distribution):
    """Nor does the wrapper of the saboteurs break them."""
    for seed in range(share(8, least=1)):
        report = check_distribution(
            saboteur(distribution, log_prob=lambda right, self, x: right(x)), rng=np.random.default_rng(seed)
        )
        assert str(report).startswith(repr(distribution)) and len(report.rows) >= 6


@pytest.mark.parametrize("shift, error", [(0.0, None), (1e-8, "reference: ")])
def test_reference_in_the_far_tails(shift, error):
    """A density that is right in the bulk and off by 1e-8 relative beyond ten standard deviations."""
    right = stats.norm(0.5, 2.0)
    reference = SimpleNamespace(
        logpdf=lambda x: right.logpdf(x) * (1 + shift * (np.abs(x) > 20)), ppf=right.ppf, isf=right.isf
    )
    distribution = dist.Normal(0.5, 2.0)
    if error is None:
        rows = dict(check_distribution(distribution, rng=np.random.default_rng(0), reference=reference).rows)
        assert "log p from -6" in rows["reference"]
    else:
        with pytest.raises(AssertionError, match=error):
            check_distribution(distribution, rng=np.random.default_rng(0), reference=reference)


def test_reference_of_moments():
    wrong = SimpleNamespace(logpdf=stats.norm(0.5, 2.0).logpdf, var=lambda: 4.001)
    with pytest.raises(AssertionError, match="variance of the reference"):
        check_distribution(dist.Normal(0.5, 2.0), rng=np.random.default_rng(0), reference=wrong)


INTEGRALS = [
    (dist.Normal(3.0, 1e-4), 1e-11),
    (dist.Cauchy(0.0, 5.0), 1e-11),
    (dist.Gamma(0.05, 2.0), 1e-11),
    (dist.Beta(0.3, 4.0), 1e-11),
    (dist.Beta(4.0, 0.5), 1e-7),
    (dist.Pareto(1.0, 0.3), 1e-11),
    (dist.Laplace(1.0, 2.0), 1e-11),
    (dist.Uniform(-3.0, 1.0), 1e-11),
    (dist.VonMises(2.0, 4.0), 1e-11),
    (dist.Geometric(1e-3), 1e-11),
    (dist.Poisson(1000.0), 1e-11),
    (dist.Dirichlet([0.7, 2.0, 1.3]), 1e-10),
    (dist.Concrete(0.4, logits=[0.3, 1.0, -0.5]), 1e-10),
    (PLANE, 1e-10),
]


@pytest.mark.parametrize("distribution, size", INTEGRALS, ids=lambda x: repr(x))
def test_quadrature_bounds_its_error(distribution, size):
    """Singular ends, algebraic tails, kinks, narrow peaks: the mass is 1 within four times the stated error, which is
    small."""
    found = integrals(distribution, distribution.sample(np.random.default_rng(0), 4000))
    assert np.all(np.abs(found.mass - 1) <= 4 * found.error + 1e-11) and found.error <= size


def test_a_distribution_without_a_density():
    with pytest.raises(ScgValueError, match="no density"):
        check_distribution(dist.Delta(2.0), rng=np.random.default_rng(0))


def test_a_distribution_from_outside():
    """What a user writes: log_prob, sample and cdf; the rest is found out."""

    class Triangle(dist.Distribution):
        """p(z) = 2 z / a^2 on (0, a)."""

        constraints = {"a": dist.Exponential.constraints["rate"]}
        moving = ("a",)

        def __init__(self, a):
            self.a = a
            self.__post_init__()

        def replaced(self, a):
            new = object.__new__(Triangle)
            new.a = a
            new._batch_shape = np.shape(a)
            return new

        @property
        def support(self):
            return dist.Uniform(0.0, self.a).support

        def log_prob(self, value):
            bad = (value < 0) | (value > self.a)
            return np.where(bad, -math.inf, np.log(np.where(bad, 1, value)) + math.log(2) - 2 * np.log(self.a))

        def cdf(self, value):
            return np.square(np.clip(value / self.a, 0, 1))

        def sample(self, rng, shape=()):
            return np.asarray(self.detached().a * np.sqrt(rng.random(self.full_shape(shape))), self.dtype)

        def __repr__(self):
            return "Triangle"

    distribution = Triangle(np.array([1.5, 3.0]))
    report = check_distribution(distribution, rng=np.random.default_rng(0))
    assert {"normalisation", "cdf", "sampler", "pathwise", "gradients"} <= {name for name, _ in report.rows}
    with pytest.raises(ScgValueError):
        kl_divergence(distribution, distribution)
