"""Distributions on the real line that are shifted and stretched: z = loc + scale * x, x of a standard distribution.

Moments that do not exist are NaN, those that are infinite inf.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Operand
from scg.core.ambient import settled
from scg.core.node import Numeric, Value
from scg.distributions.accurate import student_entropy
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.constraints import finite, positive
from scg.distributions.parameterized import same
from scg.distributions.uniform import InverseCDF
from scg.distributions.weak import betaln, log, real_array
from scg.errors import ScgValueError, here
from scg.primitives.student import student_quantile
from scg.special import sigmoid, softplus


class LocationScale(InverseCDF, Distribution, FixedSupport):
    """log p(z) = log p0((z - loc) / scale) - log scale: a subclass says what p0, its CDF and its moments are."""

    constraints = {"loc": finite, "scale": positive}
    support = finite  # type: ignore[assignment]
    loc: Numeric
    scale: Numeric
    moments: ClassVar[tuple[float, float, float]]  # mean, variance and entropy of the standard distribution

    @abstractmethod
    def log_density(self, x: Value) -> Value:
        """log p0(x)."""

    @abstractmethod
    def standard_cdf(self, x: Value) -> Value:
        """The CDF of the standard distribution."""

    @abstractmethod
    def standard_icdf(self, p: Value) -> Value:
        """Its inverse."""

    def log_prob(self, value: Numeric) -> Value:
        return self.log_density((real_array(value) - self.loc) / self.scale) - log(self.scale)

    def cdf(self, value: Numeric) -> Value:
        return self.standard_cdf((real_array(value) - self.loc) / self.scale)

    def icdf(self, probability: Numeric) -> Value:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.loc + self.scale * self.standard_icdf(real_array(probability))

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return self.loc + self.scale * ((value - before.loc) / before.scale)

    @property
    def mean(self) -> Numeric:
        return self._whole(self.loc + self.scale * self.moments[0])

    @property
    def variance(self) -> Numeric:
        return self._whole(self.scale * self.scale * self.moments[1])

    def entropy(self) -> Numeric:
        return self._whole(log(self.scale) + self.moments[2])


@final
@dataclass(frozen=True, eq=False, repr=False)
class Laplace(LocationScale):
    """p(z) = exp(-|x|) / (2 scale), x = (z - loc) / scale. Variance 2 scale^2."""

    loc: Numeric
    scale: Numeric
    moments = (0.0, 2.0, 1 + math.log(2))

    def log_density(self, x: Value) -> Value:
        return -np.absolute(x) - math.log(2)

    def standard_cdf(self, x: Value) -> Value:
        left = x < 0
        tail = 0.5 * np.exp(np.where(left, x, -x))  # not -|x|: its derivative at 0 is 0, and the density there is not
        return np.where(left, tail, 1 - tail)

    def standard_icdf(self, p: Value) -> Value:
        left = p < 0.5
        tail = np.log(2 * np.where(left, p, 1 - p))
        return np.where(left, tail, -tail)

    def kl_to(self, other: Distribution) -> Numeric:
        """log(s2/s1) + |m1 - m2| / s2 + (s1/s2) exp(-|m1 - m2| / s1) - 1."""
        if not isinstance(other, Laplace):
            return NotImplemented
        apart = np.absolute(self.loc - other.loc)
        return (
            log(other.scale)
            - log(self.scale)
            + apart / other.scale
            + self.scale / other.scale * np.exp(-apart / self.scale)
            - 1
        )


@final
@dataclass(frozen=True, eq=False, repr=False)
class Logistic(LocationScale):
    """p(z) = sigmoid(x) sigmoid(-x) / scale, x = (z - loc) / scale. Variance (pi scale)^2 / 3."""

    loc: Numeric
    scale: Numeric
    moments = (0.0, math.pi**2 / 3, 2.0)

    def log_density(self, x: Value) -> Value:
        return -(softplus(x) + softplus(-x))

    def standard_cdf(self, x: Value) -> Value:
        return sigmoid(x)

    def standard_icdf(self, p: Value) -> Value:
        return sp.logit(p)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Gumbel(LocationScale):
    """P(Z <= z) = exp(-exp(-x)), x = (z - loc) / scale: the distribution of the greatest of many. Mean loc + 0.5772...
    scale (Euler's constant), variance (pi scale)^2 / 6."""

    loc: Numeric
    scale: Numeric
    moments = (float(np.euler_gamma), math.pi**2 / 6, 1 + float(np.euler_gamma))

    def log_density(self, x: Value) -> Value:
        with np.errstate(over="ignore"):
            bottom = x == -math.inf
            return np.where(bottom, -math.inf, -x - np.exp(-np.where(bottom, 0, x)))

    def standard_cdf(self, x: Value) -> Value:
        with np.errstate(over="ignore"):
            return np.exp(-np.exp(-x))

    def standard_icdf(self, p: Value) -> Value:
        return -np.log(-np.log(p))

    def kl_to(self, other: Distribution) -> Numeric:
        """log(s2/s1) + g (s1/s2 - 1) + exp((m2 - m1) / s2) Gamma(1 + s1/s2) - 1 + (m1 - m2) / s2, g Euler's
        constant."""
        if not isinstance(other, Gumbel):
            return NotImplemented
        ratio, shift = self.scale / other.scale, (self.loc - other.loc) / other.scale
        return np.euler_gamma * (ratio - 1) - log(ratio) + shift + np.exp(sp.gammaln(1 + ratio) - shift) - 1


@final
@dataclass(frozen=True, eq=False, repr=False)
class Cauchy(LocationScale):
    """p(z) = 1 / (pi scale (1 + x^2)), x = (z - loc) / scale; it has neither mean nor variance."""

    loc: Numeric
    scale: Numeric
    moments = (math.nan, math.nan, math.log(4 * math.pi))

    def log_density(self, x: Value) -> Value:
        return -2 * np.log(np.hypot(1, x)) - math.log(math.pi)

    def standard_cdf(self, x: Value) -> Value:
        return np.arctan2(1, -x) / math.pi

    def standard_icdf(self, p: Value) -> Value:
        left = p < 0.5
        tail = 1 / np.tan(math.pi * np.where(left, p, 1 - p))
        return np.where(left & (p >= 0), -tail, np.where(p <= 1, tail, math.nan))

    def kl_to(self, other: Distribution) -> Numeric:
        """log(((s1 + s2)^2 + (m1 - m2)^2) / (4 s1 s2)) (Chyzak and Nielsen, 2019)."""
        if not isinstance(other, Cauchy):
            return NotImplemented
        apart, stretched = self.loc - other.loc, self.scale - other.scale
        return np.log1p((stretched * stretched + apart * apart) / (4 * self.scale * other.scale))


@final
@dataclass(frozen=True, eq=False, repr=False)
class StudentT(LocationScale):
    """p(z) = (1 + x^2 / df)^(-(df+1)/2) / (scale sqrt(df) B(1/2, df/2)), x = (z - loc) / scale; sampled by the quantile
    function, whose derivative in df is implicit.

    Pathwise derivatives in df are first order only. The mean is NaN for df <= 1, the variance NaN for df <= 1 and inf
    for df <= 2.
    """

    df: Numeric
    loc: Numeric = 0.0
    scale: Numeric = 1.0
    constraints = {"df": positive, "loc": finite, "scale": positive}

    def log_density(self, x: Value) -> Value:
        far = np.absolute(x) > 1e15 * (1 + np.sqrt(self.df))  # there log(1 + x^2 / df) = 2 log|x| - log df
        near, tail = np.where(far, 0, x), np.where(far, np.absolute(x), 1)
        growth = np.where(far, 2 * np.log(tail) - log(self.df), np.log1p(near * near / self.df))
        return -0.5 * (self.df + 1) * growth - 0.5 * log(self.df) - betaln(0.5, 0.5 * self.df)

    def standard_cdf(self, x: Value) -> Value:
        return sp.stdtr(self.df, x)

    def standard_icdf(self, p: Value) -> Value:
        return student_quantile(self.df, p)

    def transport(self, noise: Value) -> Value:
        z = self.icdf(noise)
        if not settled(finite.holds, z):
            raise ScgValueError(
                f"{self!r} has samples that are greater than any number of {self.dtype}: the degrees of freedom are too"
                f" few ({here()})"
            )
        return z

    def coupled(self, before: Operand, value: Numeric) -> Value:
        if same(self.df, before.df):
            return super().coupled(before, value)
        x = (value - before.loc) / before.scale  # by the lower tail, in which no digits are lost
        lower = student_quantile(self.df, sp.stdtr(before.df, -np.absolute(x)))
        return self.loc + self.scale * np.where(x < 0, lower, -lower)

    @property
    def mean(self) -> Numeric:
        return self._whole(np.where(self.df > 1, self.loc, math.nan))

    @property
    def variance(self) -> Numeric:
        exists = self.df > 2
        spread = np.where(exists, self.df / np.where(exists, self.df - 2, 1), math.inf)
        spread = np.where(self.df > 1, spread, math.nan)
        return self._whole(self.scale * self.scale * spread)

    def entropy(self) -> Numeric:
        return self._whole(student_entropy(self.df) + log(self.scale))
