"""The normal distribution."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.special

from scg.core.aliases import Operand
from scg.core.node import Numeric, Value
from scg.distributions.base import Discrete, Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.constraints import finite, positive
from scg.distributions.weak import log, real_array
from scg.errors import ScgValueError

LOG_2PI = math.log(2 * math.pi)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Normal(Reparameterizable, Distribution, FixedSupport):
    """log p(z) = -((z - loc) / scale)^2 / 2 - log scale - log(2 pi) / 2; reparameterized by z = loc + scale * noise."""

    loc: Numeric
    scale: Numeric
    constraints = {"loc": finite, "scale": positive}
    support = finite  # type: ignore[assignment]

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return STANDARD, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return self.loc + self.scale * noise

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        return self.sample_as(rng, (shape,) if isinstance(shape, (int, np.integer)) else shape, self.dtype)

    def sample_as(self, rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> np.ndarray:
        native = np.float32 if dtype == np.float32 else np.float64
        noise = np.asarray(rng.standard_normal(self.full_shape(shape), dtype=native)).astype(dtype, copy=False)
        return noise if self is STANDARD else np.asarray(self.detached().transport(noise)).astype(dtype, copy=False)

    def sample_into(self, rng: np.random.Generator, shape: Shape, out: np.ndarray) -> None:
        if self is STANDARD and out.dtype in (np.float32, np.float64):  # the same numbers, without a copy
            rng.standard_normal(dtype=out.dtype, out=out)
        else:
            super().sample_into(rng, shape, out)

    def log_prob(self, value: Numeric) -> Value:
        z = (real_array(value) - self.loc) / self.scale
        return -0.5 * (z * z) - (log(self.scale) + 0.5 * LOG_2PI)

    @property
    def mean(self) -> Numeric:
        return self._whole(self.loc)

    @property
    def variance(self) -> Numeric:
        return self._whole(self.scale * self.scale)

    def entropy(self) -> Numeric:
        return self._whole(log(self.scale) + 0.5 * (1 + LOG_2PI))

    def cdf(self, value: Numeric) -> Value:
        return scipy.special.ndtr((value - self.loc) / self.scale)

    def icdf(self, probability: Numeric) -> Value:
        return self.loc + self.scale * scipy.special.ndtri(probability)

    def coupled(self, before: Operand, value: Numeric) -> Value:
        return self.transport((value - before.loc) / before.scale)

    def kl_to(self, other: Distribution) -> Numeric:
        """log(s2/s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2."""
        if not isinstance(other, Normal):
            return NotImplemented
        ratio, shift = self.scale / other.scale, (self.loc - other.loc) / other.scale
        return 0.5 * (ratio * ratio + shift * shift - 1) - log(ratio)

    def kl_from(self, other: Distribution) -> Numeric:
        """log(s sqrt(2 pi)) + (Var[z] + (E[z] - m)^2) / (2 s^2) - H(p), of any density p on the line whose moments and
        entropy are known; infinite where Var[z] is, or E[z] does not exist."""
        if other.event_shape or other.has(Discrete):
            return NotImplemented
        try:
            variance, mean, entropy = other.variance, other.mean, other.entropy()
        except ScgValueError:  # no closed form
            return NotImplemented
        z = (mean - self.loc) / self.scale
        second = variance / (self.scale * self.scale) + z * z
        return 0.5 * (np.where(np.isnan(second), np.inf, second) + LOG_2PI) + log(self.scale) - entropy


STANDARD = Normal(0.0, 1.0)
