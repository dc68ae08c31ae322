"""Distributions that are a function of a normal variable."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Operand
from scg.core.node import Numeric, Value
from scg.distributions.base import Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.bijections import Sigmoid
from scg.distributions.constraints import finite, nonnegative, open_unit_interval, positive
from scg.distributions.image import imaged, preimage
from scg.distributions.normal import LOG_2PI, STANDARD, Normal
from scg.distributions.weak import doubles, exp, log, masked, real_array
from scg.special import sigmoid

SIGMOID = Sigmoid()


class _OfNormal(Reparameterizable, Distribution, FixedSupport):
    """Noise is standard normal."""

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return STANDARD, self.full_shape(shape)


@final
@dataclass(frozen=True, eq=False, repr=False)
class LogNormal(_OfNormal):
    """z = exp(x), x ~ N(loc, scale^2): log p(z) = log N(log z; loc, scale^2) - log z for z > 0.

    Where many samples are less or greater than any number (of a scale of 260, in float32 of 32), estimators by scores
    refuse it.
    """

    loc: Numeric
    scale: Numeric
    constraints = {"loc": finite, "scale": positive}
    support = positive  # type: ignore[assignment]

    @property
    def normal(self) -> Normal:
        """The distribution of log z."""
        return _normal(self.loc, self.scale)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return np.exp(self.normal.coupled(before.normal, np.log(value)))

    def transport(self, noise: Value) -> Value:
        return np.exp(self.loc + self.scale * noise)

    def unresolved(self) -> float:
        """P(Z < tiny) and P(Z > the greatest number)."""
        loc, scale = doubles(self.loc, self.scale)
        kind = np.finfo(self.dtype)
        ends = np.log(float(kind.tiny)) - loc, loc - np.log(float(kind.max))
        return max([float(np.max(sp.ndtr(end / scale), initial=0.0)) for end in ends])

    def log_prob(self, value: Numeric) -> Value:
        def density(z: Numeric) -> Numeric:
            x = np.log(z)
            return self.normal.log_prob(x) - x

        value = real_array(value)
        return masked((value <= 0) | (value >= math.inf), density, value, 1)

    @property
    def mean(self) -> Numeric:
        return self._whole(exp(self.loc + 0.5 * self.scale * self.scale))

    @property
    def variance(self) -> Numeric:
        square = self.scale * self.scale
        return self._whole(np.expm1(square) * exp(2 * self.loc + square))

    def entropy(self) -> Numeric:
        return self.loc + self.normal.entropy()

    def cdf(self, value: Numeric) -> Value:
        value = real_array(value)
        return np.where(value <= 0, 0, self.normal.cdf(np.log(np.where(value <= 0, 1, value))))

    def icdf(self, probability: Numeric) -> Value:
        return np.exp(self.normal.icdf(probability))

    def kl_to(self, other: Distribution) -> Numeric:
        """That of the normal distributions."""
        return self.normal.kl_to(other.normal) if isinstance(other, LogNormal) else NotImplemented


@final
@dataclass(frozen=True, eq=False, repr=False)
class LogitNormal(_OfNormal):
    """z = sigmoid(x), x ~ N(loc, scale^2): log p(z) = log N(logit z; loc, scale^2) - log z - log(1 - z) for 0 < z < 1.

    Its mean and variance have no closed form. Samples lie strictly inside, and those by a path know their x
    (``scg.distributions.image``).
    """

    loc: Numeric
    scale: Numeric
    constraints = {"loc": finite, "scale": positive}
    support = open_unit_interval  # type: ignore[assignment]

    @property
    def normal(self) -> Normal:
        """The distribution of logit z."""
        return _normal(self.loc, self.scale)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return imaged(SIGMOID, self.normal.coupled(before.normal, preimage(SIGMOID, real_array(value))))

    def transport(self, noise: Value) -> Value:
        return imaged(SIGMOID, self.loc + self.scale * noise)

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        x = preimage(SIGMOID, value)
        return np.where((value <= 0) | (value >= 1), -math.inf, self.normal.log_prob(x) - SIGMOID.log_det(x))

    def cdf(self, value: Numeric) -> Value:
        value = real_array(value)
        below, above = value <= 0, value >= 1
        return np.where(below, 0, np.where(above, 1, self.normal.cdf(sp.logit(np.where(below | above, 0.5, value)))))

    def icdf(self, probability: Numeric) -> Value:
        return sigmoid(self.normal.icdf(probability))

    def kl_to(self, other: Distribution) -> Numeric:
        """That of the normal distributions."""
        return self.normal.kl_to(other.normal) if isinstance(other, LogitNormal) else NotImplemented


@final
@dataclass(frozen=True, eq=False, repr=False)
class HalfNormal(_OfNormal):
    """z = scale |e|, e standard normal: p(z) = sqrt(2 / pi) / scale exp(-(z / scale)^2 / 2) for z >= 0."""

    scale: Numeric
    constraints = {"scale": positive}
    support = nonnegative  # type: ignore[assignment]

    def transport(self, noise: Value) -> Value:
        return self.scale * np.absolute(noise)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return self.scale * (value / before.scale)

    def log_prob(self, value: Numeric) -> Value:
        def density(z: Numeric) -> Numeric:
            x = z / self.scale
            return -0.5 * (x * x) - log(self.scale) + 0.5 * math.log(2 / math.pi)

        value = real_array(value)
        return masked(value < 0, density, value, 0)

    @property
    def mean(self) -> Numeric:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Numeric:
        return self.scale * self.scale * (1 - 2 / math.pi)

    def entropy(self) -> Numeric:
        return log(self.scale) + 0.5 * (1 + LOG_2PI) - math.log(2)

    def cdf(self, value: Numeric) -> Value:
        return sp.erf(np.maximum(value, 0) / (self.scale * math.sqrt(2)))

    def icdf(self, probability: Numeric) -> Value:
        return self.scale * (sp.erfinv(real_array(probability)) * math.sqrt(2))

    def kl_to(self, other: Distribution) -> Numeric:
        """log(s2/s1) + (s1/s2)^2 / 2 - 1/2."""
        if not isinstance(other, HalfNormal):
            return NotImplemented
        ratio = self.scale / other.scale
        return 0.5 * (ratio * ratio - 1) - log(ratio)


def _normal(loc: Numeric, scale: Numeric) -> Normal:
    return STANDARD.replaced(loc=loc, scale=scale)  # type: ignore[no-any-return]
