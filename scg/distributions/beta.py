"""Distributions on the unit interval: Beta, Kumaraswamy."""

from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Result
from scg.core.node import Node, Numeric, Value
from scg.distributions.accurate import in_double, log_gamma_bend
from scg.distributions.base import Distribution, FixedSupport, Shape
from scg.distributions.constraints import (
    positive,
    unit_interval,
)
from scg.distributions.ends import within_ends
from scg.distributions.uniform import InverseCDF
from scg.distributions.weak import betaln, digamma, doubles, exp, log, masked, real_array, xlog1py, xlogy
from scg.special import log1mexp


@final
@dataclass(frozen=True, eq=False, repr=False)
class Beta(InverseCDF, Distribution, FixedSupport):
    """log p(z) = (a - 1) log z + (b - 1) log(1 - z) - log B(a, b), a = concentration1, b = concentration0, 0 <= z <= 1.

    Reparameterized by its quantile function, whose derivatives in a and b are implicit (Figurnov et al., 2018) and
    first order only. Samples lie strictly between 0 and 1. Where b is so small (0.15; in float32 0.35), or a (0.008;
    0.07), that many are rounded to the last number before 1, or to the smallest normal one, their scores are not known,
    and estimators by scores refuse it.
    """

    concentration1: Numeric
    concentration0: Numeric
    constraints = {"concentration1": positive, "concentration0": positive}
    support = unit_interval  # type: ignore[assignment]

    def transport(self, noise: Value) -> Value:
        return _strictly_inside(self.icdf(noise))

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        z = rng.beta(plain.concentration1, plain.concentration0, self.full_shape(shape))
        return _strictly_inside(np.asarray(z).astype(self.dtype, copy=False))

    def log_prob(self, value: Numeric) -> Value:
        a, b = self.concentration1, self.concentration0
        value = real_array(value)
        outside = (value < 0) | (value > 1)
        return masked(outside, lambda z: xlogy(a - 1, z) + xlog1py(b - 1, -z) - betaln(a, b), value, 0.5)

    def unresolved(self) -> float:
        """P(Z < tiny) for a node a, P(1 - Z < eps) for a node b: the scores by them have log Z and log(1 - Z)."""
        a, b = doubles(self.concentration1, self.concentration0)
        kind, ends = np.finfo(self.dtype), [np.zeros(())]
        if type(self.concentration1) is Node:
            ends.append(sp.betainc(a, b, kind.tiny))
        if type(self.concentration0) is Node:
            ends.append(sp.betainc(b, a, kind.eps))
        return max([float(np.max(end, initial=0.0)) for end in ends])

    @property
    def mean(self) -> Numeric:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Numeric:
        a, b = self.concentration1, self.concentration0
        return a * b / ((a + b) ** 2 * (a + b + 1))

    def entropy(self) -> Numeric:
        return _beta_entropy(self.concentration1, self.concentration0)

    def cdf(self, value: Numeric) -> Value:
        return sp.betainc(self.concentration1, self.concentration0, np.clip(value, 0, 1))

    def icdf(self, probability: Numeric) -> Value:
        return sp.betaincinv(self.concentration1, self.concentration0, real_array(probability))

    def kl_to(self, other: Distribution) -> Numeric:
        """log B(a2, b2) - log B(a1, b1) + (a1 - a2) digamma(a1) + (b1 - b2) digamma(b1) - (a1 + b1 - a2 - b2)
        digamma(a1 + b1)."""
        if not isinstance(other, Beta):
            return NotImplemented
        return _beta_divergence(self.concentration1, self.concentration0, other.concentration1, other.concentration0)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Kumaraswamy(InverseCDF, Distribution, FixedSupport):
    """P(Z <= z) = 1 - (1 - z^a)^b, a = concentration1, b = concentration0, 0 <= z <= 1; z = (1 - (1 -
    u)^(1/b))^(1/a)."""

    concentration1: Numeric
    concentration0: Numeric
    constraints = {"concentration1": positive, "concentration0": positive}
    support = unit_interval  # type: ignore[assignment]

    def transport(self, noise: Value) -> Value:
        return _strictly_inside(self.icdf(noise))

    def log_prob(self, value: Numeric) -> Value:
        a, b = self.concentration1, self.concentration0

        def density(z: Numeric) -> Numeric:
            x = xlogy(a, z)
            end = x == 0
            rest = np.where(end, xlogy(b - 1, 0 * z), (b - 1) * log1mexp(np.where(end, -1, x)))
            return log(a) + log(b) + xlogy(a - 1, z) + rest

        value = real_array(value)
        with np.errstate(divide="ignore"):
            return masked((value < 0) | (value > 1), density, value, 0.5)

    def unresolved(self) -> float:
        """P(1 - Z < eps) = (a eps)^b to first order, for b a node: the score by b has log(1 - Z^a). And P(Z < tiny) =
        1 - (1 - tiny^a)^b: both scores have log Z or Z^a."""
        a, b = doubles(self.concentration1, self.concentration0)
        kind = np.finfo(self.dtype)
        end = -np.expm1(b * np.log1p(-(float(kind.tiny) ** a)))
        if type(self.concentration0) is Node:
            end = np.maximum(end, np.minimum(a * kind.eps, 1) ** b)
        return float(np.max(end, initial=0.0))

    @property
    def mean(self) -> Numeric:
        return in_double(lambda a, b: _power(1 / a, b))(self.concentration1, self.concentration0)

    @property
    def variance(self) -> Numeric:
        """E[z^2] (1 - (E z)^2 / E[z^2]), by E z^k = b B(1 + k/a, b)."""

        def found(a: Numeric, b: Numeric) -> Value:
            h = 1 / a
            return -_power(2 * h, b) * np.expm1(log_gamma_bend(1 + b, h) - log_gamma_bend(1.0, h))

        return in_double(found)(self.concentration1, self.concentration0)

    def entropy(self) -> Numeric:
        a, b = self.concentration1, self.concentration0
        return (1 - 1 / b) + (1 - 1 / a) * (digamma(b + 1) + float(np.euler_gamma)) - log(a) - log(b)

    def cdf(self, value: Numeric) -> Value:
        with np.errstate(divide="ignore"):
            return -np.expm1(self.concentration0 * log1mexp(xlogy(self.concentration1, np.clip(value, 0, 1))))

    def icdf(self, probability: Numeric) -> Value:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(log1mexp(np.log1p(-real_array(probability)) / self.concentration0) / self.concentration1)


@in_double
def _beta_entropy(a: Value, b: Value) -> Value:
    return betaln(a, b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + (a + b - 2) * digamma(a + b)


@in_double
def _beta_divergence(a1: Value, b1: Value, a2: Value, b2: Value) -> Value:
    moved = (a1 - a2) * digamma(a1) + (b1 - b2) * digamma(b1) - (a1 - a2 + b1 - b2) * digamma(a1 + b1)
    return betaln(a2, b2) - betaln(a1, b1) + moved


def _power(t: Numeric, b: Numeric) -> Numeric:
    """E y^t = b B(1 + t, b) of y = z^a, z of the distribution of Kumaraswamy."""
    return b * exp(betaln(1 + t, b))


def _strictly_inside(z: Result) -> Result:
    """Numbers from 0 to 1 moved to the nearest ones strictly between."""
    return within_ends(z, float(np.finfo(z.dtype).tiny), 1 - float(np.finfo(z.dtype).epsneg))
