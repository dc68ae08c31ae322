"""Subsets of a fixed size, as vectors of zeros and ones: independent coins, given how many of them are heads."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np
import scipy.fft
import scipy.special as sp

from scg.core.aliases import Function
from scg.core.ambient import settled
from scg.core.axes import contraction
from scg.core.node import Numeric, Value
from scg.core.operands import described
from scg.core.options import is_integer
from scg.core.primitive import primitive
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.categorical import Logits
from scg.distributions.constraints import boolean
from scg.distributions.discrete import numbers, times
from scg.errors import ScgValueError, here
from scg.primitives.layout import stop_gradient
from scg.special import log_sigmoid, sigmoid

_DIRECT = 32  # coefficients up to which polynomials are multiplied term by term, and not by Fourier transforms


def _product(a: np.ndarray, b: np.ndarray, length: int) -> np.ndarray:
    """The first ``length`` coefficients of the products of polynomials along the last axis."""
    shape = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    n, m = a.shape[-1], b.shape[-1]
    if min(n, m) > _DIRECT:
        points = scipy.fft.next_fast_len(n + m - 1, real=True)
        found = scipy.fft.irfft(scipy.fft.rfft(a, points) * scipy.fft.rfft(b, points), points)[..., :length]
        return np.asarray(found, np.result_type(a, b))
    a, b = (a, b) if m <= n else (b, a)
    out = np.zeros((*shape, a.shape[-1] + b.shape[-1] - 1), np.result_type(a, b))
    for j in range(b.shape[-1]):
        out[..., j : j + a.shape[-1]] += a * b[..., j : j + 1]
    return out[..., :length]


def _quotient(g: np.ndarray, b: np.ndarray, length: int) -> np.ndarray:
    """sum_j g[i + j] b[j] for i < ``length``: what the product sends back to its other factor."""
    full = _product(g, b[..., ::-1], g.shape[-1] + b.shape[-1] - 1)[..., b.shape[-1] - 1 :][..., :length]
    missing = length - full.shape[-1]
    return np.concatenate([full, np.zeros((*full.shape[:-1], missing), full.dtype)], axis=-1) if missing > 0 else full


_both = contraction("i,j->k", products=True)
product: Function = primitive(
    _product,
    _both,
    lambda g, out, a, b, length: quotient(g, b, length=a.shape[-1]),
    lambda g, out, a, b, length: quotient(g, a, length=b.shape[-1]),
    name="polynomial_product",
    linear="each",
)
quotient: Function = primitive(
    _quotient,
    _both,
    lambda g, out, y, b, length: product(g, b, length=y.shape[-1]),
    lambda g, out, y, b, length: quotient(y, g, length=b.shape[-1]),
    name="polynomial_quotient",
    linear="each",
)


@final
@dataclass(frozen=True, eq=False, repr=False)
class SubsetOfSize(Distribution, FiniteSupport, FixedSupport):
    """k = ``size`` of n things: p(z) = exp(z . l) / e_k(exp(l)) for z in {0, 1}^n with sum k, l = ``logits`` along the
    last axis, e_k the elementary symmetric polynomial. It is that of independent coins of logits l, given that k are
    heads, and a constant added to all logits changes nothing. A logit of -inf is a thing that is never taken.

    The normaliser is that of coins of logits l + c, with c such that k heads are expected: e_k(exp(l)) = P(S = k)
    exp(sum softplus(l + c) - k c), S the number of heads, whose distribution is a product of n polynomials of degree
    one, multiplied in pairs (O(n log(n)^2) and without underflow). ``mean`` holds the probability of each thing to be
    taken, p_i P(S - z_i = k - 1) / P(S = k), p_i = sigmoid(l_i + c). Samples are exact and of the dtype of the logits:
    numbers of heads are drawn from the root of that tree of products down to the coins (Chen and Liu, 1997, has the
    distribution and its recursions).

    ``StraightThrough`` of it, which passes the gradient to ``mean``, is SIMPLE (Ahmed et al., 2023): biased, for the
    basket of ``benchmarks.variance`` by .17 where the greatest derivative is .38.

    Raises ScgValueError where the size is no integer from 0 to n, or fewer than k things are possible.
    """

    logits: Value
    size: int
    constraints = {"logits": Logits()}
    support = boolean  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not is_integer(self.size, 0):
            raise ScgValueError(f"SubsetOfSize: size must be an integer of at least 0, got {self.size!r} ({here()})")
        super().__post_init__()
        possible = np.min(
            np.sum(getattr(self.logits, "raw", self.logits) > -math.inf, axis=-1), initial=self.population
        )
        if self.size > possible:
            raise ScgValueError(
                f"SubsetOfSize: size must be at most the number of things that are possible, {possible}, got"
                f" {self.size}, for logits {described((self.logits,))} ({here()})"
            )

    @property
    def population(self) -> int:
        """n, of how many things the subset is."""
        return int(self.logits.shape[-1])

    @property
    def event_shape(self) -> Shape:
        return (self.population,)

    def count(self) -> int:
        return math.comb(self.population, self.size)

    def atoms(self) -> np.ndarray:
        n, k = self.population, self.size
        found = np.zeros((math.comb(n, k), n), self.dtype)
        for row, chosen in zip(found, combinations(range(n), k), strict=True):
            row[list(chosen)] = 1
        return found.reshape(-1, *[1] * len(self.batch_shape), n)

    def _tilted(self) -> Value:
        """l + c: the logits of coins of which k are heads in the mean."""
        l = self.logits
        return l + stop_gradient(_shift(np.asarray(getattr(l, "raw", l), float), self.size).astype(l.dtype))

    def _tree(self, tilted: Value) -> list[Value]:
        """Distributions of numbers of heads, from those of single coins up to that of all: level i has 2^i coins in a
        row, and no number beyond k."""
        more = (1 << (self.population - 1).bit_length()) - self.population
        p = np.stack([sigmoid(-tilted), sigmoid(tilted)], axis=-1)[..., : self.size + 1]
        if more:  # coins that are never heads
            rest = np.zeros((*p.shape[:-2], more, p.shape[-1]), p.dtype)
            rest[..., 0] = 1
            p = np.concatenate([p, rest], axis=-2)
        levels: list[Value] = [p]
        while p.shape[-2] > 1:
            length = min(2 * p.shape[-1] - 1, self.size + 1)
            p = product(p[..., ::2, :], p[..., 1::2, :], length=length)
            levels.append(p)
        return levels

    def log_prob(self, value: Numeric) -> Value:
        value, x = numbers(self._events(value), self.dtype), self._tilted()
        coins = np.sum(times(value, log_sigmoid(x)) + times(1 - value, log_sigmoid(-x)), axis=-1)
        found = coins - np.log(self._tree(x)[-1][..., 0, self.size])
        if settled(lambda v: not np.any(v * (v - 1)) and np.all(np.sum(v, axis=-1) == self.size), value):
            return found
        bad = np.any((value != 0) & (value != 1), axis=-1) | (np.sum(value, axis=-1) != self.size)
        return np.where(np.any(value != value, axis=-1), math.nan, np.where(bad, -math.inf, found))

    def _chances(self) -> tuple[Value, Value]:
        """Of each thing, P(it is taken, S = k) and P(it is not, S = k)."""
        x, k = self._tilted(), self.size
        # of the coins beside those of a row: the probability that with j heads in the row there are k in all
        beside: Value = np.zeros((1, k + 1), self.dtype)
        beside[0, k] = 1
        for below in self._tree(x)[-2::-1]:
            length = below.shape[-1]
            left = quotient(beside, below[..., 1::2, :], length=length)
            right = quotient(beside, below[..., ::2, :], length=length)
            both = np.stack([left, right], axis=-2)
            beside = np.reshape(both, (*both.shape[:-3], 2 * both.shape[-3], length))
        beside = beside[..., : self.population, :]
        return (sigmoid(x) * beside[..., 1] if k else 0.0 * sigmoid(x)), sigmoid(-x) * beside[..., 0]

    @property
    def mean(self) -> Value:
        """The probability of each thing to be taken."""
        taken, left = self._chances()
        return taken / (taken + left)

    @property
    def variance(self) -> Value:
        taken, left = self._chances()
        return taken * left / (taken + left) ** 2

    def entropy(self) -> Numeric:
        """log of the normaliser - mean . l."""
        x, mean = self._tilted(), self.mean
        coins = np.sum(times(mean, log_sigmoid(x)) + times(1 - mean, log_sigmoid(-x)), axis=-1)
        return np.log(self._tree(x)[-1][..., 0, self.size]) - coins

    def kl_to(self, other: Distribution) -> Numeric:
        """The difference of log normalisers, and mean . (l - m)."""
        if type(other) is not SubsetOfSize or other.size != self.size or other.population != self.population:
            return NotImplemented
        x, y, mean = self._tilted(), other._tilted(), self.mean
        heads = log_sigmoid(x) - log_sigmoid(y)
        tails = log_sigmoid(-x) - log_sigmoid(-y)
        normalisers = [np.log(d._tree(t)[-1][..., 0, self.size]) for d, t in ((self, x), (other, y))]
        return np.sum(times(mean, heads) + times(1 - mean, tails), axis=-1) - normalisers[0] + normalisers[1]

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        plain: SubsetOfSize = self.detached()
        x = np.asarray(plain._tilted(), float)
        levels, full = [np.asarray(p, float) for p in plain._tree(x)], self.full_shape(shape)
        heads = np.full((*full[:-1], 1), self.size)
        for p in levels[-2::-1]:  # how many of a row's heads are in its first half
            left, right = p[..., ::2, :], p[..., 1::2, :]
            j = np.arange(p.shape[-1])
            rest = heads[..., None] - j
            inside = (rest >= 0) & (rest < p.shape[-1])
            at = np.broadcast_to(right, (*rest.shape[:-1], p.shape[-1]))
            weights = left * np.where(inside, np.take_along_axis(at, np.where(inside, rest, 0), -1), 0.0)
            sums = np.cumsum(np.maximum(weights, 0.0), axis=-1)
            u = rng.random(heads.shape)[..., None] * sums[..., -1:]
            first = np.sum(u >= sums[..., :-1], axis=-1)
            heads = np.stack([first, heads - first], axis=-1).reshape(*heads.shape[:-1], -1)
        return heads[..., : self.population].astype(self.dtype)


def _shift(l: np.ndarray, k: int) -> np.ndarray:
    """c with sum sigmoid(l + c) = k along the last axis (half of one from the ends, where there is none): bisection to
    what a float can tell. Any c is right; this one keeps P(S = k) from being small."""
    n = np.sum(l > -math.inf, axis=-1, keepdims=True)
    wanted = np.clip(float(k), 0.5, np.maximum(n - 0.5, 0.5))
    middle = sp.logit(wanted / np.maximum(n, 1.0 + (n == 1) * 0.5))
    low = middle - np.max(l, axis=-1, keepdims=True, initial=-math.inf)
    high = middle - np.min(l, axis=-1, keepdims=True, initial=math.inf, where=l > -math.inf)
    for _ in range(60):
        c = 0.5 * (low + high)
        more = np.sum(sp.expit(l + c), axis=-1, keepdims=True) < wanted
        low, high = np.where(more, c, low), np.where(more, high, c)
    return 0.5 * (low + high)
