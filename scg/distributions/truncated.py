"""The normal distribution between two ends, of which one or both may be infinite."""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np
import scipy.special as sp

from scg.core.aliases import Result
from scg.core.ambient import settled
from scg.core.node import Node, Numeric, Value
from scg.distributions import tail
from scg.distributions.base import FixedSupport
from scg.distributions.constraints import (
    finite,
    positive,
    real,
)
from scg.distributions.ends import within_ends
from scg.distributions.normal import LOG_2PI
from scg.distributions.uniform import BetweenEnds, InverseCDF
from scg.distributions.weak import log, real_array, weak
from scg.primitives.layout import stop_gradient
from scg.special import log1mexp


@final
@dataclass(frozen=True, eq=False, repr=False)
class TruncatedNormal(InverseCDF, BetweenEnds, FixedSupport):
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
        """a, b and the width between them; -1, 0.9 and 1.9, where nothing is tied, where ``tail`` has the answer."""
        a, b = self._ends()
        width = self._width(self.high)
        if far is None:
            return a, b, width
        return np.where(far.here, -1, a), np.where(far.here, 0.9, b), np.where(far.here, 1.9, width)

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

    def _width(self, high: Numeric) -> Result:
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
        a, b = np.where(plain, a, -2), np.where(plain, b, 1.9)
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
        right = a > -b
        width: Value = self._width(self.high)
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
            t = self.scale * tail.distance(far.c, p, far.right, far.width)
            found = np.where(far.here, np.where(far.right, self.low + t, self.high - t), found)
        return within_ends(found, self.low, self.high)


class _Tail(NamedTuple):
    here: Value
    right: Value  # whether the nearer end is ``low``
    c: Value  # its distance from loc, in scales
    width: Numeric


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
    return np.where(short, near, _tail_mass(np.where(short, -1, a), np.where(short, 0.9, b)))


@weak
def _tail_mass(a: Numeric, b: Numeric) -> Value:
    """log(Phi(b) - Phi(a)) for a < b, from whichever tail is the nearer."""
    right = a > -b
    low, high = sp.log_ndtr(np.where(right, -b, a)), sp.log_ndtr(np.where(right, -a, b))
    return high + log1mexp(low - np.where(np.isinf(high), 0, high))  # far out both are -inf


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
