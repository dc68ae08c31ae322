"""The programs in which the saboteurs make their mistakes: costs of (parameters, generator, estimator)."""

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Value
from scg.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    OneHotCategorical,
    StudentT,
    Uniform,
    Weibull,
)
from scg.estimators import ScoreFunction
from scg.special import logsumexp
from scg.stochastic.estimator import Estimator
from scg.stochastic.sites import sample
from scg.transforms import grad

PRICES = np.array([1.0, 3.0, 0.5])


def square(x: Value) -> Value:
    """A cost of one number."""
    return (x - 0.2) ** 2


def coins(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """Separate costs of a few coins."""
    b = sample(Bernoulli(logits=t), estimator, rng=rng, name="z")
    return np.mean((b + 0.5) ** 2 * np.arange(1.0, 1 + t.size) + 0.3 * t * b)


def coin(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """One coin, near to where costs are equal."""
    return (sample(Bernoulli(logits=t), estimator, rng=rng, name="z") - 0.45) ** 2


def pair(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The product of two coins."""
    b = sample(Bernoulli(logits=t), estimator, rng=rng, name="z")
    return (b[0] - 0.2) * (b[1] + 1)


def steps(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """Three coins, each drawn given the one before."""
    total: Value = np.zeros(())
    z: Result = 0.5
    for k in range(3):
        z = sample(Bernoulli(logits=t[0] + 2 * t[1] * z), estimator, rng=rng, name=f"z{k}")
        total = total + (k + 1) * z * t[1]
    return total


def nested(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A coin whose outcome sets the odds of the next."""
    x = sample(Bernoulli(logits=t[0]), estimator, rng=rng, name="z")
    y = sample(Bernoulli(logits=t[1] + 2 * x), ScoreFunction(), rng=rng, name="y")
    return square(x) + 2 * y


def squared_loc(distribution: Operand) -> Value:
    """A cost of where a distribution stands."""
    return distribution.loc**2


def upstream(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A cost of the place, and then one of where a sample around it falls."""
    return t**2 + square(sample(Normal(t, 1.0), estimator, rng=rng, name="z"))


def faces(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The price of one of three faces."""
    z = sample(OneHotCategorical(logits=t), estimator, rng=rng, name="z")
    return np.sum(z * PRICES)


def two_faces(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The square of the price of one of two faces."""
    z = sample(OneHotCategorical(logits=np.stack([t, -t])), estimator, rng=rng, name="z")
    return np.sum(z * np.array([1.0, -0.3])) ** 2


def trials(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """Squares of the successes of three trials."""
    return np.sum((sample(Binomial(3, logits=t), estimator, rng=rng, name="z") - 0.4) ** 2)


def scale(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[z^2] = t^2."""
    return sample(Normal(0.0, t), estimator, rng=rng, name="z") ** 2


def wave(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[cos z] = exp(-t^2 / 2)."""
    return np.cos(sample(Normal(0.0, t), estimator, rng=rng, name="z"))


def wide(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[(z + 1)^2] under N(t, 1.5)."""
    return (sample(Normal(t, 1.5), estimator, rng=rng, name="z") + 1) ** 2


def interval(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[z^2] between t[0] and t[1]."""
    return sample(Uniform(t[0], t[1]), estimator, rng=rng, name="z") ** 2


def curvature(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The derivative of a cost, so that its own derivative is the second one."""

    def cost(t: Value, rng: np.random.Generator) -> Value:
        return square(sample(Bernoulli(logits=t), estimator, rng=rng, name="z")) * t

    return grad(cost)(t, rng=rng)


def log_p(z: Value) -> Value:
    """The log-density of a standard normal variable."""
    return Normal(0.0, 1.0).log_prob(z)


def bound(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """Two samples' bound on log p = 0, with a guide beside the mark."""
    guide = Normal(t, 1.2)
    z = sample(guide, estimator, rng=rng, shape=(2,), name="z")
    return logsumexp(log_p(z) - guide.log_prob(z), axis=0)


def advantage(z: Value, distribution: Operand) -> Value:
    """The price of a face above the mean price."""
    return np.sum((z - distribution.mean) * PRICES)


def penalty(z: Value, distribution: Operand) -> Value:
    """The price of a face and its log-probability."""
    return np.sum(z * PRICES) + distribution.log_prob(z)


def penalized(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The price of a face and its log-probability: the divergence from a uniform reference, but for a constant."""
    z = sample(OneHotCategorical(logits=t), estimator, rng=rng, name="z")
    return np.sum(z * PRICES) + OneHotCategorical(logits=t).log_prob(z)


def cooled(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The price of a face at half the temperature."""
    return np.sum(sample(OneHotCategorical(logits=t / 0.5), estimator, rng=rng, name="z") * PRICES)


def tokens(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The price of a pair of tokens."""
    z = sample(OneHotCategorical(logits=t), estimator, rng=rng, name="z")
    return np.sum(z[0] * (np.array([[0.2, 1.0, 0.5], [1.5, 0.1, 0.3], [0.4, 0.8, 2.0]]) @ z[1]))


def dice(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """The price of the number of one of three faces."""
    z = sample(Categorical(logits=t), estimator, rng=rng, name="z")
    return (z - 0.3) ** 2


def steep(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A cost of coins that grows ever faster."""
    return np.sum((sample(Bernoulli(logits=t), estimator, rng=rng, name="z") + 0.3) ** 3)


def laplace(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[(z + 1)^2] under a Laplace distribution around t."""
    return (sample(Laplace(t, 0.7), estimator, rng=rng, name="z") + 1) ** 2


def geometric(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[cos 2 z] of the trials until the first success."""
    return np.cos(2 * sample(Geometric(logits=t), estimator, rng=rng, name="z"))


def negative_binomial(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A cost of the failures before three successes that levels off."""
    return np.tanh(sample(NegativeBinomial(3, logits=t), estimator, rng=rng, name="z") / 3)


def weibull(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """E[z^2] under a Weibull distribution of the scale t."""
    return sample(Weibull(t, 2.0), estimator, rng=rng, name="z") ** 2


def lognormal(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A cost of a lognormal variable that levels off."""
    z = sample(LogNormal(t, 0.5), estimator, rng=rng, name="z")
    return z / (1 + z)


def student(t: Value, rng: np.random.Generator, estimator: Estimator) -> Value:
    """A cost of a Student variable around t that levels off."""
    return np.tanh(sample(StudentT(4.0, t, 1.0), estimator, rng=rng, name="z"))
