"""Distributions on an interval, and on the circle."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import scipy.special as sp

from scg.core.ambient import settled
from scg.core.node import Node, Numeric, Value
from scg.core.options import is_number
from scg.distributions import tail
from scg.distributions.accurate import bessel_deficit, i0e, in_double, log_gamma_bend
from scg.distributions.base import (
    Distribution,
    FixedSupport,
    Reparameterizable,
    Shape,
    betaln,
    digamma,
    exp,
    log,
    masked,
    real_array,
    weak,
    xlog1py,
    xlogy,
)
from scg.distributions.constraints import (
    Circle,
    Constraint,
    Interval,
    finite,
    positive,
    real,
    unit_interval,
)
from scg.distributions.implicit import quantile
from scg.distributions.normal import LOG_2PI
from scg.distributions.uniform import UNIT, InverseCDF
from scg.errors import ScgTypeError, here
from scg.primitives.layout import stop_gradient
from scg.special import log1mexp, vonmises_cdf

sin = weak(np.sin)
TURN = 2 * math.pi


@final
@dataclass(frozen=True, eq=False, repr=False)
class Beta(InverseCDF, Distribution, FixedSupport):
    """log p(z) = (a - 1) log z + (b - 1) log(1 - z) - log B(a, b), a = concentration1, b = concentration0, 0 <= z <= 1.

    Reparameterized by its quantile function, whose derivatives in a and b are implicit (Figurnov et al., 2018) and
    first order only. Draws lie strictly between 0 and 1.
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
            return log(a) + log(b) + xlogy(a - 1, z) + xlogy(b - 1, -np.expm1(xlogy(a, z)))

        value = real_array(value)
        with np.errstate(divide="ignore"):
            return masked((value < 0) | (value > 1), density, value, 0.5)

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


@final
@dataclass(frozen=True, eq=False, repr=False)
class TruncatedNormal(InverseCDF, Distribution, FixedSupport):
    """The distribution of x ~ N(loc, scale^2) given that low <= x <= high; an end may be infinite. Reparameterized by
    its quantile function.

    log p(z) = log N(z; loc, scale^2) - log(Phi(b) - Phi(a)), a = (low - loc) / scale, b = (high - loc) / scale,

    accurate far out in either tail.
    ``low`` and ``high`` move its support: no score function where one of them is a Node.
    """

    loc: Numeric
    scale: Numeric
    low: Numeric
    high: Numeric
    constraints = {"loc": finite, "scale": positive, "low": real, "high": real}
    moving = ("low", "high")

    def _tied(self) -> None:
        plain = self.detached()
        self._require(
            plain.low < plain.high, f"high must be greater than low, got low={self.low!r}, high={self.high!r}"
        )

    @property
    def support(self) -> Constraint:
        return Interval(self.low, self.high)

    def _ends(self) -> tuple[Value, Value]:
        """a and b; an infinite end stays what it is, with derivative zero."""
        return tuple(self._standard(end) for end in (self.low, self.high))  # type: ignore[return-value]

    def _standard(self, end: Numeric) -> Numeric:
        if type(end) is not Node and np.all(np.isinf(end)):
            return end
        if type(end) is float:
            return (end - self.loc) / self.scale
        held = np.isinf(end)
        return np.where(held, end, (np.where(held, 0, end) - self.loc) / self.scale)

    def log_prob(self, value: Numeric) -> Value:
        value = real_array(value)
        outside = (value < self.low) | (value > self.high) | np.isinf(value)
        far = self._tail()
        away = outside if far is None else outside | far.here
        x = np.where(away, 0, (np.where(away, 0, value) - self.loc) / self.scale)
        found = -0.5 * (x * x) - 0.5 * LOG_2PI - _log_mass(*self._near(far))
        if far is not None:
            t = self._from_near(value, outside, far)
            found = np.where(far.here, tail.log_density(far.c, t, far.width), found)
        return np.where(outside, -math.inf, found - log(self.scale))

    def _tail(self) -> "_Tail | None":
        """What ``scg.distributions.tail`` needs, where some window is so far from loc; c is ``FAR`` where it is not."""
        a, b = self._ends()
        if not settled(lambda a, b: np.any(np.maximum(a, -b) > tail.FAR), a, b):
            return None
        right = np.greater(a, -b)
        c = np.where(right, a, -b)
        here, width = np.greater(c, tail.FAR), (self.high - self.low) / self.scale
        return _Tail(here, right, np.where(here, c, tail.FAR), np.where(here, width, 1))

    def _near(self, far: "_Tail | None") -> tuple[Value, Value, Value]:
        """a, b and the width between them; -1, 1 and 2 where ``tail`` has the answer."""
        a, b = self._ends()
        width = self._width(self.high)
        if far is None:
            return a, b, width
        return np.where(far.here, -1, a), np.where(far.here, 1, b), np.where(far.here, 2, width)

    def _from_near(self, value: Numeric, outside: Value, far: "_Tail") -> Value:
        """The distance of a value from the end nearer to the mode, in scales; 0 where it is ``outside``."""
        end = np.where(far.right, self.low, self.high)
        apart = np.where(outside, end, value) - end
        return np.where(far.right, apart, -apart) / self.scale

    def _wide(self) -> "TruncatedNormal":
        """The same distribution in float64: what its moments cancel, float32 does not have."""
        wide = np.result_type(self.dtype, float)
        return self.replaced(
            **{
                name: p if getattr(p, "dtype", None) == wide else real_array(p).astype(wide)
                for name, p in self.parameters.items()
            }
        )  # type: ignore[no-any-return]

    def _width(self, high: Any) -> Any:
        """(high - low) / scale: not b - a, in which loc / scale would cancel. Where an end is infinite, 20: no density
        is left so far away."""
        if type(high) is type(self.low) is type(self.scale) is float:
            return 20.0 if math.isinf(high - self.low) else (high - self.low) / self.scale
        return np.where(np.isinf(self.low) | np.isinf(high), 20, (_finite(high) - _finite(self.low)) / self.scale)

    def _closed(self) -> tuple[Value, ...]:
        """Where the closed forms of the moments do not cancel, and there the log-mass, a, b, and phi(a), phi(b) over
        the mass; an infinite end as 0 with density 0. That is where the window is longer than 2 and has the mode
        inside, or not 1 away: else the variance, for a window of length w about w^2 / 12 and far in a tail 1 / a^2,
        would be a sum of terms that are much greater.
        """
        a, b = self._ends()
        plain = (np.maximum(a, -b) < 1) & (self._width(self.high) > 2)
        a, b = np.where(plain, a, -2), np.where(plain, b, 2)
        mass = _tail_mass(a, b)
        out = [plain, mass]
        for end in (a, b):
            none = np.isinf(end)
            x = np.where(none, 0, end)
            out += [x, np.where(none, 0, np.exp(-0.5 * x * x - 0.5 * LOG_2PI - mass))]
        return tuple(out)

    def _from_end(self, plain: Value) -> tuple[Value, ...]:
        """What is not ``plain``, seen from the end nearer to the mode: whether that is ``low``, how far c it is from
        loc, outwards, and the log-integral, the mean and the variance of exp(-c t - t^2 / 2), t the distance from that
        end.

        By a Gauss rule over the window, or to where the density has fallen by exp(-45): all terms have one sign, so no
        digits cancel.
        """
        a, b = self._ends()
        right, width = a > -b, self._width(self.high)
        c = np.where(plain, 1, np.where(right, a, -b))
        reach = stop_gradient(90 / (c + np.hypot(c, math.sqrt(90))))
        e = np.where(width > reach, reach, width)
        nodes, q = _MANY[0], _falling(c, e, _MANY)
        total = np.sum(q, axis=-1)
        first = np.sum(q * nodes, axis=-1) / total
        apart = nodes - first[..., None]
        return right, c, np.log(e) + np.log(total), e * first, e * e * (np.sum(q * (apart * apart), axis=-1) / total)

    @property
    def mean(self) -> Numeric:
        distribution = self._wide()
        plain, _, _, pa, _, pb = distribution._closed()
        right, _, _, t, _ = distribution._from_end(plain)
        near = np.where(right, distribution.low + distribution.scale * t, distribution.high - distribution.scale * t)
        return self._whole(np.where(plain, distribution.loc + distribution.scale * (pa - pb), near).astype(self.dtype))

    @property
    def variance(self) -> Numeric:
        distribution = self._wide()
        plain, _, a, pa, b, pb = distribution._closed()
        spread = np.where(plain, 1 + a * pa - b * pb - (pa - pb) ** 2, distribution._from_end(plain)[-1])
        return self._whole((distribution.scale * distribution.scale * spread).astype(self.dtype))

    def entropy(self) -> Numeric:
        """log scale + log of the integral of exp(-(x^2 - x0^2) / 2) + E (x^2 - x0^2) / 2, x = (z - loc) / scale and x0
        the nearer end, or 0."""
        distribution = self._wide()
        plain, mass, a, pa, b, pb = distribution._closed()
        _, c, size, t, spread = distribution._from_end(plain)
        found = np.where(
            plain, 0.5 * (1 + LOG_2PI) + mass + 0.5 * (a * pa - b * pb), size + c * t + 0.5 * (spread + t * t)
        )
        return self._whole((log(distribution.scale) + found).astype(self.dtype))

    def cdf(self, value: Numeric) -> Value:
        value, far = real_array(value), self._tail()
        a, b, width = self._near(far)
        below, above = value <= self.low, value >= self.high
        x = np.where(
            below | above,
            0.5 * (np.where(np.isinf(a), b, a) + np.where(np.isinf(b), a, b)),
            (value - self.loc) / self.scale,
        )
        inside, part = np.where(np.isinf(x), 0, x), self._width(np.where(below | above, math.inf, value))
        if far is not None:
            inside, part = np.where(far.here, 0, inside), np.where(far.here, 1, part)
        found = np.exp(_log_mass(a, inside, part) - _log_mass(a, b, width))
        if far is not None:
            t = self._from_near(value, below | above, far)
            p = tail.share(far.c, t, far.width)
            found = np.where(far.here, np.where(far.right, p, 1 - p), found)
        return np.where(below, 0, np.where(above, 1, found))

    def icdf(self, probability: Numeric) -> Value:
        p, far = real_array(probability), self._tail()
        a, b, width = self._near(far)
        right = a > -b  # from the side that has the greater mass, so that its logarithm is accurate
        start, end = np.where(right, -b, a), np.where(right, -a, b)
        q = np.where(right, 1 - p, p)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = sp.ndtri_exp(np.logaddexp(sp.log_ndtr(start), np.log(q) + _log_mass(start, end, width)))
        found = self.loc + self.scale * np.where(right, -x, x)
        if far is not None:
            t = self.scale * tail.distance(far.c, np.where(far.right, p, 1 - p), far.width)
            found = np.where(far.here, np.where(far.right, self.low + t, self.high - t), found)
        return np.clip(found, self.low, self.high)


class _Tail(NamedTuple):
    here: Value
    right: Value  # whether the nearer end is ``low``
    c: Value  # its distance from loc, in scales
    width: Numeric


@final
@dataclass(frozen=True, eq=False, repr=False)
class VonMises(Reparameterizable, Distribution, FixedSupport):
    """log p(z) = k cos(z - loc) - log(2 pi I0(k)), k the concentration: the density of an angle, in radians, the same a
    turn later.

    ``low`` says on which turn draws lie; ``cdf``, ``icdf``, ``mean`` and ``variance`` are those of the samples.

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
                    f"VonMises: low must be a finite number, where the turn of the draws begins, got {self.low!r}"
                    f" ({here()})"
                )
            object.__setattr__(self, "low", float(self.low))

    @property
    def moving(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("loc",) if self.low is None else ()

    def way_out(self, capability: type) -> str:
        return (
            "VonMises(loc, concentration, low=-np.pi), whose draws stay on one turn"
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
        return -2 * self.concentration * (half * half) - LOG_2PI - log(i0e(self.concentration))

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
        low: Any = self.low
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
        return in_double(of_one_mean)(k1, k2) + 2 * k2 * (1 - bessel_deficit(k1)) * (half * half)


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


def _finite(end: Numeric) -> Numeric:
    """An end, 0 where it is infinite; a Python number stays one."""
    return np.where(np.isinf(end), 0, end) if type(end) is not float else 0.0 if math.isinf(end) else end


@weak
def _log_mass(a: Value, b: Value, width: Value) -> Value:
    """log(Phi(b) - Phi(a)) for b = a + width, by a Gauss rule where the tails at a and b would cancel."""
    c = np.maximum(a, -b)
    short = (width < 1) & (c * width < 1)
    w = np.where(short, width, 1)
    x = np.where(short, c, 0)
    near = np.log(w) + np.log(np.sum(_falling(x, w, _FEW), axis=-1)) - 0.5 * (x * x) - 0.5 * LOG_2PI
    return np.where(short, near, _tail_mass(np.where(short, -1, a), np.where(short, 1, b)))


@weak
def _tail_mass(a: Numeric, b: Numeric) -> Value:
    """log(Phi(b) - Phi(a)) for a < b, from whichever tail is the nearer."""
    right = a > -b
    low, high = sp.log_ndtr(np.where(right, -b, a)), sp.log_ndtr(np.where(right, -a, b))
    return high + log1mexp(low - high)


def _rule(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a Gauss rule on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return 0.5 * (1 + nodes), 0.5 * weights


_FEW, _MANY = _rule(8), _rule(32)
"""Rules for exp(-x), x from 0 to 1.5 and to 45, with less than 1e-18 of error: about 2 I_2n(x/2) exp(-x/2)."""


def _falling(c: Value, end: Value, rule: tuple[np.ndarray, np.ndarray]) -> Value:
    """exp(-c t - t^2 / 2) at t = end * nodes, along a new last axis, times the weights."""
    nodes, weights = (x.astype(end.dtype) for x in rule)
    t = end[..., None] * nodes
    return weights * np.exp(-t * (c[..., None] + 0.5 * t))


def _strictly_inside(z: Any) -> Any:
    """Numbers from 0 to 1 moved to the nearest ones strictly between."""
    return np.clip(z, float(np.finfo(z.dtype).tiny), 1 - float(np.finfo(z.dtype).epsneg))
