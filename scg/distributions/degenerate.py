"""The two ends of the scale: all mass at one point, and none anywhere."""

import math
from dataclasses import dataclass
from typing import NoReturn, final

import numpy as np

from scg.core.node import Numeric, Value
from scg.distributions.base import Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.constraints import Constraint, Interval, Vector, finite, real
from scg.distributions.entry import sample_shape
from scg.distributions.uniform import UNIT
from scg.distributions.weak import real_array
from scg.errors import ScgValueError, here


@final
@dataclass(frozen=True, eq=False, repr=False)
class Delta(Reparameterizable, Distribution):
    """z = loc. By the measure of its own point, log p(loc) = 0 and log p(z) = -inf elsewhere; entropy 0; KL(Delta || q)
    = -log q(loc)."""

    loc: Numeric
    constraints = {"loc": finite}

    @property
    def support(self) -> Constraint:
        return Interval(self.loc, self.loc)

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return self.loc + 0 * noise

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        at = np.where(value != value, math.nan, 0.0 * np.zeros_like(self.loc))
        return np.where((value < self.loc) | (value > self.loc), -math.inf, at)

    @property
    def mean(self) -> Numeric:
        return self.loc

    @property
    def variance(self) -> Numeric:
        return 0 * self.loc

    def entropy(self) -> Numeric:
        return 0 * self.loc

    def cdf(self, value: Numeric) -> Value:
        return np.where(real_array(value) >= self.loc, 1.0, 0.0)

    def icdf(self, probability: Numeric) -> Value:
        return self.transport(real_array(probability))

    def kl_to(self, other: Distribution) -> Numeric:
        """-log q(loc)."""
        return -other.log_prob(self.loc)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Flat(Distribution, FixedSupport):
    """The improper prior p(z) = 1: log p(z) = 0 for every z of ``event_shape``. It cannot be drawn from; KL(p || Flat)
    = -entropy of p."""

    shape: Shape = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", sample_shape(self.shape, "Flat"))
        super().__post_init__()

    @property
    def event_shape(self) -> Shape:
        return self.shape

    @property
    def support(self) -> Constraint:
        return Vector(real) if self.event_shape else real

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> NoReturn:
        raise ScgValueError(
            f"Flat is improper: there is nothing to draw from; use it as the prior of something else ({here()})"
        )

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        found = 0 * value
        axes = tuple(range(value.ndim - len(self.event_shape), value.ndim))
        return np.sum(found, axis=axes) if axes else found

    def kl_from(self, other: Distribution) -> Numeric:
        """-H(p)."""
        return -other.entropy()
