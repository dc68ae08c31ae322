"""The gamma distribution and its kin. Pathwise derivatives in the concentration are implicit, and first order only."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Operand
from scg.core.node import Node, Numeric, Value
from scg.distributions.accurate import in_double
from scg.distributions.base import Distribution, FixedSupport, Shape
from scg.distributions.constraints import nonnegative, positive
from scg.distributions.parameterized import same
from scg.distributions.uniform import InverseCDF
from scg.distributions.weak import (
    digamma,
    doubles,
    gammainc,
    gammaincc,
    gammainccinv,
    gammaincinv,
    gammaln,
    log,
    masked,
    real_array,
    xlogy,
)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Gamma(InverseCDF, Distribution, FixedSupport):
    """log p(z) = (a - 1) log z - b z + a log b - log Gamma(a) for z >= 0, a the concentration, b the rate.

    Reparameterized by its quantile function, whose derivative in a is implicit (Figurnov et al., 2018). Samples that
    underflow are the smallest normal number; where many do (a below 0.008, in float32 0.07), estimators by scores
    refuse it.
    """

    concentration: Numeric
    rate: Numeric
    constraints = {"concentration": positive, "rate": positive}
    support = nonnegative  # type: ignore[assignment]

    def transport(self, noise: Value) -> Value:
        z = self.icdf(noise)
        return np.maximum(z, float(np.finfo(z.dtype).tiny))

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain, dtype = self.detached(), self.dtype
        z = np.asarray(rng.standard_gamma(plain.concentration, self.full_shape(shape)) / plain.rate).astype(
            dtype, copy=False
        )
        return np.maximum(z, np.finfo(dtype).tiny, out=z)

    def unresolved(self) -> float:
        """P(Z < tiny), for a node: the score by a has log Z."""
        if type(self.concentration) is not Node:
            return 0.0
        a, b = doubles(self.concentration, self.rate)
        return float(np.max(sp.gammainc(a, b * np.finfo(self.dtype).tiny), initial=0.0))

    def log_prob(self, value: Numeric) -> Value:
        a, b = self.concentration, self.rate
        value = real_array(value)
        outside = (value < 0) | (value >= math.inf)
        return masked(outside, lambda z: xlogy(a - 1, z) - b * z + (a * log(b) - gammaln(a)), value, 1)

    @property
    def mean(self) -> Numeric:
        return self.concentration / self.rate

    @property
    def variance(self) -> Numeric:
        return self.concentration / (self.rate * self.rate)

    def entropy(self) -> Numeric:
        return in_double(lambda a, b: a - log(b) + gammaln(a) + (1 - a) * digamma(a))(self.concentration, self.rate)

    def cdf(self, value: Numeric) -> Value:
        return gammainc(self.concentration, self.rate * np.maximum(value, 0))

    def icdf(self, probability: Numeric) -> Value:
        return gammaincinv(self.concentration, real_array(probability)) / self.rate

    def coupled(self, before: Operand, value: Numeric) -> Value:
        if same(self.concentration, before.concentration):
            return value * (before.rate / self.rate)
        return super().coupled(before, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """(a1 - a2) digamma(a1) - log Gamma(a1) + log Gamma(a2) + a2 log(b1/b2) + a1 (b2/b1 - 1)."""
        gamma = other if isinstance(other, Gamma) else getattr(other, "gamma", None)
        if not isinstance(gamma, Gamma):
            return NotImplemented
        return _divergence(self.concentration, self.rate, gamma.concentration, gamma.rate)


class OfGamma:
    """What a distribution is that is a gamma distribution under another name."""

    @property
    def gamma(self) -> Gamma:
        """The same distribution."""
        raise NotImplementedError

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self.gamma.sample(rng, shape)

    @property
    def rounds(self) -> bool:
        return type(self.gamma.concentration) is Node

    def unresolved(self) -> float:
        return self.gamma.unresolved()

    def log_prob(self, value: Numeric) -> Value:
        return self.gamma.log_prob(value)

    def entropy(self) -> Numeric:
        return self.gamma.entropy()

    def cdf(self, value: Numeric) -> Value:
        return self.gamma.cdf(value)

    def icdf(self, probability: Numeric) -> Value:
        return self.gamma.icdf(probability)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return self.gamma.coupled(before.gamma, value)

    def kl_to(self, other: Distribution) -> Numeric:
        """That of the gamma distributions."""
        return self.gamma.kl_to(other)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Chi2(OfGamma, InverseCDF, Distribution, FixedSupport):
    """The sum of the squares of df standard normal variables: the gamma distribution of concentration df / 2 and rate
    1/2."""

    df: Numeric
    constraints = {"df": positive}
    support = nonnegative  # type: ignore[assignment]

    @property
    def gamma(self) -> Gamma:
        """The same distribution."""
        return _UNIT.replaced(concentration=0.5 * self.df, rate=0.5)  # type: ignore[no-any-return]

    def transport(self, noise: Value) -> Value:
        return self.gamma.transport(noise)

    @property
    def mean(self) -> Numeric:
        return 1 * self.df

    @property
    def variance(self) -> Numeric:
        return 2 * self.df


@final
@dataclass(frozen=True, eq=False, repr=False)
class InverseGamma(InverseCDF, Distribution, FixedSupport):
    """The distribution of 1 / y, y of the gamma distribution of this concentration a and rate b:

    log p(z) = a log b - log Gamma(a) - (a + 1) log z - b / z for z > 0.

    ``rate`` is a scale of z. Where a is so small (0.008; in float32 0.07) that many samples are greater than any
    number, estimators by scores refuse it. Mean: inf for a <= 1; variance: inf for a <= 2.
    """

    concentration: Numeric
    rate: Numeric
    constraints = {"concentration": positive, "rate": positive}
    support = positive  # type: ignore[assignment]

    @property
    def gamma_of_inverse(self) -> Gamma:
        """The distribution of 1 / z."""
        return _UNIT.replaced(concentration=self.concentration, rate=self.rate)  # type: ignore[no-any-return]

    def transport(self, noise: Value) -> Value:
        return self.icdf(noise)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return 1 / self.gamma_of_inverse.sample(rng, shape)

    def unresolved(self) -> float:
        return self.gamma_of_inverse.unresolved()

    def log_prob(self, value: Numeric) -> Value:
        a, b = self.concentration, self.rate
        value = real_array(value)
        outside = (value <= 0) | (value >= math.inf)
        return masked(outside, lambda z: a * log(b) - gammaln(a) - (a + 1) * np.log(z) - b / z, value, 1)

    @property
    def mean(self) -> Numeric:
        exists = self.concentration > 1
        return self._whole(np.where(exists, self.rate / np.where(exists, self.concentration - 1, 1), math.inf))

    @property
    def variance(self) -> Numeric:
        exists = self.concentration > 2
        a = np.where(exists, self.concentration, 3)
        return self._whole(np.where(exists, self.rate**2 / ((a - 1) ** 2 * (a - 2)), math.inf))

    def entropy(self) -> Numeric:
        return in_double(lambda a, b: a + log(b) + gammaln(a) - (1 + a) * digamma(a))(self.concentration, self.rate)

    def cdf(self, value: Numeric) -> Value:
        value = real_array(value)
        return np.where(value <= 0, 0, gammaincc(self.concentration, self.rate / np.where(value <= 0, 1, value)))

    def icdf(self, probability: Numeric) -> Value:
        with np.errstate(divide="ignore"):
            return self.rate / gammainccinv(self.concentration, real_array(probability))

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return 1 / self.gamma_of_inverse.coupled(before.gamma_of_inverse, 1 / real_array(value))

    def kl_to(self, other: Distribution) -> Numeric:
        """That of the gamma distributions of 1 / z."""
        return (
            self.gamma_of_inverse.kl_to(other.gamma_of_inverse) if isinstance(other, InverseGamma) else NotImplemented
        )


@in_double
def _divergence(a1: Value, b1: Value, a2: Value, b2: Value) -> Value:
    ratio = b2 / b1
    return (a1 - a2) * digamma(a1) - gammaln(a1) + gammaln(a2) - a2 * log(ratio) + a1 * (ratio - 1)


_UNIT = Gamma(1.0, 1.0)
