"""Distributions on the positive numbers. Densities at 0 and moments that do not exist are inf, as in SciPy."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Operand
from scg.core.node import Numeric, Value
from scg.core.options import is_integer
from scg.distributions.accurate import in_double, log_gamma_bend
from scg.distributions.base import Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.constraints import Constraint, Interval, nonnegative, positive
from scg.distributions.gamma import Gamma, OfGamma
from scg.distributions.uniform import UNIT, InverseCDF
from scg.distributions.weak import doubles, exp, gammaln, log, masked, real_array, xlogy
from scg.errors import ScgValueError, here

EULER = float(np.euler_gamma)


class _Positive(InverseCDF, Distribution, FixedSupport):
    """A subclass has the density, CDF and quantile for z >= 0."""

    support = nonnegative  # type: ignore[assignment]

    def log_density(self, z: Value) -> Value:
        """log p(z) for z >= 0."""
        raise NotImplementedError

    def spent(self, z: Value) -> Value:
        """x = -log P(Z > z) for z >= 0, the exponential variable that z is made of."""
        raise NotImplementedError

    def waiting(self, x: Value) -> Value:
        """Its inverse, the quantile at p = 1 - exp(-x)."""
        raise NotImplementedError

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        with np.errstate(divide="ignore", over="ignore"):
            return masked((value < 0) | (value >= math.inf), self.log_density, value, 1)

    def cdf(self, value: Numeric) -> Value:
        with np.errstate(over="ignore"):
            return -np.expm1(-self.spent(np.maximum(value, 0)))

    def icdf(self, probability: Numeric) -> Value:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.waiting(-np.log1p(-real_array(probability)))

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        """What waits for an exponential variable, which the generator has without a logarithm."""
        plain, dtype = self.detached(), self.dtype
        native, eps = np.float32 if dtype == np.float32 else np.float64, float(np.finfo(dtype).epsneg)
        x = np.asarray(rng.standard_exponential(self.full_shape(shape), native))
        if x.size and x.min() < 0.5 * eps:  # at an end there may be no density
            x = np.maximum(x, native(0.5 * eps))
        return np.asarray(plain.waiting(x)).astype(dtype, copy=False)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return self.waiting(before.spent(value))


@final
@dataclass(frozen=True, eq=False, repr=False)
class Exponential(_Positive):
    """p(z) = rate exp(-rate z)."""

    rate: Numeric
    constraints = {"rate": positive}

    def log_density(self, z: Value) -> Value:
        return log(self.rate) - self.rate * z

    def spent(self, z: Value) -> Value:
        return self.rate * z

    def waiting(self, x: Value) -> Value:
        return x / self.rate

    @property
    def mean(self) -> Numeric:
        return 1 / self.rate

    @property
    def variance(self) -> Numeric:
        return 1 / (self.rate * self.rate)

    def entropy(self) -> Numeric:
        return 1 - log(self.rate)

    @property
    def gamma(self) -> Gamma:
        """The same distribution."""
        return Gamma(1.0, self.rate)

    def kl_to(self, other: Distribution) -> Numeric:
        """log(r1/r2) + r2/r1 - 1."""
        if not isinstance(other, Exponential):
            return self.gamma.kl_to(other)
        return log(self.rate) - log(other.rate) + other.rate / self.rate - 1


@final
@dataclass(frozen=True, eq=False, repr=False)
class Gompertz(_Positive):
    """P(Z > z) = exp(-eta (exp(theta z) - 1)): ages at death; z = ln(1 - ln(1 - u) / eta) / theta. Its variance has no
    closed form."""

    eta: Numeric
    theta: Numeric
    constraints = {"eta": positive, "theta": positive}

    def log_density(self, z: Value) -> Value:
        x = self.theta * z
        return log(self.eta) + log(self.theta) + x - self.eta * np.expm1(x)

    def spent(self, z: Value) -> Value:
        return self.eta * np.expm1(self.theta * z)

    def waiting(self, x: Value) -> Value:
        return np.log1p(x / self.eta) / self.theta

    def _mean(self) -> Numeric:
        """E[theta z] = exp(eta) E1(eta); for large eta by its asymptotic series."""

        def scaled(eta: Numeric) -> Value:
            large = eta > 300  # no maximum and minimum of the two: at a tie each would have half of the derivative
            small, t = np.where(large, 1, eta), 1 / np.where(large, eta, 300)
            series = t * (
                1 - t * (1 - 2 * t * (1 - 3 * t * (1 - 4 * t * (1 - 5 * t * (1 - 6 * t * (1 - 7 * t * (1 - 8 * t)))))))
            )
            return np.where(large, series, np.exp(small) * sp.exp1(small))

        return in_double(scaled)(self.eta)

    @property
    def mean(self) -> Numeric:
        return self._mean() / self.theta

    def entropy(self) -> Numeric:
        return 1 - log(self.eta) - log(self.theta) - self._mean()


@final
@dataclass(frozen=True, eq=False, repr=False)
class Weibull(_Positive):
    """P(Z > z) = exp(-(z / scale)^concentration); z = scale (-ln(1 - u))^(1 / concentration).

    Samples that underflow are the smallest normal number. Where many do, or are greater than any number (a
    concentration of 0.008, in float32 of 0.07, for a scale of 1), estimators by scores refuse it.
    """

    scale: Numeric
    concentration: Numeric
    constraints = {"scale": positive, "concentration": positive}

    def unresolved(self) -> float:
        """P(Z < tiny) and P(Z > the greatest number)."""
        scale, k = doubles(self.scale, self.concentration)
        kind = np.finfo(self.dtype)
        low, high = [np.exp(np.minimum(k * (np.log(float(x)) - np.log(scale)), 700)) for x in (kind.tiny, kind.max)]
        return float(np.max(np.maximum(-np.expm1(-low), np.exp(-high)), initial=0.0))

    def transport(self, noise: Value) -> Value:
        z = self.icdf(noise)
        return np.maximum(z, float(np.finfo(z.dtype).tiny))

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        z = super().sample(rng, shape)
        return np.maximum(z, np.finfo(z.dtype).tiny)

    def log_density(self, z: Value) -> Value:
        x = z / self.scale
        return log(self.concentration) - log(self.scale) + xlogy(self.concentration - 1, x) - x**self.concentration

    def spent(self, z: Value) -> Value:
        return (z / self.scale) ** self.concentration

    def waiting(self, x: Value) -> Value:
        return self.scale * x ** (1 / self.concentration)

    @property
    def mean(self) -> Numeric:
        return self.scale * exp(gammaln(1 + 1 / self.concentration))

    @property
    def variance(self) -> Numeric:
        """E[z^2] (1 - (E z)^2 / E[z^2])."""

        def relative(k: Numeric) -> Value:
            return -exp(gammaln(1 + 2 / k)) * np.expm1(-log_gamma_bend(1.0, 1 / k))

        return self.scale * self.scale * in_double(relative)(self.concentration)

    def entropy(self) -> Numeric:
        return EULER * (1 - 1 / self.concentration) + log(self.scale) - log(self.concentration) + 1

    def kl_to(self, other: Distribution) -> Numeric:
        """log(k1/k2) - (k1 - k2) g / k1 + k2 log(l2/l1) + (l1/l2)^k2 Gamma(1 + k2/k1) - 1, g Euler's constant
        (Bauckhage, 2013)."""
        if not isinstance(other, Weibull):
            return NotImplemented
        ratio = other.concentration / self.concentration
        shift = other.concentration * (log(self.scale) - log(other.scale))
        return EULER * (ratio - 1) - log(ratio) - shift + exp(gammaln(1 + ratio) + shift) - 1


@final
@dataclass(frozen=True, eq=False, repr=False)
class Erlang(OfGamma, Reparameterizable, Distribution, FixedSupport):
    """The sum of n exponential variables of one rate: the gamma distribution of whole concentration n, reparameterized
    as what it is,

        z = -sum_{i=1}^n ln(1 - u_i) / rate,

    so that pathwise derivatives are cheap, and of any order. The noise has a last axis of n.
    """

    n: int
    rate: Numeric
    constraints = {"rate": positive}
    support = nonnegative  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not is_integer(self.n, 1):
            raise ScgValueError(f"Erlang: n must be a positive integer, got {self.n!r} ({here()})")
        super().__post_init__()

    @property
    def gamma(self) -> Gamma:
        """The same distribution."""
        return Gamma(float(self.n), 1.0).replaced(rate=self.rate)  # type: ignore[no-any-return]

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, (*self.full_shape(shape), int(self.n))

    def transport(self, noise: Value) -> Value:
        return -np.sum(np.log1p(-noise), axis=-1) / self.rate

    @property
    def mean(self) -> Numeric:
        return self.gamma.mean

    @property
    def variance(self) -> Numeric:
        return self.gamma.variance


@final
@dataclass(frozen=True, eq=False, repr=False)
class Pareto(InverseCDF, Distribution, FixedSupport):
    """P(Z > z) = (scale / z)^alpha for z >= scale; z = scale (1 - u)^(-1 / alpha). Estimators by scores refuse it where
    many samples are greater than any number (alpha below 0.008, in float32 0.07).

    ``scale`` moves its support: no score function where it is a Node.
    """

    scale: Numeric
    alpha: Numeric
    constraints = {"scale": positive, "alpha": positive}
    moving = ("scale",)

    @property
    def support(self) -> Constraint:
        return Interval(self.scale, np.inf, "left")

    def unresolved(self) -> float:
        """P(Z > the greatest number)."""
        scale, alpha = doubles(self.scale, self.alpha)
        apart = np.log(scale) - np.log(float(np.finfo(self.dtype).max))
        return float(np.max(np.exp(np.minimum(alpha * apart, 0)), initial=0.0))

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        outside = (value < self.scale) | (value >= math.inf)
        inside = np.where(outside, self.scale, value)
        return np.where(
            outside, -math.inf, log(self.alpha) - np.log(inside) - self.alpha * (np.log(inside) - log(self.scale))
        )

    def cdf(self, value: Numeric) -> Value:
        return -np.expm1(-self.alpha * np.log1p(np.maximum(real_array(value) - self.scale, 0) / self.scale))

    def icdf(self, probability: Numeric) -> Value:
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.scale * np.exp(-np.log1p(-real_array(probability)) / self.alpha)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return self.scale * (value / before.scale) ** (before.alpha / self.alpha)

    @property
    def mean(self) -> Numeric:
        exists = self.alpha > 1
        return self._whole(np.where(exists, self.scale * self.alpha / np.where(exists, self.alpha - 1, 1), math.inf))

    @property
    def variance(self) -> Numeric:
        exists = self.alpha > 2
        a = np.where(exists, self.alpha, 3)
        return self._whole(np.where(exists, self.scale**2 * a / ((a - 1) ** 2 * (a - 2)), math.inf))

    def entropy(self) -> Numeric:
        return log(self.scale) - log(self.alpha) + 1 / self.alpha + 1

    def kl_to(self, other: Distribution) -> Numeric:
        """log(a1/a2) + a2 log(s1/s2) + a2/a1 - 1 where s1 >= s2; else infinite."""
        if not isinstance(other, Pareto):
            return NotImplemented
        ratio = other.alpha / self.alpha
        return np.where(
            self.scale >= other.scale,
            other.alpha * (log(self.scale) - log(other.scale)) - log(ratio) + ratio - 1,
            math.inf,
        )
