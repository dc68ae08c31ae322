"""What distributions on integers share.

A probability by one of two parameters, quantiles, and what a log-probability is outside the support.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.special as sp

from scg import special
from scg.core.aliases import Given, Operand
from scg.core.ambient import settled
from scg.core.node import Node, Numeric, Value
from scg.core.primitive import primitive
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.implicit import Inverted
from scg.distributions.weak import real_array, weak
from scg.errors import ScgTypeError, here


@weak
def times(p: Numeric, x: Numeric) -> Value:
    """p * x, and 0 where p is 0 whatever x is: a term of an expectation."""
    with np.errstate(invalid="ignore"):
        return np.where(p == 0, 0, p * x)


@weak
def log(p: Numeric) -> Numeric:
    """log p, -inf at 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(p)


@weak
def log1m(p: Numeric) -> Numeric:
    """log(1 - p), -inf at 1 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log1p(-p)


sigmoid, softplus = weak(special.sigmoid), weak(special.softplus)


class ByProbs(Distribution):
    """A distribution that is given by ``probs`` or ``logits``, never both."""

    probs: Given  # one of the two is given
    logits: Given

    def way_out(self, capability: type) -> str:
        return AT_AN_EDGE if capability is FixedSupport else ""

    def __post_init__(self) -> None:
        one_of_two(self)
        super().__post_init__()


class Odds(ByProbs):
    """A distribution with a probability p, by ``probs`` or ``logits``: p, q = 1 - p and their logarithms, each accurate
    in both tails.

    Samples have its dtype.
    """

    edges = {"probs": (0.0, 1.0)}

    @property
    def dtype(self) -> np.dtype:
        given = self.logits if self.probs is None else self.probs
        return np.dtype(float) if type(given) is float else np.dtype(given.dtype)

    @property
    def p(self) -> Numeric:
        """The probability."""
        return sigmoid(self.logits) if self.probs is None else self.probs

    @property
    def q(self) -> Numeric:
        """1 - p."""
        return sigmoid(-self.logits) if self.probs is None else 1 - self.probs

    @property
    def log_p(self) -> Numeric:
        """log p."""
        return -softplus(-self.logits) if self.probs is None else log(self.probs)

    @property
    def log_q(self) -> Numeric:
        """log(1 - p)."""
        return -softplus(self.logits) if self.probs is None else log1m(self.probs)

    def power(self, a: Numeric, b: Value) -> Value:
        """log(p^a q^b), in which 0 log 0 = 0."""
        if self.probs is not None:
            return sp.xlogy(a, self.probs) + sp.xlog1py(b, -self.probs)
        return times(a, self.log_p) + times(b, self.log_q)

    def of_a_trial(self, other: "Odds") -> Numeric:
        """KL between the coins: p log(p/p') + q log(q/q')."""
        with np.errstate(invalid="ignore"):  # -inf - -inf, where p or q is 0
            return times(self.p, self.log_p - other.log_p) + times(self.q, self.log_q - other.log_q)


def smallest(distribution: Distribution, probability: Numeric) -> Value:
    """The smallest integer whose cdf is at least ``probability``. It moves in steps: its derivative is zero."""
    nodes = {name: p for name, p in distribution.parameters.items() if type(p) is Node}
    return _smallest(real_array(probability), *nodes.values(), distribution=distribution.detached(), names=tuple(nodes))


def _smallest_value(u: Value, *parameters: Value, distribution: Distribution, names: tuple[str, ...]) -> Value:
    distribution = distribution.replaced(**dict(zip(names, parameters, strict=True)))
    shape = np.broadcast_shapes(np.shape(u), distribution.batch_shape)
    below = np.full(shape, distribution.support.low - 1.0)  # always too small
    reach = np.ones(shape)
    for _ in range(1020):
        short = distribution.cdf(below + reach) < u
        if not short.any():
            break
        reach = np.where(short, 2 * reach, reach)
    above = below + reach
    while True:
        middle = np.floor((below + above) / 2)
        if not np.any((middle > below) & (middle < above)):  # neighbours: as integers, or as floats beyond 2^53
            break
        short = distribution.cdf(middle) < u
        below, above = np.where(short, middle, below), np.where(short, above, middle)
    above = np.where(
        u == 1, np.broadcast_to(distribution.support.high, shape), np.maximum(above, distribution.support.low)
    )
    return np.where((u >= 0) & (u <= 1), above, math.nan).astype(distribution.dtype)[()]


_smallest = primitive(_smallest_value, Inverted(), name="smallest")


AT_AN_EDGE = (
    "at a probability of 0 or 1 that moves, whose derivative is about values that are not drawn, Enumerate() or"
    " MeasureValued(); or logits in place of probs"
)


def one_of_two(distribution: Operand) -> None:
    """Raise ScgTypeError unless exactly one of ``probs`` and ``logits`` is given."""
    if (distribution.probs is None) == (distribution.logits is None):
        raise ScgTypeError(f"{type(distribution).__name__} takes probs or logits, one of the two ({here()})")


def numbers(value: Operand, dtype: np.dtype) -> Value:
    """``value`` as a Node or array of floats: those that it has, else of ``dtype``."""
    kind = getattr(value, "dtype", None)
    if kind is not None and kind.kind == "f":
        return value
    return value.astype(dtype) if type(value) is Node else np.asarray(value, dtype)


def outside(value: Value, low: Numeric, high: Numeric | None = None) -> Value:
    """Where ``value`` is no integer from ``low`` to ``high`` (None: without end). A NaN is not outside: it stays
    NaN."""
    above = value == math.inf if high is None else value > high
    return (value < low) | above | (np.floor(value) < value)


def _some_outside(value: Value, low: Numeric, high: Numeric | None) -> bool:
    return bool(np.any(outside(value, low, high)))


def supported(inside: Callable[[Value], Value], value: Value, low: Numeric, high: Numeric | None = None) -> Value:
    """``inside(value)`` on the support, -inf with gradient zero outside.

    The choice enters the graph only where a recorded value is outside: a replay at fractional values (a relaxation)
    continues the formula.
    """
    if not settled(_some_outside, value, low, high):
        return inside(value)
    bad = outside(value, low, high)
    return np.where(bad, -math.inf, inside(np.where(bad, low, value)))
