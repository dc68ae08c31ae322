"""The uniform distribution, the noise of every inverse CDF, and the road by which it becomes a sample."""

from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Operand, Result
from scg.core.node import Numeric, Value
from scg.distributions.base import Distribution, Reparameterizable, Shape
from scg.distributions.constraints import Constraint, Interval, finite
from scg.distributions.weak import log, masked, real_array


class InverseCDF(Reparameterizable):
    """Reparameterized by z = icdf(u), u uniform on (0, 1): a sample is the quantile at u, whose derivative at fixed u
    is the pathwise one."""

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, self.full_shape(shape)  # type: ignore[attr-defined]

    def transport(self, noise: Value) -> Value:
        return self.icdf(noise)  # type: ignore[attr-defined]

    def coupled(self, before: Operand, value: Numeric) -> Result:
        """The same noise, u = F(z)."""
        u = before.cdf(value)
        eps = float(np.finfo(u.dtype).epsneg)
        return self.transport(np.clip(u, 0.5 * eps, 1 - eps))


class BetweenEnds(Distribution):
    """A distribution of numbers from ``low`` to ``high``, which are parameters."""

    low: Numeric
    high: Numeric

    def _tied(self) -> None:
        plain = self.detached()
        good = np.all(plain.low < plain.high)
        # to write the ends takes longer than all else that a plan does for a sample
        given = "" if good else f", got low={self.low!r}, high={self.high!r}"
        self._require(good, f"high must be greater than low{given}")

    @property
    def support(self) -> Constraint:
        return Interval(self.low, self.high)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Uniform(Reparameterizable, BetweenEnds):
    """log p(z) = -log(high - low) for low <= z <= high; z = low + (high - low) u. Its support moves with its
    parameters: no score function.

    Samples lie strictly between the ends of the interval (but for rounding where it is short).
    """

    low: Numeric = 0.0
    high: Numeric = 1.0
    constraints = {"low": finite, "high": finite}

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return self.low + (self.high - self.low) * noise

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self.sample_as(rng, (shape,) if isinstance(shape, (int, np.integer)) else shape, self.dtype)

    def sample_as(self, rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> np.ndarray:
        native = np.float32 if dtype == np.float32 else np.float64
        u = np.asarray(rng.random(self.full_shape(shape), dtype=native)).astype(dtype, copy=False)
        eps = float(np.finfo(dtype).epsneg)
        if u.size and (np.min(u) < 0.5 * eps or dtype != native):  # else it is at most 1 - eps: no pass for that
            u = np.clip(u, 0.5 * eps, 1 - eps)
        return u if self is UNIT else np.asarray(self.detached().transport(u)).astype(dtype, copy=False)

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        outside = (value < self.low) | (value > self.high)
        return masked(outside, lambda z: 0 * z - log(self.high - self.low), value, 0.0)

    @property
    def mean(self) -> Numeric:
        return 0.5 * (self.low + self.high)

    @property
    def variance(self) -> Numeric:
        return (self.high - self.low) ** 2 / 12

    def entropy(self) -> Numeric:
        return log(self.high - self.low)

    def cdf(self, value: Numeric) -> Value:
        return np.clip((value - self.low) / (self.high - self.low), 0, 1)

    def icdf(self, probability: Numeric) -> Value:
        p = real_array(probability)
        return np.where((p >= 0) & (p <= 1), self.transport(p), np.nan)

    def kl_to(self, other: Distribution) -> Numeric:
        """log of the ratio of lengths where this interval lies in the other; else infinite."""
        if not isinstance(other, Uniform):
            return NotImplemented
        inside = (self.low >= other.low) & (self.high <= other.high)  # type: ignore[operator]
        return np.where(inside, log(other.high - other.low) - log(self.high - self.low), np.inf)


UNIT = Uniform(0.0, 1.0)


def is_of_noise(distribution: Distribution) -> bool:
    """Whether samples of a distribution are a function of noise, smooth in its parameters or not."""
    return distribution.has(Reparameterizable) or distribution.inverts_cdf()


def noise_of(distribution: Distribution, shape: Shape = ()) -> tuple[Distribution, Shape]:
    """The noise of any distribution that ``is_of_noise``: its own, or the uniform one at which its CDF is
    inverted."""
    return (
        distribution.noise(shape)
        if isinstance(distribution, Reparameterizable)
        else (UNIT, distribution.full_shape(shape))
    )


def transported(distribution: Distribution, noise: Value) -> Value:
    """The sample of such a distribution for given noise."""
    return distribution.transport(noise) if isinstance(distribution, Reparameterizable) else distribution.icdf(noise)
