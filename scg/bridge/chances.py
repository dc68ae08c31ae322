"""Probabilities of the discrete distributions of NumPy, PyTorch and JAX, in float64.

Those of counts come from the ratio p(k+1)/p(k), multiplied up from the mode, where no product overflows, and divided by
their sum: right to a few units in the last place.
"""

import functools
import math

import numpy as np
from numpy.typing import ArrayLike

from scg.bridge.lines import user_line
from scg.core.aliases import Function, Operand
from scg.errors import ScgValueError

EDGE = 4
"""Values in a block at the end of a support that is cut: from two blocks follows what lies beyond."""
_FARTHEST = 2**22  # values of a support without end


class Chances:
    """Probabilities of the values first, first + 1, ... of one sample.

    ``cut``  whether the support goes on: then some probability is missing
    """

    def __init__(self, probabilities: Operand, first: int = 0, cut: bool = False):
        self.probabilities, self.first, self.cut = np.asarray(probabilities, float), first, cut
        self.possible = np.flatnonzero(self.probabilities > 0)
        self.count = len(self.possible)

    def same(self, other: "Chances") -> bool:
        """Whether the two are of one distribution."""
        return self is other or (self.first == other.first and np.array_equal(self.probabilities, other.probabilities))

    def block(self, index: int) -> int:
        """0 in the last block of a support that is cut, 1 in the block before, 2 elsewhere."""
        return min(2, (len(self.probabilities) - 1 - index) // EDGE) if self.cut else 2


@functools.lru_cache(4096)
def bernoulli(p: float) -> Chances:
    """Of 0 and 1."""
    _check("a probability", p, 0 <= p <= 1)
    return Chances([1 - p, p])


@functools.lru_cache(64)
def uniform(count: int) -> Chances:
    """``count`` values with equal probabilities."""
    return Chances(np.full(count, 1 / count))


def categorical(weights: ArrayLike) -> Chances:
    """Probabilities in proportion to ``weights``."""
    weights = np.asarray(weights, float)
    total = np.sum(weights)
    _check("weights", weights, bool(np.all(weights >= 0)) and 0 < total < math.inf)
    return Chances(weights / total)


def softmax(logits: ArrayLike) -> Chances:
    """Probabilities in proportion to exp(logits)."""
    logits = np.asarray(logits, float)
    return categorical(np.exp(logits - np.max(logits)))


@functools.lru_cache(4096)
def binomial(n: int, p: float) -> Chances:
    """Successes of n trials: p(k+1)/p(k) = (n - k)/(k + 1) * p/(1 - p)."""
    _check("a probability", p, 0 <= p <= 1)
    if n <= 1:
        return Chances([1.0]) if n == 0 else bernoulli(p)
    if p > 0.5:
        return Chances(binomial(n, 1 - p).probabilities[::-1])
    k = np.arange(n)
    return Chances(_from_ratios((n - k) / (k + 1) * (p / (1 - p))))


@functools.lru_cache(4096)
def hypergeometric(good: int, bad: int, n: int) -> Chances:
    """Good ones among n that are taken: p(k+1)/p(k) = (good - k)(n - k) / ((k + 1)(bad - n + k + 1))."""
    first = max(0, n - bad)
    k = np.arange(first, min(n, good))
    return Chances(_from_ratios((good - k) * (n - k) / ((k + 1.0) * (bad - n + k + 1))), first)


@functools.lru_cache(4096)
def poisson(rate: float, tail: float) -> Chances:
    """p(k+1)/p(k) = rate/(k + 1)."""
    _check("a rate", rate, 0 <= rate < math.inf)
    return Chances([1.0]) if rate == 0 else _endless(lambda k: rate / (k + 1), 0, tail, f"Poisson({rate:g})")


@functools.lru_cache(4096)
def geometric(p: float, tail: float, first: int = 1) -> Chances:
    """Trials up to the first success, or the failures before it (``first=0``): p(k+1)/p(k) = 1 - p."""
    _check("a probability", p, 0 < p <= 1)
    if p == 1:
        return Chances([1.0], first)
    return _endless(lambda k: np.full(len(k), 1 - p), first, tail, f"geometric({p:g})")


@functools.lru_cache(4096)
def negative_binomial(n: float, p: float, tail: float) -> Chances:
    """Failures before the n-th success: p(k+1)/p(k) = (n + k)/(k + 1) * (1 - p)."""
    _check("a probability", p, 0 < p <= 1)
    if p == 1:
        return Chances([1.0])
    return _endless(lambda k: (n + k) / (k + 1) * (1 - p), 0, tail, f"negative_binomial({n:g}, {p:g})")


@functools.lru_cache(4096)
def logseries(p: float, tail: float) -> Chances:
    """p(k+1)/p(k) = p k/(k + 1), k from 1."""
    _check("a probability", p, 0 <= p < 1)
    return Chances([1.0], 1) if p == 0 else _endless(lambda k: p * (k + 1) / (k + 2), 1, tail, f"logseries({p:g})")


def _endless(ratios: Function, first: int, tail: float, name: str) -> Chances:
    """The least number of values beyond which the probability is below ``tail``, from the ratios of neighbours (k from
    0), which fall in the end."""
    n = 32
    while True:
        weights = _from_ratios(ratios(np.arange(n)))
        beyond = np.cumsum(weights[::-1])[::-1]
        ratio = float(ratios(np.arange(n, n + 1))[0])  # those that follow are no larger, or nearly so
        if ratio < 1 and weights[-1] < tail and weights[-1] * ratio / (1 - ratio) < tail / 8:
            break
        n *= 2
        if n > _FARTHEST:
            raise ScgValueError(
                f"{name} has over {_FARTHEST:,} values before its tail is below {tail:g}: give a larger tail="
                f" ({user_line()})"
            )
    keep = max(int(np.argmax(beyond < tail)), 2 * EDGE)
    return Chances(weights[:keep], first, cut=True)


def _from_ratios(ratios: np.ndarray) -> np.ndarray:
    mode = int(np.argmax(ratios < 1)) if np.any(ratios < 1) else len(ratios)
    up, down = np.cumprod(ratios[mode:]), np.cumprod(1 / ratios[:mode][::-1])
    weights = np.concatenate([down[::-1], [1.0], up])
    return weights / np.sum(weights)


def _check(what: str, given: object, fits: bool) -> None:
    if not fits:
        raise ScgValueError(f"{what} of a sample is out of range: {given} ({user_line()})")
