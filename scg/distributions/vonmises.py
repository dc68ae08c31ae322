"""Angles: the distribution of von Mises, on one turn that is centred at its mean or fixed."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Numeric, Value
from scg.core.options import is_number
from scg.distributions.accurate import bessel_deficit, i0e, in_double
from scg.distributions.base import Distribution, FixedSupport, Reparameterizable, Shape
from scg.distributions.constraints import (
    Circle,
    Constraint,
    finite,
    positive,
)
from scg.distributions.implicit import quantile
from scg.distributions.normal import LOG_2PI
from scg.distributions.uniform import UNIT
from scg.distributions.weak import log, real_array, weak
from scg.errors import ScgTypeError, here
from scg.primitives.layout import stop_gradient
from scg.special import vonmises_cdf

sin = weak(np.sin)
_log_i0e = in_double(lambda k: log(i0e(k)))  # its derivative cancels to -1 / 2k, which is 5e-9 for k = 1e8
TURN = 2 * math.pi


@final
@dataclass(frozen=True, eq=False, repr=False)
class VonMises(Reparameterizable, Distribution, FixedSupport):
    """log p(z) = k cos(z - loc) - log(2 pi I0(k)), k the concentration: the density of an angle, in radians, the same a
    turn later.

    ``low`` says on which turn samples lie; ``cdf``, ``icdf``, ``mean`` and ``variance`` are those of the samples.

    ``None``    from loc - pi to loc + pi. The turn moves with ``loc``, dz/dloc = 1, E[z] = loc: pathwise only, no score
                function where ``loc`` is a Node. For a cost f that is no function of the angle the score alone would
                leave out (f(loc + pi) - f(loc - pi)) p(loc + pi).
    a number    from ``low`` to ``low`` + 2 pi, whatever ``loc`` is (PyTorch, TFP and SciPy draw with ``low=-np.pi``).
                The support is fixed, so that score functions are right for every cost. Pathwise, z moves as the
                quantile that is counted from ``low``,

                    dz/dloc = 1 - p(low) / p(z),

                which no sample carries over the cut: right for every cost too, of small variance where there is little
                density at ``low``.

    Pathwise derivatives are implicit, and first order only in the concentration. ``circular_variance`` is 1 - I1(k) /
    I0(k).
    """

    loc: Numeric
    concentration: Numeric
    low: float | None = None
    constraints = {"loc": finite, "concentration": positive}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is not None:
            if not is_number(self.low):
                raise ScgTypeError(
                    f"VonMises: low must be a finite number, where the turn of the samples begins, got {self.low!r}"
                    f" ({here()})"
                )
            object.__setattr__(self, "low", float(self.low))

    @property
    def moving(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("loc",) if self.low is None else ()

    def way_out(self, capability: type) -> str:
        return (
            "VonMises(loc, concentration, low=-np.pi), whose samples stay on one turn"
            if capability is FixedSupport
            else ""
        )

    @property
    def support(self) -> Constraint:
        if self.low is not None:
            return Circle(self.low, self.low + TURN)
        loc = self.detached().loc
        return Circle(loc - math.pi, loc + math.pi)

    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        return UNIT, self.full_shape(shape)

    def transport(self, noise: Value) -> Value:
        return self.icdf(noise)

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain = self.detached()
        z = plain.loc + rng.vonmises(0, plain.concentration, self.full_shape(shape))
        z = z if self.low is None else self.low + np.mod(z - self.low, TURN)
        return np.asarray(z).astype(self.dtype, copy=False)

    def log_prob(self, value: Numeric) -> Value:
        half = np.sin(0.5 * (real_array(value) - self.loc))
        return -2 * self.concentration * (half * half) - LOG_2PI - _log_i0e(self.concentration)

    def _integral(self, power: int, start: Numeric) -> Value:
        """The integral of x^power p(loc + x) from ``start`` >= 0 to pi."""
        k = np.asarray(self.concentration) if type(self.concentration) is float else self.concentration
        bend = sin(0.5 * start)
        # where the density has fallen by exp(-42), or pi
        end = stop_gradient(2 * np.arcsin(np.sqrt(np.minimum(1, bend * bend + 21 / k))))
        total = 0.0
        for node, weight in zip(*np.polynomial.legendre.leggauss(60), strict=True):
            x = start + 0.5 * (1 + float(node)) * (end - start)
            half = np.sin(0.5 * x)
            total = total + float(weight) * x**power * np.exp(-2 * k * (half * half))
        return total * (end - start) / (4 * math.pi * i0e(k))

    def _cut(self) -> tuple[Value, Value, Value]:
        """The mode m on the turn of the samples, and how far the cut is above and below it, at most pi."""
        mode = self.loc - TURN * np.floor((self.loc - self.low) / TURN)  # type: ignore[operator]
        mode = np.asarray(mode) if type(mode) is float else mode
        low: Result = self.low
        return mode, np.minimum(low + TURN - mode, math.pi), np.minimum(mode - low, math.pi)

    @property
    def mean(self) -> Numeric:
        """loc; on a fixed turn m + 2 pi (P(x < low - m) - P(x > low + 2 pi - m)), x the angle from m."""
        if self.low is None:
            return self._whole(self.loc)
        mode, above, below = self._cut()
        return self._whole(
            mode + TURN * (vonmises_cdf(-below, self.concentration) - vonmises_cdf(-above, self.concentration))
        )

    @property
    def variance(self) -> Numeric:
        """E[x^2]; on a fixed turn, where z - m is x, but x - 2 pi where x is beyond the cut above, and x + 2 pi below,
        E[(z - m)^2] - (E[z] - m)^2."""
        square = 2 * self._integral(2, 0.0)
        if self.low is None:
            return self._whole(square)
        mode, above, below = self._cut()
        for cut in (above, below):
            square = square + TURN * TURN * vonmises_cdf(-cut, self.concentration) - 2 * TURN * self._integral(1, cut)
        apart = self.mean - mode
        return self._whole(square - apart * apart)

    @property
    def circular_variance(self) -> Numeric:
        """1 - E cos(z - loc)."""
        return self._whole(bessel_deficit(self.concentration))

    def entropy(self) -> Numeric:
        return self._whole(in_double(lambda k: LOG_2PI + log(i0e(k)) + k * bessel_deficit(k))(self.concentration))

    def cdf(self, value: Numeric) -> Value:
        if self.low is None:
            return vonmises_cdf(np.clip(value - self.loc, -math.pi, math.pi), self.concentration)
        value = np.clip(value, self.low, self.low + TURN)
        return vonmises_cdf(value - self.loc, self.concentration) - vonmises_cdf(
            self.low - self.loc, self.concentration
        )

    def icdf(self, probability: Numeric) -> Value:
        return (
            quantile(self, probability)
            if self.low is not None
            else self.loc + quantile(self.replaced(loc=0.0), probability)
        )

    def kl_to(self, other: Distribution) -> Numeric:
        """log(I0(k2) / I0(k1)) + (k1 - k2 cos(m1 - m2)) I1(k1) / I0(k1)."""
        if not isinstance(other, VonMises):
            return NotImplemented

        def of_one_mean(k1: Value, k2: Value) -> Value:
            return log(i0e(k2)) - log(i0e(k1)) + (k2 - k1) * bessel_deficit(k1)

        k1, k2 = self.concentration, other.concentration
        half = sin(0.5 * (self.loc - other.loc))
        return weak(in_double(of_one_mean))(k1, k2) + 2 * k2 * (1 - weak(bessel_deficit)(k1)) * (half * half)
